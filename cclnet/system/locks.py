"""Locks between processes, which are released when the process that holds them ends, for whatever reason.

A cluster's file system may not support locks (NFS without its lock service, Lustre mounted without them), and Windows
has no ``fcntl``. In these cases the work continues after one warning.
"""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO, Any

from cclnet.system.errors import CCLNetError

try:
    import fcntl
except ImportError:
    fcntl = None

logger = logging.getLogger(__name__)

NOT_OFFERED = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""Errors of a file system that does not support an operation."""


class Locking(Enum):
    """The result of an attempt to lock a file."""

    LOCKED = "locked"
    BUSY = "another process holds it"
    NOT_OFFERED = "there are no locks here"


def lock(file: IO[Any]) -> Locking:
    """Lock an open file until it is closed, without waiting for another process."""
    if fcntl is None:
        return Locking.NOT_OFFERED
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Locking.BUSY
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise
        return Locking.NOT_OFFERED
    return Locking.LOCKED


@contextmanager
def only_process(lock_file: Path, doing: str) -> Iterator[None]:
    """Run the block in only one process at a time.

    Args:
        lock_file: contains the id of the process that holds the lock; it is kept when the block ends.
        doing: the activity of that process for the error message, such as "is training in this folder".

    Raises:
        CCLNetError: another process holds the lock.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a+", encoding="utf-8") as file:
        locking = lock(file)
        if locking == Locking.BUSY:
            file.seek(0)
            raise CCLNetError(_refusal(file.read(), doing))
        if locking == Locking.NOT_OFFERED:
            logger.warning("%s cannot be locked here: make sure that no second process %s", lock_file, doing)
        file.truncate(0)
        file.write(f"{os.getpid()} {socket.gethostname()}")
        file.flush()
        yield


def _refusal(owner: str, doing: str) -> str:
    """The error message about the owner of a lock, which may be on another machine with the same disk."""
    if not owner:
        return f"another process {doing} already; wait for it"
    process, _, machine = owner.partition(" ")
    if machine == socket.gethostname():
        return f"process {process} {doing} already; wait for it, or end it with: kill {process}"
    return f"process {process} on {machine} {doing} already; wait for it, or end it there with: kill {process}"
