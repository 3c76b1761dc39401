"""Calibration across halves of the lesions."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from studies.reporting.calibration import calibration, halves
from tests.studies.reporting.made_up import IMAGES, TRUTH, K, cell_of, random_cell


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

        best: Any = minimize_scalar(nll, bounds=(0.05, 50), method="bounded", options={"xatol": 1e-9})
        expected[half] = softmax(logits[half] / best.x, axis=1)
    assert before["nll"] == pytest.approx(log_loss(TRUTH, cell.probabilities))
    assert after["nll"] == pytest.approx(log_loss(TRUTH, expected), rel=1e-6)
    for name in ("nll", "ece"):
        assert (after[name] or 1) < (before[name] or 0)


def test_certain_predictions_can_be_scaled():
    before, after = calibration(cell_of(np.eye(K)[(TRUTH + (np.arange(IMAGES) % 5 == 0)) % K], "certain-0"))
    assert before["ece"] == pytest.approx(0.2)
    assert after["ece"] is not None and after["ece"] < 0.1
