"""Several things measured in turn, and what comes of it beside what it should be."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple


class Target(NamedTuple):
    """Where a ratio should lie, both ends included."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"≥ {self.low:g}"
        return f"≤ {self.high:g}" if math.isinf(self.low) else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Series:
    """What one thing gave in every repetition."""

    name: str
    values: list[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)


@dataclass(frozen=True)
class Comparison:
    """One thing beside another.

    Attributes:
        case: on what.
        unit: of both.
        measured, reference: as many repetitions of both, taken in turn.
        target: where their ratio should lie, None where it is only shown.
    """

    case: str
    unit: str
    measured: Series
    reference: Series
    target: Target | None = None

    @property
    def ratio(self) -> float:
        """The median of what was measured, divided by that of the reference."""
        return self.measured.median / self.reference.median

    @property
    def ratios(self) -> list[float]:
        """The same of each repetition alone."""
        return [one / other for one, other in zip(self.measured.values, self.reference.values, strict=True)]

    @property
    def met(self) -> bool | None:
        """Whether the ratio lies where it should."""
        return None if self.target is None else self.target.low <= self.ratio <= self.target.high


def in_turn(contenders: Mapping[str, Callable[[], float]], repetitions: int, warm_up: bool = True) -> dict[str, Series]:
    """Measure each once, then each again, and so on: what changes on the machine meanwhile meets all of them.

    Args:
        contenders: name → what measures it once.
        repetitions: of each.
        warm_up: whether one more round goes before, which is not counted.
    """
    rounds = [[measure() for measure in contenders.values()] for _ in range(repetitions + warm_up)]
    columns = zip(*rounds[warm_up:], strict=True)
    return {name: Series(name, list(values)) for name, values in zip(contenders, columns, strict=True)}


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, by the clock on the wall."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def pinned(cores: int) -> Iterator[None]:
    """Keep this process, with the threads that it starts, on the first so many of the cores that it may use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def figure(value: float) -> str:
    """A number with three significant digits, or all of a large one's."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
