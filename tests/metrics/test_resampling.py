import math
from collections.abc import Callable
from itertools import permutations, product

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LinearRegression

from cclnet.metrics.calibration import apply_temperature, fit_temperature
from cclnet.metrics.likeness import (
    confused_similarity,
    count_pattern,
    mantel_test,
    notes,
    off_diagonal,
    rank_correlation,
    share_explained_by_counts,
)
from cclnet.metrics.resampling import (
    clustered_bootstrap,
    holm,
    mcnemar,
    mean_and_deviation,
    paired_bootstrap,
    weighted_scores,
)
from cclnet.metrics.scores import evaluate
from cclnet.system.errors import DataError

COUNTS = np.array([1113, 6705, 514, 327, 1099, 115, 142])
BOOTSTRAPPED = ("accuracy", "f1", "kappa", "jaccard", "balanced_accuracy", "nll", "brier", "ece")


def matrix(seed: int, num_classes: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).random((num_classes, num_classes))


def predictions(seed: int, images: int = 120, skill: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Four classes of frequencies .4, .3, .2, .1."""
    generator = np.random.default_rng(seed)
    labels = np.random.default_rng(0).choice(4, images, p=[0.4, 0.3, 0.2, 0.1])
    probabilities = generator.dirichlet(np.full(4, 0.8), images) + skill * np.eye(4)[labels]
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def lesions(images: int = 120) -> np.ndarray:
    return np.array([f"HAM_{index:07}" for index in np.random.default_rng(1).integers(70, size=images)])


def ranks_by_counting(values: list[float]) -> list[float]:
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


def spearman_by_loops(a: np.ndarray, b: np.ndarray) -> float:
    cells = [(i, j) for i in range(len(a)) for j in range(len(a)) if i != j]
    ranks_a = ranks_by_counting([float(a[cell]) for cell in cells])
    ranks_b = ranks_by_counting([float(b[cell]) for cell in cells])
    mean = (len(cells) + 1) / 2
    covariance = sum((x - mean) * (y - mean) for x, y in zip(ranks_a, ranks_b, strict=True))
    return covariance / math.sqrt(sum((x - mean) ** 2 for x in ranks_a) * sum((y - mean) ** 2 for y in ranks_b))


def test_off_diagonal_cells_row_by_row() -> None:
    assert off_diagonal([[9, 1, 2], [3, 9, 4], [5, 6, 9]]).tolist() == [1, 2, 3, 4, 5, 6]
    assert off_diagonal(matrix(0)).shape == (42,)
    assert off_diagonal([[np.nan, 1], [2, np.nan]]).tolist() == [1, 2], "the diagonal is not looked at"


def test_rank_correlation_against_scipy_and_loops() -> None:
    for seed in range(5):
        a, b = matrix(seed), matrix(seed + 10).round(1)  # rounding makes ties
        off = ~np.eye(7, dtype=bool)
        assert rank_correlation(a, b) == pytest.approx(scipy.stats.spearmanr(a[off], b[off])[0], abs=1e-12)
        assert rank_correlation(a, b) == pytest.approx(spearman_by_loops(a, b), abs=1e-12)


def test_rank_correlation_looks_at_the_order_off_the_diagonal_alone() -> None:
    a, b = matrix(0), matrix(1)
    assert rank_correlation(a, a) == 1
    assert rank_correlation(a, -a) == -1
    assert rank_correlation(np.exp(5 * a) + 10 * np.eye(7), b) == rank_correlation(a, b) == rank_correlation(b, a)
    order = np.random.default_rng(2).permutation(7)
    assert rank_correlation(a[order][:, order], b[order][:, order]) == pytest.approx(rank_correlation(a, b))
    assert rank_correlation(a, np.eye(7)) is None


def test_mantel_test_against_loops() -> None:
    a, b = matrix(0, 4), matrix(1, 4)
    b += a
    orders = [list(order) for order in permutations(range(4))]
    correlations = [spearman_by_loops(a, b[order][:, order]) for order in orders]
    observed = spearman_by_loops(a, b)
    test = mantel_test(a, b)
    assert test.correlation == pytest.approx(observed)
    assert test.p_greater == sum(value >= observed - 1e-9 for value in correlations) / 24
    assert test.p_two_sided == sum(abs(value) >= abs(observed) - 1e-9 for value in correlations) / 24


def test_mantel_test_on_seven_classes() -> None:
    a = matrix(3)
    assert mantel_test(a, a) == (1, 1 / 5040, 1 / 5040)
    assert mantel_test(a, -a) == (-1, 1, 1 / 5040)
    correlation, greater, two_sided = mantel_test(a, matrix(4))
    order = np.random.default_rng(5).permutation(7)
    renamed = mantel_test(a[order][:, order], matrix(4)[order][:, order])
    assert (renamed.p_greater, renamed.p_two_sided) == (greater, two_sided)
    assert mantel_test(matrix(4), a) == (correlation, greater, two_sided)
    assert mantel_test(a, np.ones((7, 7))) == (None, 1, 1)


def test_mantel_test_p_is_uniform_where_nothing_is_shared() -> None:
    p = [mantel_test(matrix(seed, 5), matrix(seed + 1000, 5)).p_greater for seed in range(400)]
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def test_mantel_test_samples_the_orders_of_many_classes() -> None:
    a, b = matrix(0, 9), matrix(1, 9)
    assert mantel_test(a, a).p_greater == 1 / 10_000
    assert mantel_test(a, b, seed=1) == mantel_test(a, b, seed=1)
    exact = np.random.default_rng(7)
    observed = rank_correlation(a, b)
    assert observed is not None
    sampled = [rank_correlation(a, b[order][:, order]) for order in (exact.permutation(9) for _ in range(1000))]
    at_least = sum(value is not None and value >= observed for value in sampled) / 1000
    assert mantel_test(a, b).p_greater == pytest.approx(at_least, abs=0.06)


def test_count_pattern_is_highest_where_both_classes_are_rare() -> None:
    pattern = count_pattern(COUNTS)
    assert pattern == pytest.approx(pattern.T)
    assert pattern[5, 6] == off_diagonal(pattern).max() == 1 / (115 * 142)
    assert pattern[0, 1] == off_diagonal(pattern).min()
    assert rank_correlation(pattern, -np.log(COUNTS)[:, None] - np.log(COUNTS)) == pytest.approx(1)


def explained_by_regression(cells: np.ndarray, counts: np.ndarray) -> float:
    """R² by scikit-learn's regression on ranks that are not centred: the same space of predictions."""
    rank = ranks_by_counting(counts.tolist())
    pairs = [(i, j) for i in range(len(counts)) for j in range(len(counts)) if i != j]
    regressors = [[rank[i], rank[j], rank[i] * rank[j]] for i, j in pairs]
    ranks = ranks_by_counting([float(cells[pair]) for pair in pairs])
    return float(LinearRegression().fit(regressors, ranks).score(regressors, ranks))


def test_share_explained_by_counts_against_scikit_learn_in_every_order() -> None:
    counts, cells = np.array([50, 20, 10, 20]), matrix(0, 4)
    every = [explained_by_regression(cells, counts[list(order)]) for order in permutations(range(4))]
    share = share_explained_by_counts(cells, counts)
    assert share is not None
    assert share.explained == pytest.approx(every[0])
    assert share.beyond == pytest.approx(1 - every[0])
    assert share.by_chance == pytest.approx(np.mean(every))
    assert share.p == sum(value >= every[0] - 1e-9 for value in every) / 24
    for seed in range(3):
        share = share_explained_by_counts(matrix(seed), COUNTS)
        assert share is not None
        assert share.explained == pytest.approx(explained_by_regression(matrix(seed), COUNTS))


def test_share_explained_by_counts_tells_counts_from_looks() -> None:
    # embeddings whose lean towards one axis is decided by their class's rarity, the rest points to its own axis
    lean = np.linspace(-0.9, 0.9, 7)[np.argsort(np.argsort(COUNTS))]
    embeddings = np.column_stack([lean, np.diag(np.sqrt(1 - lean**2))])
    similarity = np.exp(2 * embeddings @ embeddings.T)
    collapsed = share_explained_by_counts(similarity / similarity.sum(axis=0), COUNTS)
    assert collapsed is not None
    assert collapsed.explained > 0.9
    assert collapsed.p <= 2 / 5040
    followed = share_explained_by_counts(count_pattern(COUNTS), COUNTS)
    assert followed is not None
    assert followed.beyond < 0.1
    looks = [share_explained_by_counts(matrix(seed), COUNTS) for seed in range(100)]
    shares = [share for share in looks if share is not None]
    # a matrix of independent cells: three regressors of 41 degrees of freedom
    assert np.mean([share.explained for share in shares]) == pytest.approx(3 / 41, abs=0.015)
    assert np.mean([share.by_chance for share in shares]) == pytest.approx(3 / 41, abs=0.015)
    assert np.mean([share.p < 0.05 for share in shares]) == pytest.approx(0.05, abs=0.06)


def test_share_explained_by_counts_ignores_names_and_scales() -> None:
    cells = matrix(8)
    share = share_explained_by_counts(cells, COUNTS)
    order = np.random.default_rng(9).permutation(7)
    assert share_explained_by_counts(cells[order][:, order], COUNTS[order]) == pytest.approx(share)
    assert share_explained_by_counts(np.exp(cells), np.sqrt(COUNTS)) == pytest.approx(share)
    assert share_explained_by_counts(cells, np.full(7, 10)) == (0, 1, 0, 1), "equal counts explain nothing"
    assert share_explained_by_counts(np.eye(7), COUNTS) is None


def test_share_explained_by_counts_of_two_classes_means_nothing() -> None:
    assert share_explained_by_counts([[0.7, 0.3], [0.2, 0.8]], [10, 20]) is None


def test_many_classes_are_reordered_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    cells, counts = matrix(3, 10), np.arange(10, 20)
    whole = share_explained_by_counts(cells, counts), mantel_test(cells, matrix(4, 10))
    monkeypatch.setattr("cclnet.metrics.likeness.REORDERED_CELLS", 1234)
    in_blocks = share_explained_by_counts(cells, counts), mantel_test(cells, matrix(4, 10))
    assert in_blocks[0] == pytest.approx(whole[0])
    assert in_blocks[1] == whole[1]
    assert whole[0] is not None
    assert whole[0].explained == pytest.approx(explained_by_regression(cells, counts))
    assert whole[0].by_chance == pytest.approx(3 / 89, abs=0.003)  # of 89 degrees of freedom


def test_notes_say_why_a_figure_of_the_labels_is_null() -> None:
    both = ("not_explained_by_counts", "follows_confusion")
    similarity = matrix(1, 3) + matrix(1, 3).T
    assert notes(matrix(0, 3), [1, 2, 3], similarity, "abc") == {}
    assert notes(matrix(0, 2), [1, 2], np.eye(2), "ab") == dict.fromkeys(both, "undefined: two classes are one pair")
    reason = "undefined: the labels hold no class for more alike than another"
    assert notes(np.eye(3), [1, 2, 3], similarity, "abc") == dict.fromkeys(both, reason)
    assert notes(matrix(0, 3), [1, 0, 0], None, "abc") == {
        "not_explained_by_counts": "undefined: no training image of b, c",
        "follows_confusion": "undefined: a class has no validation image",
    }
    assert notes(matrix(0, 3), [1, 2, 3], np.eye(3), "abc") == {
        "follows_confusion": "undefined: no two classes are confused more often than others"
    }


def test_weighted_scores_are_evaluates_of_the_repeated_images() -> None:
    labels, probabilities = predictions(1)
    weights = np.random.default_rng(2).integers(4, size=(20, len(labels)))
    weights[0] = 1
    weights[1] = 5 * (labels != 3)  # a class that was not drawn
    weights[2] = labels != 3
    weights[2, np.flatnonzero((labels == 3) & (probabilities.argmax(axis=1) == 3))[0]] = 1  # one image, and right
    scores = weighted_scores(labels, probabilities)(weights.astype(float))
    assert tuple(scores) == BOOTSTRAPPED
    for resample, times in enumerate(weights):
        expected = evaluate(labels.repeat(times), probabilities.repeat(times, axis=0))
        for name in BOOTSTRAPPED:
            assert scores[name][resample] == pytest.approx(expected[name], abs=1e-12)


def test_small_integer_labels_do_not_overflow() -> None:
    labels = np.arange(40, dtype=np.uint8) % 20
    scores = weighted_scores(labels, np.eye(20)[labels])(np.ones((1, 40)))
    assert scores["accuracy"] == scores["balanced_accuracy"] == scores["kappa"] == 1


def test_clustered_bootstrap_against_loops() -> None:
    labels, probabilities = predictions(3)
    clusters = lesions()
    names = list(dict.fromkeys(clusters.tolist()))
    images_of = {name: [i for i, cluster in enumerate(clusters) if cluster == name] for name in names}
    generator = np.random.default_rng(11)
    draws = generator.integers(len(names), size=(60, len(names)))
    resampled = [
        evaluate(labels[images], probabilities[images])
        for images in ([i for index in draw for i in images_of[names[index]]] for draw in draws)
    ]
    intervals = clustered_bootstrap(weighted_scores(labels, probabilities), clusters, n_resamples=60, seed=11)
    observed = evaluate(labels, probabilities)
    for name in BOOTSTRAPPED:
        low, high = np.percentile([float(figures[name] or 0) for figures in resampled], [2.5, 97.5])
        assert intervals[name] == pytest.approx((observed[name], low, high), abs=1e-12)


def accuracy_interval(labels: np.ndarray, probabilities: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    interval = clustered_bootstrap(weighted_scores(labels, probabilities), clusters)["accuracy"]
    assert interval is not None
    return interval.low, interval.high


def test_bootstrap_interval_has_the_width_of_the_binomial() -> None:
    labels = np.tile([0, 0, 0, 1], 500)
    probabilities = np.tile([0.9, 0.1], (2000, 1))
    low, high = accuracy_interval(labels, probabilities, np.arange(2000))
    half = 1.96 * math.sqrt(0.75 * 0.25 / 2000)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=2e-3)
    # four images of each lesion are one piece of evidence: the interval is twice as wide, not the same
    low, high = accuracy_interval(np.tile([0, 0, 0, 1], 125).repeat(4), probabilities, np.arange(500).repeat(4))
    assert (high - low) / 2 == pytest.approx(2 * half, rel=0.1)


def test_duplicated_images_in_their_lesions_change_no_interval() -> None:
    labels, probabilities = predictions(4)
    once = clustered_bootstrap(weighted_scores(labels, probabilities), lesions(), 300)
    twice = clustered_bootstrap(
        weighted_scores(np.tile(labels, 2), np.tile(probabilities, (2, 1))), np.tile(lesions(), 2), 300
    )
    for name in BOOTSTRAPPED:
        assert twice[name] == pytest.approx(once[name], abs=1e-12)


def test_bootstrap_depends_on_the_seed_alone() -> None:
    labels, probabilities = predictions(5)
    scores = weighted_scores(labels, probabilities)
    first = clustered_bootstrap(scores, lesions(), 400, seed=3)
    assert clustered_bootstrap(scores, lesions(), 400, seed=3) == first
    assert clustered_bootstrap(scores, [name.lower() for name in lesions()], 400, seed=3) == first
    assert clustered_bootstrap(scores, lesions(), 400, seed=4) != first


def test_undefined_figures_have_no_interval() -> None:
    probabilities = np.tile([0.1, 0.9], (6, 1))
    intervals = clustered_bootstrap(weighted_scores([1] * 6, probabilities), range(6), 50)
    assert intervals["kappa"] is None
    assert intervals["accuracy"] == (1, 1, 1)
    # some resamples hold class 1 alone: they do not count
    mixed = clustered_bootstrap(weighted_scores([0, 1, 1, 1], probabilities[:4]), range(4), 50)
    assert mixed["kappa"] == (0, 0, 0)


def test_paired_bootstrap_against_loops() -> None:
    labels, probabilities_a = predictions(6, skill=0.9)
    _, probabilities_b = predictions(7, skill=0.3)
    clusters = lesions()
    a, b = weighted_scores(labels, probabilities_a), weighted_scores(labels, probabilities_b)
    names = list(dict.fromkeys(clusters.tolist()))
    draws = np.random.default_rng(5).integers(len(names), size=(80, len(names)))
    found = paired_bootstrap(a, b, clusters, n_resamples=80, seed=5)
    differences: dict[str, list[float]] = {name: [] for name in BOOTSTRAPPED}
    for draw in draws:
        images = [i for index in draw for i in range(len(labels)) if clusters[i] == names[index]]
        figures_a, figures_b = (evaluate(labels[images], p[images]) for p in (probabilities_a, probabilities_b))
        for name in BOOTSTRAPPED:
            differences[name].append(float(figures_a[name] or 0) - float(figures_b[name] or 0))
    for name, values in differences.items():
        low, high = np.percentile(values, [2.5, 97.5])
        p = min(1, 2 * (1 + min(sum(v <= 0 for v in values), sum(v >= 0 for v in values))) / 81)
        estimate = float(a(np.ones((1, 120)))[name][0] - b(np.ones((1, 120)))[name][0])
        assert found[name] == pytest.approx((estimate, low, high, p), abs=1e-12)


def test_paired_bootstrap_of_equals_and_of_swapped() -> None:
    labels, probabilities_a = predictions(6, skill=0.9)
    _, probabilities_b = predictions(7, skill=0.3)
    a, b = weighted_scores(labels, probabilities_a), weighted_scores(labels, probabilities_b)
    assert paired_bootstrap(a, a, lesions(), 100)["accuracy"] == (0, 0, 0, 1)
    forward, backward = paired_bootstrap(a, b, lesions(), 500)["brier"], paired_bootstrap(b, a, lesions(), 500)["brier"]
    assert forward is not None
    assert backward == pytest.approx((-forward.estimate, -forward.high, -forward.low, forward.p))
    assert forward.high < 0
    assert forward.p == pytest.approx(2 / 501), "never 0"


def test_mcnemar_by_hand_and_against_the_binomial() -> None:
    right_a = [True] * 8 + [False] * 2 + [True] * 5 + [False] * 3
    right_b = [False] * 8 + [True] * 2 + [True] * 5 + [False] * 3
    # of 10 images that one alone got right, 0, 1, 2, 8, 9 or 10: (1 + 10 + 45) · 2 / 1024
    assert mcnemar(right_a, right_b) == (8, 2, pytest.approx(112 / 1024))
    assert mcnemar(right_b, right_a) == (2, 8, pytest.approx(112 / 1024))
    assert mcnemar(right_a, right_a) == (0, 0, 1)
    generator = np.random.default_rng(0)
    for _ in range(20):
        a, b = generator.random((2, 50)) < [[0.8], [0.6]]
        only_a, only_b = (a & ~b).sum(), (b & ~a).sum()
        n, fewer = only_a + only_b, min(only_a, only_b)
        tail = 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
        assert mcnemar(a, b) == (only_a, only_b, pytest.approx(min(1, tail)))


def test_holm_by_hand_and_against_the_step_down_rule() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1, 1]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []
    generator = np.random.default_rng(1)
    for _ in range(50):
        p, level = generator.random(6) ** 3, generator.random()
        rejected: set[int] = set()
        for step, index in enumerate(sorted(range(6), key=lambda i: float(p[i]))):
            if p[index] > level / (6 - step):
                break
            rejected.add(index)
        assert set(np.flatnonzero(holm(p) <= level).tolist()) == rejected
        order = generator.permutation(6)
        assert holm(p[order]) == pytest.approx(holm(p)[order])


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([2, 4, 9]) == (5, pytest.approx(math.sqrt(13)))
    assert mean_and_deviation([0.7]) == (0.7, None)


def mean_nll(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def test_fit_temperature_against_a_grid() -> None:
    generator = np.random.default_rng(0)
    logits = 4 * generator.normal(size=(300, 5))
    labels = (logits + 8 * generator.gumbel(size=logits.shape)).argmax(axis=1)
    temperature = fit_temperature(logits, labels)
    grid = np.geomspace(1, 30, 4001)
    losses = [mean_nll(labels, np.exp(logits / t) / np.exp(logits / t).sum(axis=1, keepdims=True)) for t in grid]
    assert temperature == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)
    # at the minimum the mean score of the true classes is the one that the probabilities expect
    probabilities = apply_temperature(logits, temperature)
    true_score = logits[np.arange(300), labels].mean()
    assert (probabilities * logits).sum(axis=1).mean() == pytest.approx(true_score, abs=1e-4)


def test_fit_temperature_recovers_the_truth_and_lowers_calibration_error() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(20_000, 4))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)  # softmax(logits) is the truth
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.05)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3 * fit_temperature(logits, labels), rel=1e-5)
    shifted = 3 * logits + generator.normal(size=(20_000, 1))
    assert fit_temperature(shifted, labels) == pytest.approx(fit_temperature(3 * logits, labels), rel=1e-5)
    before, after = (evaluate(labels, apply_temperature(3 * logits, t)) for t in (1, 3))
    assert before["accuracy"] == after["accuracy"]
    assert (before["ece"] or 0) > 10 * (after["ece"] or 1)


def test_fit_temperature_of_images_that_are_all_right_is_small_and_sure() -> None:
    temperature = fit_temperature(np.eye(3), [0, 1, 2])
    assert 0.01 <= temperature < 0.05
    assert apply_temperature(np.eye(3), temperature) == pytest.approx(np.eye(3))


def test_apply_temperature() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1]])
    assert apply_temperature(np.log(probabilities), 1) == pytest.approx(probabilities)
    powers = probabilities ** (1 / 2.5)
    assert apply_temperature(np.log(probabilities), 2.5) == pytest.approx(powers / powers.sum())
    assert apply_temperature([[1e4, 0, -1e4]], 0.01).tolist() == [[1, 0, 0]]


SCORES = weighted_scores([0, 1], np.full((2, 2), 0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: off_diagonal(np.ones((2, 3))), r"shape \(2, 3\)"),
        (lambda: off_diagonal([[1]]), "at least 2"),
        (lambda: off_diagonal([[1, np.nan], [np.inf, 1]]), "2 off-diagonal cells"),
        (lambda: rank_correlation(matrix(0), matrix(0, 6)), "different classes"),
        (lambda: mantel_test(matrix(0), matrix(0, 6)), "different classes"),
        (lambda: count_pattern([3, 0, 1]), "one positive number per class"),
        (lambda: share_explained_by_counts(matrix(0), [1, 2, 3]), "3 class counts"),
        (lambda: clustered_bootstrap(SCORES, np.array(["a", None])), "cluster"),
        (lambda: clustered_bootstrap(SCORES, []), "cluster"),
        (lambda: clustered_bootstrap(SCORES, ["a", "b", "c"]), "3 images are resampled, 2 were predicted"),
        (lambda: mcnemar([True], [True, False]), "1 and 2 images"),
        (lambda: holm([0.1, np.nan]), "p values"),
        (lambda: holm([1.1]), "p values"),
        (lambda: mean_and_deviation([]), "at least one"),
        (lambda: mean_and_deviation([1, np.nan]), "finite"),
        (lambda: fit_temperature([[0, -np.inf]], [0]), "a probability of 0 has no logarithm"),
        (lambda: fit_temperature([[0, 1]], [2]), "labels run from 2 to 2"),
        (lambda: apply_temperature([[0, 1]], 0), "above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_confused_classes_are_alike_in_both_directions():
    confusion = np.array([[6, 3, 1], [10, 80, 10], [0, 1, 1]])
    similarity = confused_similarity(confusion)
    assert similarity is not None
    for i, j in product(range(3), repeat=2):
        expected = (confusion[i, j] / confusion[i].sum() + confusion[j, i] / confusion[j].sum()) / 2
        assert similarity[i, j] == pytest.approx(expected)
    assert (similarity == similarity.T).all()


def test_a_class_without_images_is_confused_with_none():
    assert confused_similarity([[3, 1], [0, 0]]) is None
