"""Files of the K × K matrices of an experiment, with one record per entry, as required by DVC plots.

Rows and columns are the classes in the order of the data; the entries are in row-major order.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cclnet.system.errors import DataError
from cclnet.system.files import read_json, read_text_table, write_json
from cclnet.system.names import listed


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


def read_soft_label_table(path: Path, classes: Sequence[str] | None = None) -> NDArray[np.float64]:
    """Read soft labels, or votes, from a CSV table: a row for each class, with its name in the column label.

    Args:
        path: the file; its other columns are the classes. Rows may be of any positive sum, such as votes of readers;
            they are divided by it.
        classes: the K classes, in the order that is wanted; None: any classes, in the order of the columns.

    Returns:
        K×K, row k the soft label of class k.

    Raises:
        DataError: with everything that is wrong with the table.
    """
    table = read_text_table(path)
    columns = [str(name) for name in table.columns]
    if columns[:1] != ["label"]:
        raise DataError(f"{path}: the first column must be label, and then one for each class")
    if len(columns) < 3:
        raise DataError(f"{path}: a column for each of two classes or more is needed")
    wanted, rows = list(columns[1:] if classes is None else classes), table["label"].tolist()
    known, with_column, with_row = set(wanted), set(columns[1:]), Counter(rows)
    faults = [
        f"{what} {listed(names)}"
        for what, names in {
            "no column of class": [name for name in wanted if name not in with_column],
            "no row of class": [name for name in wanted if name not in with_row],
            "a column of no class:": [name for name in columns[1:] if name not in known],
            "a row of no class:": [name for name in with_row if name not in known],
            "several rows of": [name for name, count in with_row.items() if count > 1],
        }.items()
        if names
    ]
    if faults:
        raise DataError(f"{path}: {'; '.join(faults)}")
    ordered = table.set_index("label").loc[wanted, wanted]
    values = ordered.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    with np.errstate(over="ignore"):
        sums = values.sum(axis=1)
    usable = np.isfinite(sums) & (values >= 0).all(axis=1) & (sums > 0)
    if not usable.all():
        named = listed([name for name, good in zip(wanted, usable, strict=True) if not good])
        raise DataError(f"{path}: the row of {named} must hold numbers from 0, not all of them 0")
    return values / sums[:, None]


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
