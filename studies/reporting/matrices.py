"""Matrices of classes, learned or counted, and how alike two of them are."""

import numpy as np
from numpy.typing import NDArray

from cclnet.metrics.likeness import confused_similarity, mantel_test
from studies.reporting.cells import Groups
from studies.reporting.tables import spread

Matrix = NDArray[np.float64]


def matrices(groups: Groups, group: str) -> list[Matrix]:
    """The soft labels of all runs of a group."""
    return [cell.soft_labels for cell in groups.get(group, [])]


def confusions(groups: Groups, group: str) -> list[Matrix]:
    """The symmetric confusions of all runs of a group that have every class."""
    similarities = [confused_similarity(cell.confusion) for cell in groups.get(group, [])]
    return [similarity for similarity in similarities if similarity is not None]


def agreement(pairs: list[tuple[Matrix, Matrix]]) -> str:
    """The rank correlations of all pairs as mean ± standard deviation, and the largest p."""
    if not pairs:
        return "–"
    tests = [mantel_test(a, b) for a, b in pairs]
    return f"{spread([test.correlation for test in tests], 2)} ({max(test.p_two_sided for test in tests):.4f})"
