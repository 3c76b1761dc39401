"""Differences over repetitions, and correlations without a class, against slow loops."""

from itertools import permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cclnet.metrics.likeness import leave_one_class_out, mantel_test, mean_mantel_test, without_class
from cclnet.metrics.resampling import (
    MOST_RESAMPLES_AT_ONCE,
    clustered_bootstrap,
    paired_bootstrap,
    repeated_difference,
    resampled_figures,
    weighted_scores,
)
from cclnet.metrics.scores import evaluate
from cclnet.system.errors import DataError

RESAMPLES = MOST_RESAMPLES_AT_ONCE + 50  # more than one block
NAMES = ("accuracy", "f1", "kappa", "balanced_accuracy", "nll", "ece")


def predictions(seed: int, images: int = 60) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Three classes, better than chance."""
    labels = np.random.default_rng(0).integers(3, size=images)
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(3), images) + 0.5 * np.eye(3)[labels]
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


LESIONS = [f"lesion {number}" for number in np.random.default_rng(1).integers(25, size=60)]


def test_resampled_figures_are_those_of_the_images_repeated():
    labels, probabilities = predictions(2)
    figures = resampled_figures(weighted_scores(labels, probabilities), LESIONS, RESAMPLES, seed=5)
    lesions = list(dict.fromkeys(LESIONS))
    generator = np.random.default_rng(5)
    draws = [generator.integers(len(lesions), size=len(lesions)) for _ in range(RESAMPLES)]
    assert all(len(values) == 1 + RESAMPLES for values in figures.values())
    for resample, draw in [(0, range(len(lesions))), *enumerate(draws, start=1)]:
        rows = [row for number in draw for row, lesion in enumerate(LESIONS) if lesion == lesions[number]]
        again = evaluate(labels[rows], probabilities[rows])
        for name in NAMES:
            assert figures[name][resample] == pytest.approx(again[name])


def test_the_interval_for_the_same_repetitions_is_that_of_the_bootstraps_above():
    labels, a = predictions(2)
    _, b = predictions(3)
    statistics = [weighted_scores(labels, probabilities) for probabilities in (a, b)]
    figures = [resampled_figures(statistic, LESIONS, RESAMPLES) for statistic in statistics]
    expected = paired_bootstrap(statistics[0], statistics[1], LESIONS, RESAMPLES)
    level = clustered_bootstrap(statistics[0], LESIONS, RESAMPLES)
    for name in NAMES:
        found = repeated_difference([figures[0][name] - figures[1][name]])
        assert found and found.fixed == expected[name] and found.hierarchical is None
        alone = repeated_difference([figures[0][name]])
        assert alone and alone.fixed[:3] == level[name]


def test_repetitions_are_drawn_with_each_resample():
    table = np.random.default_rng(4).normal(0.3, 1, size=(4, 1 + 500))
    found = repeated_difference(table, seed=7)
    assert found and found.hierarchical
    means = [float(np.mean(column)) for column in table.T]
    drawn = np.random.default_rng(7).integers(4, size=(3, 500))
    values = [sum(table[repetition, place + 1] for repetition in drawn[:, place]) / 3 for place in range(500)]
    for difference, expected in ((found.fixed, means[1:]), (found.hierarchical, values)):
        assert difference.estimate == pytest.approx(means[0])
        assert difference[1:3] == pytest.approx(np.percentile(expected, [2.5, 97.5]).tolist())
        rarer = min(sum(value <= 0 for value in expected), sum(value >= 0 for value in expected))
        assert difference.p == pytest.approx(min(1, 2 * (1 + rarer) / 501))
    assert found.smallest_p == 2 / 501


def test_drawn_repetitions_have_the_variance_of_their_mean():
    """s² / S: without images to draw, it is all that there is."""
    values = np.array([0.1, 0.5, 0.2])
    found = repeated_difference(np.repeat(values[:, None], 200_001, axis=1))
    assert found and found.hierarchical and found.fixed[:3] == pytest.approx((values.mean(),) * 3)
    drawn = np.random.default_rng(0).integers(3, size=(2, 200_000))
    variance = values[drawn].mean(axis=0).var()
    assert variance == pytest.approx(values.var(ddof=1) / 3, rel=0.01)
    assert (found.hierarchical.low, found.hierarchical.high) == pytest.approx((0.1, 0.5))


def test_a_difference_on_one_side_of_0_has_the_smallest_p():
    found = repeated_difference(np.full((2, 1001), 0.25))
    assert found and found.hierarchical
    assert found.fixed.p == found.hierarchical.p == found.smallest_p == 2 / 1001


def test_undefined_resamples_do_not_count_and_an_undefined_estimate_is_none():
    table = np.random.default_rng(0).normal(size=(2, 101))
    whole = repeated_difference(table)
    gaps = np.concatenate([table, np.full((2, 7), np.nan)], axis=1)
    found = repeated_difference(gaps)
    assert whole and found and found.fixed[:3] == whole.fixed[:3] and found.fixed.p == whole.fixed.p
    gaps[1, 0] = np.nan
    assert repeated_difference(gaps) is None


def test_every_image_needs_a_cluster():
    with pytest.raises(DataError, match="needs the cluster"):
        resampled_figures(weighted_scores(*predictions(2)), np.array([None] * 60))


def test_a_class_is_left_out_of_both_matrices():
    a, b = np.random.default_rng(0).random((2, 5, 5))
    expected = []
    for left_out in range(5):
        cells = [(i, j) for i, j in product(range(5), range(5)) if i != j and left_out not in (i, j)]
        expected.append(np.asarray(spearmanr([a[cell] for cell in cells], [b[cell] for cell in cells]))[0])
    assert leave_one_class_out(a, b) == pytest.approx(expected)
    assert without_class(a, 0).tolist() == a[1:, 1:].tolist()
    assert without_class([[1, 2], [3, 4]], 1).tolist() == [[1]]


def test_matrices_that_are_flat_without_a_class_have_no_correlation_there():
    flat = np.ones((4, 4))
    flat[3, :3] = [1, 2, 3]
    assert leave_one_class_out(flat, np.random.default_rng(0).random((4, 4)))[3] is None


def test_a_mean_is_tested_under_the_same_orders_for_all_pairs():
    matrices = np.random.default_rng(0).random((5, 4, 4))
    pairs = list(product(matrices[:2], matrices[2:]))
    cells = [(i, j) for i, j in product(range(4), range(4)) if i != j]
    means = []
    for order in permutations(range(4)):
        correlations = [
            np.asarray(spearmanr([a[cell] for cell in cells], [b[order[i], order[j]] for i, j in cells]))[0]
            for a, b in pairs
        ]
        means.append(sum(correlations) / len(pairs))
    found = mean_mantel_test(pairs)
    assert found.correlation == pytest.approx(means[0])
    assert found.p_greater == sum(mean >= means[0] - 1e-9 for mean in means) / 24
    assert found.p_two_sided == sum(abs(mean) >= abs(means[0]) - 1e-9 for mean in means) / 24


def test_the_mean_of_one_pair_is_the_pair():
    a, b = np.random.default_rng(1).random((2, 7, 7))
    expected = mantel_test(a, b)
    assert mean_mantel_test([(a, b), (np.ones((7, 7)), b)]) == (pytest.approx(expected.correlation), *expected[1:])
    assert mean_mantel_test([(np.ones((3, 3)), np.eye(3))]) == (None, 1, 1)
