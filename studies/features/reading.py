"""What the report's parts read: the finished cells, and the matrices of the study of looks."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.features.running import finished
from studies.reporting.cells import Groups, load_cells
from studies.reporting.matrices import confusions
from studies.running.settings import ROOT

Matrix = NDArray[np.float64]
Cell = dict[str, Any]
"""The results of a cell."""


@cache
def looks() -> Groups:
    """The cells of the study of looks."""
    return load_cells(ROOT / "studies" / "looks" / "cells")


@cache
def fair_confusions() -> Matrix:
    """The confusions of the independent network."""
    return confusions(looks(), "balanced_baseline-original")[0]


def cells_by(experiment: str, *keys: str) -> dict[tuple[Any, ...], list[Cell]]:
    """The finished cells, grouped by some of their settings."""
    found: dict[tuple[Any, ...], list[Cell]] = {}
    for _, cell in finished(experiment):
        found.setdefault(tuple(cell["settings"][key] for key in keys), []).append(cell["results"])
    return found
