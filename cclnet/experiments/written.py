"""The tables and records of one experiment that a stage wrote and a later one shows, checked where they are opened."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.system.errors import DataError, Problem
from cclnet.system.files import read_json

LARGEST = 1e15
"""No loss, count or epoch is larger; what counts must be exact as a float."""
HEAD_COLUMNS = ("ccl_loss", "class_correlation_loss", "lr_ccl", "gradient_norm_ccl")
"""Of the history; empty for a method without a head."""
VALIDATION_COLUMNS = tuple(
    f"validation_{name}" for name in ("accuracy", "f1", "kappa", "jaccard", "balanced_accuracy", "nll")
)
SHARES = ("sensitivity", "specificity", "precision", "f1", "auc")
"""Of the table of classes; empty where they are undefined."""
FILE_KEYS: Mapping[str, type] = {"name": str, "source": str, "bytes": int, "sha256": str}
"""Of each file in the record of provenance."""

Check = Callable[[pd.DataFrame], Iterator[str]]


def read_history(path: Path) -> pd.DataFrame:
    """Read the history of training, a row for each epoch.

    Raises:
        DataError: it is not there or is not what training writes; with every fault.
    """
    always = ("classification_loss", "softness", "learning_rate", "gradient_norm")
    numbers = (*always, *HEAD_COLUMNS, *VALIDATION_COLUMNS)
    return _table(path, "train", (), numbers, ("epoch", "frozen"), _history_faults)


def _history_faults(history: pd.DataFrame) -> Iterator[str]:
    if history["epoch"].tolist() != [*range(1, len(history) + 1)]:
        yield "has epochs that do not count from 1"
    if not set(history["frozen"]) <= {0, 1}:
        yield "has a column frozen that is not 0 or 1"
    for column in ("classification_loss", "softness", "learning_rate", "gradient_norm"):
        if np.isnan(history[column].to_numpy()).any():
            yield f"has gaps in the column {column}"


def read_class_table(path: Path, classes: Sequence[str] | None = None) -> pd.DataFrame:
    """Read ``metrics.scores.class_table``, a row for each class; errors as of ``read_history``.

    Args:
        path: the file.
        classes: those of the run, in the order of the rows; None if they are not known.
    """

    def faults(table: pd.DataFrame) -> Iterator[str]:
        yield from _class_faults(table)
        if classes is not None and table["class"].tolist() != list(classes):
            yield "does not have the classes of the run"

    return _table(path, "evaluate", ("class",), SHARES, ("images",), faults)


def _class_faults(table: pd.DataFrame) -> Iterator[str]:
    if len(set(table["class"])) < len(table):
        yield "has a class more than once"
    if min(table["images"]) < 0:
        yield "has a negative number of images"
    yield from _share_faults(table, SHARES)


def read_reliability(path: Path) -> pd.DataFrame:
    """Read ``metrics.calibration.reliability_table``, a row for each bin; errors as of ``read_history``."""
    return _table(path, "evaluate", (), ("confidence", "accuracy"), ("bin", "count"), _reliability_faults)


def _reliability_faults(table: pd.DataFrame) -> Iterator[str]:
    if (np.diff(table["bin"].to_numpy(), prepend=0) < 1).any():
        yield "has bins that do not rise from 1 on"
    if min(table["count"]) < 1:
        yield "has bins without an image"
    if np.isnan(table[["confidence", "accuracy"]].to_numpy()).any():
        yield "has gaps"
    yield from _share_faults(table, ("confidence", "accuracy"))


def _share_faults(table: pd.DataFrame, columns: tuple[str, ...]) -> Iterator[str]:
    for column in columns:
        values = table[column].to_numpy(np.float64)
        if ((values < 0) | (values > 1)).any():
            yield f"has values outside of 0 … 1 in the column {column}"


def _table(
    path: Path, stage: str, text: tuple[str, ...], numbers: tuple[str, ...], counts: tuple[str, ...], check: Check
) -> pd.DataFrame:
    """A table whose columns, in any order, are text without gaps, numbers or empty cells, and whole numbers."""
    try:
        content = path.read_bytes()
        table = pd.read_csv(io.BytesIO(content), dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:  # pandas' own are of these
        _refuse(path, stage, [f"cannot be read: {error.strerror}" if isinstance(error, OSError) else "is no CSV table"])
    if sorted(table.columns) != sorted((*text, *numbers, *counts)):
        _refuse(path, stage, [f"has the columns {','.join(map(str, table.columns))[:200]!r}"])
    if table.empty:
        _refuse(path, stage, ["has no rows"])
    if not content.endswith(b"\n"):
        _refuse(path, stage, ["is cut off within its last line"])
    gaps = [column for column in text if not all(isinstance(value, str) for value in table[column])]
    no_numbers = [column for column in numbers if not _holds_numbers(table[column].to_numpy())]
    no_counts = [column for column in counts if not _holds_counts(table[column].to_numpy())]
    found = {"gaps": gaps, "no numbers": no_numbers, "no whole numbers": no_counts}
    faults = [f"has {fault} in the column {column}" for fault, columns in found.items() for column in columns]
    if faults := faults or list(check(table)):
        _refuse(path, stage, faults)
    return table


def _holds_numbers(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iuf" and bool((np.isnan(values) | (np.abs(values) <= LARGEST)).all())


def _holds_counts(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iu" and _holds_numbers(values)


def read_provenance(path: Path) -> list[dict[str, Any]]:
    """Read what is known of each file of the dataset.

    Raises:
        DataError: it is not there or is not what the download stage writes.
    """
    files = _record(path, "download")
    if not isinstance(files, list) or not files or not all(map(_is_file, files)):
        _refuse(path, "download", [f"is no list of files with {', '.join(FILE_KEYS)}"])
    return files


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and {key: type(kept) for key, kept in value.items()} == FILE_KEYS


def read_conditions(path: Path) -> dict[str, Any]:
    """Read what the result depends on besides code, params and data; errors as of ``read_provenance``."""
    conditions = _record(path, "train")
    if not isinstance(conditions, dict) or not all(map(_is_setting, conditions.values())):
        _refuse(path, "train", ["is no table of settings"])
    return conditions


def _is_setting(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_setting, value.values()))
    return value is None or isinstance(value, str | int | float)


def _record(path: Path, stage: str) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        _refuse(path, stage, [f"cannot be read: {error.strerror}" if isinstance(error, OSError) else "is no JSON"])


def _refuse(path: Path, stage: str, faults: list[str]) -> NoReturn:
    raise DataError(
        f"{path} is not what the {stage} stage wrote: run that again", [Problem(str(path), fault) for fault in faults]
    )


def read_similarity(path: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Read the similarity of classes in the network's features, or a note why there is none.

    Args:
        path: the file.
        classes: those of the run, in the order of its matrices.

    Raises:
        DataError: the file is missing or is not what the evaluate stage writes for these classes.
    """
    found = _record(path, "evaluate")
    if not isinstance(found, dict) or not _is_similarity(found, list(classes)):
        _refuse(path, "evaluate", ["is no table of pairs of the run's classes"])
    return found


def _is_similarity(found: dict[str, Any], classes: list[str]) -> bool:
    pairs = found.get("pairs")
    if not isinstance(pairs, list):
        return False
    if not pairs:
        return isinstance(found.get("note"), str)
    known = set(classes)
    return (
        found.get("classes") == classes
        and _is_matrix(found.get("similarity"), len(classes))
        and all(_is_pair(pair, known) for pair in pairs)
        and "nearest" in pairs[0]
    )


def _is_pair(pair: Any, classes: Set[str]) -> bool:
    """Whether it is a pair of two classes, with images for both or without any."""
    if not isinstance(pair, dict):
        return False
    names = [pair.get("a"), pair.get("b")]
    if not _are_texts(names) or not set(names) <= classes or names[0] == names[1]:
        return False
    if "nearest" not in pair:
        return True
    nearest = pair["nearest"]
    return (
        isinstance(nearest, list)
        and all(_are_texts(images, 2) for images in nearest)
        and all(_are_texts(pair.get(name)) for name in ("typical_a", "typical_b"))
    )


def _is_matrix(values: Any, num_classes: int) -> bool:
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError):
        return False
    return matrix.shape == (num_classes, num_classes) and bool(np.isfinite(matrix).all())


def _are_texts(values: Any, number: int | None = None) -> bool:
    return (
        isinstance(values, list) and all(isinstance(value, str) for value in values) and number in (None, len(values))
    )
