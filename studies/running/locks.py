"""Locks that allow only one process at a time to compute a result."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cclnet.system.errors import CCLNetError


class BusyError(CCLNetError):
    """Another process is computing the same result."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: try again later


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a result while the block runs; the system releases it when the process ends, for any reason.

    If the file system does not support locks, a message is printed and the block runs without a lock.

    Args:
        path: the lock file, which is removed afterwards.
        wait: wait for another process to release the lock.

    Raises:
        BusyError: another process holds it; not raised with ``wait``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(path, wait):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _held(path: Path, wait: bool) -> IO[str]:
    """The open and locked file."""
    while True:
        file = path.open("a+")
        try:
            _lock(file, wait)
        except BaseException:
            file.close()
            raise
        if _is_named(file, path):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()  # its owner has removed it; another process may hold a new one


def _lock(file: IO[str], wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise BusyError(f"process {file.read().strip()} is at work on {Path(file.name).stem}; wait for it") from None
    except OSError as error:
        print(f"{file.name} cannot be locked ({error.strerror}): start no second run of it", file=sys.stderr)


def _is_named(file: IO[str], path: Path) -> bool:
    """Whether the path still refers to the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
