"""Ending long work between two of its steps when the user (Ctrl-C) or the system asks for it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cclnet.system.errors import CCLNetError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptionError(CCLNetError):
    """The process was asked to end; its exit status is 128 + the signal's number, as a shell has it: 130 or 143."""

    def __init__(self, number: int) -> None:
        self.exit_status = 128 + number
        name = signal.Signals(number).name
        super().__init__(f"ended by {name}; what is done is kept, run it again to go on from there")


@contextmanager
def interruptible(agree: Callable[[int], int] = lambda number: number) -> Iterator[Callable[[], None]]:
    """Let SIGINT and SIGTERM wait for the end of a step.

    Args:
        agree: turns the number of the signal that came, 0 for none, into the one that all processes act upon.

    Yields:
        What to call between two steps: it raises ``InterruptionError`` once a signal came. A second one acts at once.
    """
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def take_note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end_if_asked_to() -> None:
        if number := agree(came[0] if came else 0):
            raise InterruptionError(number)

    for number in SIGNALS:
        signal.signal(number, take_note)
    try:
        yield end_if_asked_to
    finally:
        restore()
