"""Progress of long work: a bar in a terminal, otherwise a plain line from time to time."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cclnet.system.streams import printable

SECONDS_BETWEEN_LINES = 10.0


class Report(Protocol):
    """Called with the amount of work done, the total (0: unknown) and, optionally, details."""

    def __call__(self, name: str, done: int, total: int, detail: str = "") -> None: ...


def silent(name: str, done: int, total: int, detail: str = "") -> None:
    """A report that does nothing."""


@contextmanager
def progress() -> Iterator[Report]:
    """Show the progress of each reported name on its own line until the block ends."""
    if not sys.stderr.isatty():
        yield plain_lines()
        return
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[detail]}"), console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(name: str, done: int, total: int, detail: str = "") -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, detail=detail)
            bars.update(tasks[name], completed=done, total=total or None, detail=detail)

        yield report


def plain_lines(seconds: float = SECONDS_BETWEEN_LINES) -> Report:
    """A report that prints at most one line per ``seconds`` for each name, and always the last one."""
    printed: dict[str, float] = {}

    def report(name: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if done != total and now - printed.setdefault(name, now) < seconds:
            return
        printed[name] = now
        share = f" of {total:,} ({done / total:.0%})" if total else ""
        with suppress(OSError):  # a closed reader is no reason to end the work
            print(printable(f"{name}: {done:,}{share}{', ' if detail else ''}{detail}"), flush=True)

    return report
