"""Locks between processes, which end with the process that holds them however it ends.

A cluster's file system may have none (NFS without its lock service, Lustre mounted without them), and Windows has no
``fcntl``: there the work goes on after one warning.
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
"""What a file system answers that does not have what is asked for."""


class Locking(Enum):
    """What came of the attempt to lock a file."""

    LOCKED = "locked"
    BUSY = "another process holds it"
    NOT_OFFERED = "there are no locks here"


def lock(file: IO[Any]) -> Locking:
    """Lock an open file until it is closed; does not wait for another process."""
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
    """Do what the block does in one process at a time.

    Args:
        lock_file: names the process that holds the lock; it stays when the block ends.
        doing: what that process does, as the refusal says it: "is training in this folder".

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
    """What is said about the process that a lock file names; it may be on another machine with the same disk."""
    if not owner:
        return f"another process {doing} already; wait for it"
    process, _, machine = owner.partition(" ")
    if machine == socket.gethostname():
        return f"process {process} {doing} already; wait for it, or end it with: kill {process}"
    return f"process {process} on {machine} {doing} already; wait for it, or end it there with: kill {process}"
