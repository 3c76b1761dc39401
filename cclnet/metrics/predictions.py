"""Predictions of n images among K classes: checks, and the table of predictions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cclnet.system.errors import DataError


def prediction_table(images: Sequence[str], probabilities: ArrayLike, classes: Sequence[str]) -> pd.DataFrame:
    """The challenge's table of predictions: image and, in the order of the classes, their probabilities (n×K)."""
    table = pd.DataFrame(probabilities, columns=list(classes))
    table.insert(0, "image", images)
    return table


def checked_predictions(
    true_labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str] | None = None
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """Labels (n) and float64 probabilities (n×K), with rows scaled to sum to exactly 1.

    Raises:
        DataError: lists all problems in one line.
    """
    labels, rows = np.asarray(true_labels), np.asarray(probabilities, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] < 2:
        _refuse([f"probabilities have the shape {rows.shape}, not images × classes (at least 2)"])
    problems = _label_problems(labels, rows.shape[1])
    if labels.ndim == 1 and len(labels) != len(rows):
        problems.append(f"{len(labels)} labels for {len(rows)} rows of probabilities")
    if classes is not None and len(classes) != rows.shape[1]:
        problems.append(f"{len(classes)} class names for {rows.shape[1]} columns of probabilities")
    finite = np.isfinite(rows).all(axis=1)
    with np.errstate(over="ignore"):
        sums = rows[finite].sum(axis=1)
    if not finite.all():
        problems.append(f"{(~finite).sum()} rows of probabilities are not finite (the first is row {finite.argmin()})")
    if (rows[finite] < 0).any():
        problems.append("there are negative probabilities")
    if (np.abs(sums - 1) > 1e-4).any():
        problems.append(f"rows of probabilities sum to {sums.min():.6g} … {sums.max():.6g}, not to 1")
    _refuse(problems)
    return labels.astype(np.intp), rows / rows.sum(axis=1, keepdims=True)


def _label_problems(labels: np.ndarray, num_classes: int) -> list[str]:
    if labels.ndim != 1 or labels.size == 0:
        return [f"labels have the shape {labels.shape}, not one per image (at least 1)"]
    if not np.issubdtype(labels.dtype, np.integer):
        return [f"labels are {labels.dtype}, not integers"]
    if labels.min() < 0 or labels.max() >= num_classes:
        return [f"labels run from {labels.min()} to {labels.max()}, not within 0 … {num_classes - 1}"]
    return []


def _refuse(problems: list[str]) -> None:
    if problems:
        raise DataError(f"cannot score these predictions: {'; '.join(problems)}")
