"""Files that are either whole or not there: written beside their place, flushed to the disk, then renamed."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from cclnet.system.errors import CCLNetError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name as the block ends, so that a reader sees the whole of it or the one before it.

    Raises:
        CCLNetError: the disk is full, or refuses the file for another reason.
    """
    partial = path.with_name(f"{path.name}.partial")  # one name, so that the next run replaces what a killed one left
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise CCLNetError(f"{path} cannot be written: {error.strerror}; put that right and run it again") from None
    finally:
        with suppress(OSError):
            partial.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself
    finally:
        os.close(folder)


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts one after the other, as ``whole_file`` does."""
    with whole_file(path) as file:
        for part in parts:
            file.write(part)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys; NaN and infinity are refused, as JSON has neither."""
    write_bytes(path, f"{json.dumps(value, indent=2, sort_keys=True, allow_nan=False)}\n".encode())


def read_json(path: Path) -> Any:
    """Read what ``write_json`` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> None:
    """Write a table with a header; what is missing stays empty."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def read_csv(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """Read a table of ``write_csv`` without a gap; the columns of text come as they stand, ``007`` and ``NA`` too."""
    return pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False)
