"""Waiting for other processes in tests."""

import os
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 120.0
"""Seconds, on a machine that is busy with other work."""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Look until the condition holds.

    Raises:
        TimeoutError: it never did.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)


def id_in(path: Path) -> int:
    """The process id that a file will hold."""
    wait_until(lambda: path.is_file() and path.read_text(encoding="ascii").strip() != "", f"{path} is not written")
    return int(path.read_text(encoding="ascii"))


def is_running(process: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.parent.is_dir() and status.read_text(encoding="utf-8").rpartition(") ")[2].startswith("Z"))
