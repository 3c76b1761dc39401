"""Reading and writing of bytes, JSON and CSV; files are written completely or not at all."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cclnet.system.writing import whole_file


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
