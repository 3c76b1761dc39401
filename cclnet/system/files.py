"""The formats of the project's files: bytes, JSON and CSV, each written whole or not at all."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cclnet.system.writing import whole_file


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts one after the other, as ``whole_file`` does."""
    with whole_file(path) as file:
        for part in parts:
            file.write(part)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys; NaN and infinity are refused, as JSON has neither."""
    write_bytes(path, f"{json.dumps(value, indent=2, sort_keys=True, allow_nan=False)}\n".encode())


def read_json(path: Path) -> Any:
    """Read what ``write_json`` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON in UTF-8, or its groups lie too deep in each other.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("groups lie too deep in each other") from None


def write_csv(path: Path, rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> None:
    """Write a table with a header; what is missing stays empty."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def read_csv(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """Read a table of ``write_csv`` without a gap; the columns of text come as they are, ``007`` and ``NA`` too."""
    return pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False)
