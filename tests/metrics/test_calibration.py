from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from cclnet.metrics.calibration import (
    apply_temperature,
    brier_score,
    classwise_calibration_error,
    confidence_bins,
    expected_calibration_error,
    fit_temperature,
    image_brier,
    reliability_table,
)
from cclnet.metrics.scores import evaluate
from cclnet.system.errors import DataError


def predictions(seed: int = 0, images: int = 400, num_classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal frequency, and probabilities that know something of them."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(num_classes, images, p=generator.dirichlet(np.full(num_classes, 3.0)))
    probabilities = generator.dirichlet(np.full(num_classes, 0.7), images) + 0.6 * np.eye(num_classes)[labels]
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def column(table: pd.DataFrame, name: str) -> np.ndarray:
    """A column of numbers, its nulls as NaN."""
    return np.array([np.nan if value is pd.NA else value for value in table[name]], dtype=float)


def calibration_gap_by_loops(confidence: np.ndarray, hits: np.ndarray, bins: int) -> float:
    """Guo et al.'s definition, a bin at a time: sum over bins of |B| / n times |accuracy − confidence|."""
    gap = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        inside = [i for i, value in enumerate(confidence) if low < value <= high or (index == 0 and value == 0)]
        if inside:
            accuracy = sum(bool(hits[i]) for i in inside) / len(inside)
            gap += len(inside) / len(hits) * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
    return gap


def test_reliability_table_holds_the_calibration_error() -> None:
    labels, probabilities = predictions(seed=6)
    table = reliability_table(labels, probabilities, bins=10)
    assert table.columns.tolist() == ["bin", "confidence", "accuracy", "count"]
    bins, confidence, accuracy, count = (column(table, name) for name in table.columns)
    assert count.sum() == len(labels)
    assert (count > 0).all()
    assert (np.diff(bins) > 0).all()
    assert ((confidence > (bins - 1) / 10) & (confidence <= bins / 10)).all()
    assert (accuracy * count).sum() / len(labels) == pytest.approx(evaluate(labels, probabilities)["accuracy"])
    gap = (abs(accuracy - confidence) * count).sum() / len(labels)
    assert gap == pytest.approx(expected_calibration_error(labels, probabilities, bins=10))


@pytest.mark.parametrize("bins", [1, 4, 15, 100])
def test_calibration_errors_against_loops(bins: int) -> None:
    labels, probabilities = predictions(seed=bins, images=150, num_classes=3)
    top, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    assert expected_calibration_error(labels, probabilities, bins) == pytest.approx(
        calibration_gap_by_loops(top, hits, bins), abs=1e-12
    )
    by_class = [calibration_gap_by_loops(probabilities[:, k], labels == k, bins) for k in range(3)]
    assert classwise_calibration_error(labels, probabilities, bins) == pytest.approx(np.mean(by_class), abs=1e-12)


def test_calibrated_predictions_have_no_calibration_error() -> None:
    probabilities = np.tile([0.75, 0.25], (8, 1))
    labels = [0, 0, 0, 1] * 2
    assert expected_calibration_error(labels, probabilities) == pytest.approx(0, abs=1e-15)
    assert classwise_calibration_error(labels, probabilities) == pytest.approx(0, abs=1e-15)
    assert expected_calibration_error([0] * 8, probabilities) == pytest.approx(0.25)


def test_a_bin_holds_its_upper_edge() -> None:
    confidence = np.array([0.0, 0.1, 0.25, 0.2500001, 0.5, 0.75, 1.0])
    assert confidence_bins(confidence, 4).tolist() == [0, 0, 0, 1, 1, 2, 3]


def test_brier_score_is_minimal_at_the_truth() -> None:
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    frequencies = np.array([0.5, 0.3, 0.2])
    at_truth = brier_score(labels, np.tile(frequencies, (10, 1)))
    assert at_truth == pytest.approx(1 - (frequencies**2).sum())
    for shift in ([0.1, -0.1, 0], [0, 0.05, -0.05], [-0.1, 0, 0.1]):
        assert brier_score(labels, np.tile(frequencies + shift, (10, 1))) > at_truth


def test_brier_scores_of_images_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = predictions(seed=8)
    expected = [((row - np.eye(7)[label]) ** 2).sum() for row, label in zip(probabilities, labels, strict=True)]
    assert image_brier(labels, probabilities) == pytest.approx(expected, abs=1e-15)
    monkeypatch.setattr("cclnet.metrics.calibration._MOST_CELLS_AT_ONCE", 50)
    assert image_brier(labels, probabilities) == pytest.approx(expected, abs=1e-15)


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_temperature([[0, -np.inf]], [0]), "a probability of 0 has no logarithm"),
        (lambda: fit_temperature([[0, 1]], [2]), "labels run from 2 to 2"),
        (lambda: apply_temperature([[0, 1]], 0), "above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
