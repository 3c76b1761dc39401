"""Ending long work between two steps when the user (Ctrl-C) or the system requests it, or when DVC has ended."""

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cclnet.system.errors import CCLNetError

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_BETWEEN_LOOKS = 1.0

_signals_of_blocks: list[list[int]] = []
"""The signals received in each active ``interruptible`` block."""


class InterruptionError(CCLNetError):
    """The process was asked to end; its exit status is 128 + the signal's number, as in a shell: 130 or 143."""

    def __init__(self, number: int) -> None:
        self.exit_status = 128 + number
        name = signal.Signals(number).name
        super().__init__(f"ended by {name}; what is done is kept, run it again to go on from there")


@contextmanager
def interruptible(
    agree: Callable[[int], int] = lambda number: number, insist: bool = True
) -> Iterator[Callable[[], None]]:
    """Defer SIGINT and SIGTERM to the end of a step.

    Args:
        agree: maps the number of the received signal (0 for none) to the one that all processes act on.
        insist: a second signal acts at once. Set to False in one of several processes, which gets the same signal both
            from the system and from the process that has started it.

    Yields:
        A function to call between two steps; it raises ``InterruptionError`` after a signal.
    """
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def take_note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if insist:
            restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end_if_asked_to() -> None:
        if number := agree(came[0] if came else 0):
            raise InterruptionError(number)

    for number in SIGNALS:
        signal.signal(number, take_note)
    _signals_of_blocks.append(came)
    try:
        yield end_if_asked_to
    finally:
        _signals_of_blocks.remove(came)
        restore()


def end_at_once_while_loading() -> None:
    """Let Ctrl-C end the process without a traceback while it loads its libraries.

    Later, ``errors_in_one_line`` handles it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


# a stage ends with its DVC process


def end_with_dvc() -> None:
    """Ask this process to end, as SIGTERM does, once the DVC process that runs it as a stage has ended.

    When DVC is killed, its stage keeps running, and its results would be mixed with those of the next experiment. A
    process that was not started by DVC continues when its parent ends, for example with ``nohup`` or ``setsid`` or
    after its terminal is closed.
    """
    if _STAGE in os.environ:
        threading.Thread(target=_end_after, args=(_dvc(),), name="end with DVC", daemon=True).start()


_STAGE = "DVC_STAGE"  # set by DVC in the environment of a stage's command


def _dvc() -> int:
    """The process that has started this stage: the nearest ancestor that is not part of the stage.

    There may be a shell or a wrapper of Python between the two. If the system does not show the environment of
    processes, the parent is used.
    """
    own, process = _mark(os.getpid()), os.getppid()
    while own and _mark(process) == own:
        process = _parent(process)
    return process


def _mark(process: int) -> bytes:
    """The environment entry that DVC sets for a stage's process; empty if there is none or it cannot be read."""
    with suppress(OSError):
        settings = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        return next((setting for setting in settings if setting.startswith(f"{_STAGE}=".encode())), b"")
    return b""


def _parent(process: int) -> int:
    """The parent's process id: the second field after the name, which is in brackets and may contain anything."""
    with suppress(OSError):
        return int(Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[1])
    return 0


def _end_after(dvc: int) -> None:
    _wait_for_the_end_of(dvc)
    logger.warning("DVC, process %d, has ended before this stage, which ends now, too", dvc)
    _ask_to_end()


def _wait_for_the_end_of(process: int) -> None:
    try:
        handle = os.pidfd_open(process)  # Linux; the handle cannot refer to another process later
    except (AttributeError, OSError):
        while _dvc() == process:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return
    if _dvc() == process:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        ended.poll()
    os.close(handle)


def _ask_to_end() -> None:
    """Like SIGTERM, but never as a second signal: the system may have sent one to both DVC and its stage."""
    if not _signals_of_blocks:
        os.kill(os.getpid(), signal.SIGTERM)
    elif not _signals_of_blocks[-1]:
        _signals_of_blocks[-1].append(signal.SIGTERM)
