"""Alternating measurements, and their comparison with a reference and a target."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple


class Target(NamedTuple):
    """The target range of a ratio, including both ends."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"≥ {self.low:g}"
        return f"≤ {self.high:g}" if math.isinf(self.low) else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Series:
    """The values of one measurement in all repetitions."""

    name: str
    values: list[float]

    @property
    def median(self) -> float:
        """The median."""
        return median(self.values)


@dataclass(frozen=True)
class Comparison:
    """The comparison of a measurement with a reference.

    Attributes:
        case: description of the case.
        unit: unit of both series.
        measured, reference: the same number of repetitions, measured alternately.
        target: the target range of the ratio, None if there is no target.
    """

    case: str
    unit: str
    measured: Series
    reference: Series
    target: Target | None = None

    @property
    def ratio(self) -> float:
        """The ratio of the medians, measured / reference."""
        return self.measured.median / self.reference.median

    @property
    def ratios(self) -> list[float]:
        """The ratio of each repetition."""
        return [one / other for one, other in zip(self.measured.values, self.reference.values, strict=True)]

    @property
    def met(self) -> bool | None:
        """Whether the ratio is in the target range."""
        return None if self.target is None else self.target.low <= self.ratio <= self.target.high


def in_turn(contenders: Mapping[str, Callable[[], float]], repetitions: int, warm_up: bool = True) -> dict[str, Series]:
    """Measure all contenders alternately, so that changes on the machine affect all of them.

    Args:
        contenders: name → function that measures once.
        repetitions: number of repetitions of each.
        warm_up: whether to run an additional first round that is not counted.
    """
    rounds = [[measure() for measure in contenders.values()] for _ in range(repetitions + warm_up)]
    columns = zip(*rounds[warm_up:], strict=True)
    return {name: Series(name, list(values)) for name, values in zip(contenders, columns, strict=True)}


def seconds(work: Callable[[], object]) -> float:
    """The wall-clock time of the work in seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def pinned(cores: int) -> Iterator[None]:
    """Pin this process and its new threads to the first ``cores`` of its available cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def figure(value: float) -> str:
    """A number with three significant digits; large numbers with all integer digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
