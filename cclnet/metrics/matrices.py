"""Files of the K × K matrices of an experiment, with one record per entry, as required by DVC plots.

Rows and columns are the classes in the order of the data; the entries are in row-major order.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cclnet.system.errors import DataError
from cclnet.system.files import read_json, write_json


def write_soft_labels(path: Path, soft_labels: ArrayLike, classes: Sequence[str]) -> None:
    """Write a soft-label matrix (K×K, row k the soft label of class k)."""
    values = np.asarray(soft_labels, dtype=np.float64).ravel().tolist()
    write_json(
        path,
        [
            {"true_class": true_class, "soft_class": soft_class, "value": value}
            for (true_class, soft_class), value in zip(product(classes, repeat=2), values, strict=True)
        ],
    )


def read_soft_labels(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Read the K classes and the soft-label matrix (K×K) that ``write_soft_labels`` wrote.

    Raises:
        DataError: the file does not contain such a matrix.
        FileNotFoundError: there is no such file.
    """
    return _read_matrix(path, "soft_class", "value")


def write_confusion(path: Path, confusion: pd.DataFrame) -> None:
    """Write the table of ``scores.confusion_table``."""
    write_json(path, records(confusion))


def read_confusion(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    """Read the K classes and the number of images of each true (row) and predicted class (K×K).

    Raises:
        DataError: the file does not contain such a matrix.
        FileNotFoundError: there is no such file.
    """
    classes, counts = _read_matrix(path, "predicted_class", "count")
    return classes, counts.astype(np.int64)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table in a form for JSON, with None for missing values."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _read_matrix(path: Path, column: str, value: str) -> tuple[list[str], NDArray[np.float64]]:
    try:
        cells = read_json(path)
        classes = list(dict.fromkeys(cell["true_class"] for cell in cells))
        pairs = [(cell["true_class"], cell[column]) for cell in cells]
        values = np.array([float(cell[value]) for cell in cells])
    except (ValueError, KeyError, TypeError) as error:
        raise _not_a_matrix(path, repr(error)) from None
    if pairs != list(product(classes, repeat=2)):
        raise _not_a_matrix(path, f"{len(cells)} cells are not one for each pair of {len(classes)} classes in order")
    if not np.isfinite(values).all():
        raise _not_a_matrix(path, "values are not finite")
    return classes, values.reshape(len(classes), len(classes))


def _not_a_matrix(path: Path, reason: str) -> DataError:
    return DataError(f"{path.name} is not what the evaluate stage writes ({reason}): make it again with dvc repro")
