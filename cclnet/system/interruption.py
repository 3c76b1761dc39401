"""Ending long work between two of its steps when the user (Ctrl-C) or the system asks for it, or DVC has gone."""

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
"""What came in each of the ``interruptible`` blocks that are under way."""


class InterruptionError(CCLNetError):
    """The process was asked to end; its exit status is 128 + the signal's number, as a shell has it: 130 or 143."""

    def __init__(self, number: int) -> None:
        self.exit_status = 128 + number
        name = signal.Signals(number).name
        super().__init__(f"ended by {name}; what is done is kept, run it again to go on from there")


@contextmanager
def interruptible(
    agree: Callable[[int], int] = lambda number: number, insist: bool = True
) -> Iterator[Callable[[], None]]:
    """Let SIGINT and SIGTERM wait for the end of a step.

    Args:
        agree: turns the number of the signal that came, 0 for none, into the one that all processes act upon.
        insist: a second signal acts at once. Not so in one of several processes, which gets the same signal from the
            system and from the process that has started it.

    Yields:
        What to call between two steps: it raises ``InterruptionError`` once a signal came.
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
    """Let Ctrl-C end the process without a traceback while it loads its libraries, before it can handle errors.

    ``errors_in_one_line`` handles it from where it is entered.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


# a stage ends with the DVC that runs it


def end_with_dvc() -> None:
    """Ask this process to end, as SIGTERM does, once the DVC that runs it as a stage is gone.

    DVC that is killed leaves its stage running, whose results would then be mixed with those of the next experiment.
    A process that DVC has not started goes on whatever happens to its parent: ``nohup``, ``setsid`` and terminals that
    are closed leave it alone.
    """
    if _STAGE in os.environ:
        threading.Thread(target=_end_after, args=(_dvc(),), name="end with DVC", daemon=True).start()


_STAGE = "DVC_STAGE"  # which DVC sets in the environment of a stage's command


def _dvc() -> int:
    """The process that has started this stage: the nearest one above it that is not itself part of the stage.

    Between the two there may be a shell, and whatever the command starts Python with. Where the system does not show
    the environment of processes, the parent.
    """
    own, process = _mark(os.getpid()), os.getppid()
    while own and _mark(process) == own:
        process = _parent(process)
    return process


def _mark(process: int) -> bytes:
    """The setting that DVC has started a process with, empty if there is none or it cannot be seen."""
    with suppress(OSError):
        settings = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        return next((setting for setting in settings if setting.startswith(f"{_STAGE}=".encode())), b"")
    return b""


def _parent(process: int) -> int:
    """The parent's number: the second field after the name, which is in brackets and may hold anything."""
    with suppress(OSError):
        return int(Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[1])
    return 0


def _end_after(dvc: int) -> None:
    _wait_for_the_end_of(dvc)
    logger.warning("DVC, process %d, has ended before this stage, which ends now, too", dvc)
    _ask_to_end()


def _wait_for_the_end_of(process: int) -> None:
    try:
        handle = os.pidfd_open(process)  # Linux; the number cannot come to stand for another process
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
    """What SIGTERM does, but never as a second signal: the system may have sent one to DVC and its stage alike."""
    if not _signals_of_blocks:
        os.kill(os.getpid(), signal.SIGTERM)
    elif not _signals_of_blocks[-1]:
        _signals_of_blocks[-1].append(signal.SIGTERM)
