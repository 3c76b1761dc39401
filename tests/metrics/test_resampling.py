import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

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

BOOTSTRAPPED = ("accuracy", "f1", "kappa", "jaccard", "balanced_accuracy", "nll", "brier", "ece")


def predictions(seed: int, images: int = 120, skill: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Four classes of frequencies .4, .3, .2, .1."""
    generator = np.random.default_rng(seed)
    labels = np.random.default_rng(0).choice(4, images, p=[0.4, 0.3, 0.2, 0.1])
    probabilities = generator.dirichlet(np.full(4, 0.8), images) + skill * np.eye(4)[labels]
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def lesions(images: int = 120) -> np.ndarray:
    return np.array([f"HAM_{index:07}" for index in np.random.default_rng(1).integers(70, size=images)])


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


def scores_of_confusions(
    labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
    """Kappa and macro Jaccard from the whole K × K matrix of each resample."""
    kappas, jaccards = [], []
    for row in weights:
        confusion = np.zeros((num_classes, num_classes))
        np.add.at(confusion, (labels, predicted), row)
        images, said, hits = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
        expected = (images @ said) / confusion.sum() ** 2
        kappas.append((hits.sum() / confusion.sum() - expected) / (1 - expected))
        present = images > 0
        jaccards.append((hits[present] / (images + said - hits)[present]).mean())
    return {"kappa": np.array(kappas), "jaccard": np.array(jaccards)}


def test_many_classes_need_memory_for_the_classes_and_not_for_their_pairs() -> None:
    generator = np.random.default_rng(8)
    num_classes, images = 300, 900  # an identity of 300² would take 65 GB
    labels = generator.permutation(np.arange(images) % num_classes)
    probabilities = generator.dirichlet(np.full(num_classes, 0.1), images) + 0.3 * np.eye(num_classes)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    weights = generator.integers(3, size=(12, images)).astype(float)
    tracemalloc.start()
    scores = weighted_scores(labels, probabilities)(weights)
    intervals = clustered_bootstrap(weighted_scores(labels, probabilities), np.arange(images), n_resamples=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6
    for name, expected in scores_of_confusions(labels, probabilities.argmax(axis=1), weights, num_classes).items():
        assert scores[name] == pytest.approx(expected, abs=1e-12)
    assert intervals["kappa"]


def test_the_size_of_the_blocks_changes_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = predictions(9)
    scores = weighted_scores(labels, probabilities)
    whole = clustered_bootstrap(scores, lesions(), 300)
    monkeypatch.setattr("cclnet.metrics.resampling.MOST_WEIGHTS_AT_ONCE", 7 * len(labels))
    in_blocks = clustered_bootstrap(scores, lesions(), 300)
    for name in BOOTSTRAPPED:
        assert in_blocks[name] == pytest.approx(whole[name], abs=1e-14)


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


SCORES = weighted_scores([0, 1], np.full((2, 2), 0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clustered_bootstrap(SCORES, np.array(["a", None])), "cluster"),
        (lambda: clustered_bootstrap(SCORES, []), "cluster"),
        (lambda: clustered_bootstrap(SCORES, ["a", "b", "c"]), "3 images are resampled, 2 were predicted"),
        (lambda: mcnemar([True], [True, False]), "1 and 2 images"),
        (lambda: holm([0.1, np.nan]), "p values"),
        (lambda: holm([1.1]), "p values"),
        (lambda: mean_and_deviation([]), "at least one"),
        (lambda: mean_and_deviation([1, np.nan]), "finite"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
