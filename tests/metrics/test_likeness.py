import math
from collections.abc import Callable
from itertools import permutations, product

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LinearRegression

from cclnet.metrics.likeness import (
    confused_similarity,
    count_pattern,
    mantel_test,
    notes,
    number_of_orders,
    off_diagonal,
    rank_correlation,
    share_explained_by_counts,
)
from cclnet.system.errors import DataError

COUNTS = np.array([1113, 6705, 514, 327, 1099, 115, 142])


def matrix(seed: int, num_classes: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).random((num_classes, num_classes))


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
    names = ("not_explained_by_counts", "follows_confusion", "follows_features", "planted_similarity")
    similarity = matrix(1, 3) + matrix(1, 3).T
    assert notes(matrix(0, 3), [1, 2, 3], similarity, "abc") == {}
    assert notes(matrix(0, 2), [1, 2], np.eye(2), "ab") == dict.fromkeys(names, "undefined: two classes are one pair")
    reason = "undefined: no two classes are more alike than others in the labels"
    assert notes(np.eye(3), [1, 2, 3], similarity, "abc") == dict.fromkeys(names, reason)
    assert notes(matrix(0, 3), [1, 0, 0], None, "abc") == {
        "not_explained_by_counts": "undefined: no training image of b, c",
        "follows_confusion": "undefined: a class has no validation image",
    }
    assert notes(matrix(0, 3), [1, 2, 3], np.eye(3), "abc") == {
        "follows_confusion": "undefined: no two classes are confused more often than others"
    }


@pytest.mark.parametrize(("num_classes", "orders"), [(2, 2), (7, 5040), (8, 40_320), (10, 10_000), (1000, 1001)])
def test_orders_are_all_or_as_many_as_can_be_afforded(num_classes: int, orders: int) -> None:
    assert number_of_orders(num_classes) == orders


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: off_diagonal(np.ones((2, 3))), r"shape \(2, 3\)"),
        (lambda: off_diagonal([[1]]), "at least 2"),
        (lambda: off_diagonal([[1, np.nan], [np.inf, 1]]), "2 off-diagonal entries"),
        (lambda: rank_correlation(matrix(0), matrix(0, 6)), "different classes"),
        (lambda: mantel_test(matrix(0), matrix(0, 6)), "different classes"),
        (lambda: count_pattern([3, 0, 1]), "one positive number per class"),
        (lambda: share_explained_by_counts(matrix(0), [1, 2, 3]), "3 class counts"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
