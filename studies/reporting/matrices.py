"""Matrices of classes, learned or counted, and the agreement of two matrices."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cclnet.metrics.likeness import (
    confused_similarity,
    leave_one_class_out,
    mean_mantel_test,
    rank_correlation,
    share_explained_by_counts,
    without_class,
)
from studies.reporting.cells import Cell, Groups
from studies.reporting.p_values import PValue, adjusted
from studies.reporting.tables import spread

Matrix = NDArray[np.float64]

EXPLANATION = (
    "Spearman's correlation of the entries off the diagonal, the mean over all pairs of runs and in brackets the "
    "lowest and the highest (the pairs share runs, so they are not independent). p: exact two-sided Mantel test of the "
    "mean (all 5,040 orders of the classes, the same for all pairs), after Holm over all tests of the table. "
    "*Without*: the mean over the pairs when a class is left out of both matrices."
)


@dataclass(frozen=True)
class Agreement:
    """The agreement of two kinds of matrices, over pairs of runs.

    Attributes:
        correlations: the correlation of each pair, if it is defined.
        without: for each pair, the correlations without each of the K classes in turn.
        p: two-sided p of the mean correlation, see ``mean_mantel_test``.
    """

    correlations: list[float]
    without: list[list[float | None]]
    p: float

    @property
    def mean(self) -> float | None:
        """The mean over the pairs."""
        return _mean(self.correlations)

    @property
    def left_out(self) -> list[float | None]:
        """The mean over the pairs without each of the classes."""
        return [_mean(values) for values in zip(*self.without, strict=True)]

    def text(self, p: PValue) -> str:
        """The mean, the range if there are several pairs, and the given p."""
        if self.mean is None:
            return "–"
        low, high = min(self.correlations), max(self.correlations)
        spans = f" ({low:.2f} to {high:.2f})" if len(self.correlations) > 1 else ""
        return f"{self.mean:.2f}{spans}, p {p}"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def agreement(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> Agreement | None:
    """The agreement of all pairs; None if there are none."""
    if not pairs:
        return None
    correlations = [rank_correlation(a, b) for a, b in pairs]
    return Agreement(
        [correlation for correlation in correlations if correlation is not None],
        [leave_one_class_out(a, b) for a, b in pairs],
        mean_mantel_test(pairs).p_two_sided,
    )


def agreement_table(
    table: Mapping[tuple[str, ...], Agreement | None], titles: Sequence[str], classes: Sequence[str]
) -> list[dict[str, str]]:
    """One row per existing agreement: its labels, the correlation with its p, and the correlation without each class.

    Args:
        table: labels → agreement.
        titles: titles of the labels' columns.
        classes: the K names.
    """
    known = {labels: each for labels, each in table.items() if each}
    values = adjusted([PValue(each.p, at_most=False) for each in known.values()])
    return [
        dict(zip(titles, labels, strict=True))
        | {"correlation": each.text(p) if p else "–"}
        | without_columns(each.left_out, classes)
        for (labels, each), p in zip(known.items(), values, strict=True)
    ]


def without_columns(values: Sequence[float | None], classes: Sequence[str]) -> dict[str, str]:
    """A value without each of the classes in turn, one column per class."""
    return {
        f"without {name}": "–" if value is None else f"{value:.2f}" for name, value in zip(classes, values, strict=True)
    }


def matrices(groups: Groups, group: str) -> list[Matrix]:
    """The soft labels of all runs of a group."""
    return [cell.soft_labels for cell in groups.get(group, [])]


def confusions(groups: Groups, group: str) -> list[Matrix]:
    """The symmetrised confusions of all runs of a group in which every class occurs."""
    similarities = [confused_similarity(cell.confusion) for cell in groups.get(group, [])]
    return [similarity for similarity in similarities if similarity is not None]


def counts_table(
    groups: Mapping[tuple[str, ...], Sequence[Cell]], titles: Sequence[str], classes: Sequence[str]
) -> list[dict[str, str]]:
    """The share of the rank variance that class counts explain, also without each class; means over the runs."""
    rows = []
    for labels, cells in groups.items():
        shares = [_explained(cell.soft_labels, cell.class_counts) for cell in cells]
        without = [_explained_without_each(cell.soft_labels, cell.class_counts) for cell in cells]
        row = dict(zip(titles, labels, strict=True)) | {"n": str(len(cells)), "counts explain": spread(shares, 2)}
        rows.append(row | without_columns([_mean(values) for values in zip(*without, strict=True)], classes))
    return rows


def _explained_without_each(matrix: ArrayLike, counts: NDArray[np.int64]) -> list[float | None]:
    return [_explained(without_class(matrix, place), np.delete(counts, place)) for place in range(len(counts))]


def _explained(matrix: ArrayLike, counts: ArrayLike) -> float | None:
    share = share_explained_by_counts(matrix, counts)
    return share and share.explained
