"""What the experiments share: plans, results, numbers as they are recorded, and matrices of the study of looks."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studies.reporting.cells import Groups, load_cells
from studies.reporting.matrices import confusions
from studies.running.settings import ROOT

Settings = Mapping[str, Any]
Plan = dict[str, Settings]
"""Name of a cell → its settings."""
Results = dict[str, Any]
Matrix = NDArray[np.float64]

FOLDER = Path("studies/features/cells")
DIGITS = 5


def rounded(matrix: ArrayLike) -> list[float]:
    """The entries above the diagonal of a symmetric K×K matrix, row by row."""
    square = np.asarray(matrix, dtype=np.float64)
    return square[np.triu_indices(len(square), 1)].round(DIGITS).tolist()


def square(cells: ArrayLike, diagonal: float = 0.0) -> Matrix:
    """The symmetric matrix of ``rounded`` cells."""
    values = np.asarray(cells, dtype=np.float64)
    classes = int((1 + np.sqrt(1 + 8 * len(values))) / 2)
    matrix = np.full((classes, classes), diagonal)
    above = np.triu_indices(classes, 1)
    matrix[above] = matrix[above[::-1]] = values
    return matrix


def soft_labels_of_distances(cells: ArrayLike) -> Matrix:
    """Eq. 2 of recorded distances, K×K."""
    powers = np.exp(-square(cells))
    return powers / powers.sum(axis=1, keepdims=True)


@cache
def looks() -> Groups:
    """The cells of the study of looks."""
    return load_cells(ROOT / "studies" / "looks" / "cells")


def committed_counts() -> list[int]:
    """The training images of each class in the study of looks."""
    return looks()["none-original"][0].class_counts.tolist()


def balanced_confusions() -> Matrix:
    """The confusions of an independent network: ResNet-18 with balanced sampling and no head."""
    return confusions(looks(), "balanced_baseline-original")[0]
