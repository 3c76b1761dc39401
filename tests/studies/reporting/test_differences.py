"""What the studies' reports compute: differences over seeds, and calibration across halves of the lesions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from studies.reporting.calibration import calibration, halves
from studies.reporting.cells import Cell
from studies.reporting.differences import adjust, compare, differences_figure

K = 3
IMAGES = 120
LESIONS = np.arange(IMAGES) // 2
TRUTH = np.random.default_rng(0).integers(0, K, IMAGES)


def cell_of(probabilities: NDArray[np.float64], name: str) -> Cell:
    table = pd.DataFrame(probabilities, columns=list("ABC"))
    table.insert(0, "image", [f"image{row}" for row in range(IMAGES)])
    table.insert(1, "label", ["ABC"[label] for label in TRUTH])
    table.insert(2, "lesion", [f"lesion{number}" for number in LESIONS])
    return Cell(name, {}, table)


def random_cell(seed: int, sharpness: float = 1.0, skill: float = 1.0) -> Cell:
    """Predictions that lean to the truth by ``skill``, more or less confident than they ought to be."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(IMAGES, K)) + skill * np.eye(K)[TRUTH]
    return cell_of(softmax(sharpness * logits, axis=1), f"method-{seed}")


def accuracy(cells: Sequence[Cell]) -> float:
    """Over several runs, by hand."""
    return float(np.mean([(cell.probabilities.argmax(axis=1) == TRUTH).mean() for cell in cells]))


def test_differences_are_those_of_the_seeds_that_both_have():
    reference = [random_cell(seed) for seed in (1, 2, 3)]
    better = [random_cell(seed, skill=4.0) for seed in (2, 3, 4)]
    same = reference[:1]
    found = compare(reference, {"better": better, "same": same, "elsewhere": [random_cell(9)]}, ["accuracy", "nll"])
    assert [(comparison.name, comparison.seeds) for comparison in found] == [("better", 2), ("same", 1)]
    first, second = found
    difference = first.differences["accuracy"]
    assert difference is not None
    assert difference.estimate == pytest.approx(accuracy(better[:2]) - accuracy(reference[1:]))
    assert difference.low > 0 and len(first.mcnemar) == 2 and max(first.mcnemar) < 0.01
    assert second.differences["accuracy"] == (0, 0, 0, 1) and second.mcnemar == [1.0]
    assert second.told("accuracy") == "+0.000 (+0.000, +0.000), p = 1.000"


def test_p_values_are_adjusted_over_the_methods_and_not_over_the_metrics():
    reference = [random_cell(0)]
    methods = {f"method {number}": [random_cell(0, skill=skill)] for number, skill in enumerate((1.3, 1.6, 4.0))}
    found = compare(reference, methods, ["accuracy", "nll"])
    for metric in ("accuracy", "nll"):
        differences = [comparison.differences[metric] for comparison in found]
        raw = sorted(difference.p for difference in differences if difference)
        adjusted = sorted(comparison.adjusted[metric] or 0 for comparison in found)
        stepped = np.maximum.accumulate([min(1, p * (3 - place)) for place, p in enumerate(raw)])
        assert adjusted == pytest.approx(stepped.tolist())


def test_an_undefined_difference_takes_no_part():
    reference = [random_cell(0)]
    (comparison,) = compare(reference, {"a": [random_cell(0, skill=2)]}, ["accuracy"])
    known = comparison.differences["accuracy"]
    assert known is not None
    assert adjust([None, known, None]) == [None, known.p, None]


def test_halves_keep_lesions_whole_and_are_halves():
    lesions = ["b", "a", "b", "c", "d", "c"] * 10
    sides = {lesion: set() for lesion in lesions}
    for lesion, first in zip(lesions, halves(lesions).tolist(), strict=True):
        sides[lesion].add(first)
    assert sorted(map(sorted, sides.values())) == [[False], [False], [True], [True]]
    assert halves(lesions).tolist() == halves(lesions).tolist()


def test_each_half_is_scaled_by_the_temperature_of_the_other():
    cell = random_cell(5, sharpness=4.0)
    before, after = calibration(cell)
    first = halves(cell.predictions["lesion"].to_numpy())
    logits = np.log(cell.probabilities)
    expected = np.empty_like(logits)
    for half in (first, ~first):

        def nll(temperature: float, other: NDArray[np.bool_] = ~half) -> float:
            return -log_softmax(logits[other] / temperature, axis=1)[np.arange(other.sum()), TRUTH[other]].mean()

        best = minimize_scalar(nll, bounds=(0.05, 50), method="bounded", options={"xatol": 1e-9})["x"]
        expected[half] = softmax(logits[half] / best, axis=1)
    assert before["nll"] == pytest.approx(log_loss(TRUTH, cell.probabilities))
    assert after["nll"] == pytest.approx(log_loss(TRUTH, expected), rel=1e-6)
    for name in ("nll", "ece"):
        assert (after[name] or 1) < (before[name] or 0)


def test_certain_predictions_can_be_scaled():
    before, after = calibration(cell_of(np.eye(K)[(TRUTH + (np.arange(IMAGES) % 5 == 0)) % K], "certain-0"))
    assert before["ece"] == pytest.approx(0.2)
    assert after["ece"] is not None and after["ece"] < 0.1


def test_the_figure_has_every_interval():
    reference = [random_cell(0)]
    found = compare(reference, {"a": [random_cell(0, skill=2)], "b": [random_cell(0, skill=0)]}, ["accuracy", "nll"])
    figure = differences_figure({"group": found}, {"accuracy": "accuracy", "nll": "NLL"})
    assert [axes.get_title() for axes in figure.axes] == ["accuracy", "NLL"]
    drawn = [np.asarray(line.get_xdata()).tolist() for line in figure.axes[1].lines]
    for comparison in found:
        difference = comparison.differences["nll"]
        assert difference is not None
        assert [difference.low, difference.high] in drawn and [difference.estimate] in drawn
