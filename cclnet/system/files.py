"""Reading and writing of bytes, JSON and CSV; files are written completely or not at all."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cclnet.system.errors import DataError
from cclnet.system.names import listed, normalised
from cclnet.system.writing import whole_file

LARGEST_FILE = 2**28
"""Largest size in bytes of a file that is read as a whole (an image or a table)."""


def file_fault(path: Path, largest: int = LARGEST_FILE) -> str:
    """Why a file cannot be read as a whole; empty if it can. Reading a pipe or a device might never end."""
    if not path.is_file():
        return "is not a regular file" if path.exists() else "is missing"
    size = path.stat().st_size
    return f"has {size:,} bytes, more than {largest:,}" if size > largest else ""


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts one after the other with ``whole_file``."""
    with whole_file(path) as file:
        for part in parts:
            file.write(part)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys; NaN and infinity are refused, because JSON has neither."""
    write_bytes(path, f"{json.dumps(value, indent=2, sort_keys=True, allow_nan=False)}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON in UTF-8, or it is nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("groups lie too deep in each other") from None


def write_csv(path: Path, rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> None:
    """Write a table with a header; missing values are empty."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def read_csv(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """Read a table without missing values; the ``text`` columns are not converted, not even ``007`` and ``NA``."""
    return pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False)


def read_text_table(path: Path) -> pd.DataFrame:
    """Read a user's CSV table as text: its cells as written, with ``names.normalised``.

    Raises:
        DataError: the file cannot be read, is not a CSV table in UTF-8, or has rows of other lengths than its header.
    """
    if fault := file_fault(path):
        raise DataError(f"{path} {fault}: a CSV table is needed")
    try:
        text = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
        rows = [[normalised(cell) for cell in row] for row in csv.reader(text, strict=True) if row]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV table in UTF-8: {error}") from None
    if not rows:
        raise DataError(f"{path} is not a CSV table: it is empty")
    header, *values = rows
    if uneven := [number for number, row in enumerate(values, start=1) if len(row) != len(header)]:
        raise DataError(
            f"{path}: {len(uneven):,} rows have not one value for each of the {len(header):,} columns, "
            f"the first is row {uneven[0]:,}"
        )
    if repeated := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(f"{path}: several columns are called {listed(repeated)}")
    return pd.DataFrame(values, columns=header, dtype=object)
