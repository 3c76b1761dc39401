"""Cells of random predictions for the tests of what the reports share."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from studies.reporting.cells import Cell

K = 3
IMAGES = 120
LESIONS = np.arange(IMAGES) // 2
TRUTH = np.random.default_rng(0).integers(0, K, IMAGES)


def cell_of(probabilities: NDArray[np.float64], name: str, **results: Any) -> Cell:
    """A cell with these predictions."""
    table = pd.DataFrame(probabilities, columns=list("ABC"))
    table.insert(0, "image", [f"image{row}" for row in range(IMAGES)])
    table.insert(1, "label", ["ABC"[label] for label in TRUTH])
    table.insert(2, "lesion", [f"lesion{number}" for number in LESIONS])
    return Cell(name, results, table)


def random_cell(seed: int, sharpness: float = 1.0, skill: float = 1.0, **results: Any) -> Cell:
    """Predictions that lean to the truth by ``skill``, more or less confident than they should be."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(IMAGES, K)) + skill * np.eye(K)[TRUTH]
    return cell_of(softmax(sharpness * logits, axis=1), f"method-{seed}", **results)
