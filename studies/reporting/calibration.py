"""Calibration before and after temperature scaling, with two-fold cross-fitting over the lesions."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cclnet.metrics.calibration import apply_temperature, fit_temperature
from cclnet.metrics.scores import evaluate
from studies.reporting.cells import Cell
from studies.reporting.tables import spread

CALIBRATION = ("ece", "classwise_ece", "brier", "nll")
SMALLEST = 1e-12  # a probability of 0 has no logarithm


def calibration(cell: Cell) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """The calibration metrics of a run's predictions, before and after temperature scaling.

    The temperature of each half of the lesions is fitted on the other half, so no image is evaluated with a temperature
    that was fitted on it.
    """
    truth, probabilities = cell.truth, cell.probabilities
    logits = np.log(np.maximum(probabilities, SMALLEST))
    first = halves(cell.predictions["lesion"].to_numpy())
    scaled = np.empty_like(probabilities)
    for half in (first, ~first):
        scaled[half] = apply_temperature(logits[half], fit_temperature(logits[~half], truth[~half]))
    before, after = evaluate(truth, probabilities), evaluate(truth, scaled)
    return {name: before[name] for name in CALIBRATION}, {name: after[name] for name in CALIBRATION}


def halves(lesions: ArrayLike, seed: int = 0) -> NDArray[np.bool_]:
    """True for the images of a random half of the lesions."""
    numbers, names = pd.factorize(np.asarray(lesions))
    chosen = np.random.default_rng(seed).permutation(len(names)) < len(names) // 2
    return chosen[numbers]


def calibration_table(groups: Mapping[str, Sequence[Cell]]) -> list[dict[str, str]]:
    """One row per method: every metric before → after temperature scaling."""
    rows = []
    for name, cells in groups.items():
        pairs = [calibration(cell) for cell in cells]
        row = {"method": name, "n": str(len(cells))}
        for metric in CALIBRATION:
            before, after = (spread([side[metric] for side in sides]) for sides in zip(*pairs, strict=True))
            row[f"{metric}, before → after"] = f"{before} → {after}"
        rows.append(row)
    return rows
