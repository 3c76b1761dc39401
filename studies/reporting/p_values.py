"""p-values for reports: corrected for multiple testing, and marked as upper bounds if limited by the bootstrap."""

from collections.abc import Sequence
from typing import NamedTuple

from cclnet.metrics.resampling import holm


class PValue(NamedTuple):
    """A p-value; ``at_most`` if the true value may be smaller, because no resample was on the other side of 0."""

    value: float
    at_most: bool

    def __str__(self) -> str:
        digits = 3 if self.value >= 0.001 else 4
        return f"{'≤' if self.at_most else '='} {self.value:.{digits}f}"


def adjusted(values: Sequence[PValue | None]) -> list[PValue | None]:
    """Holm's adjustment of all existing p-values; an adjusted value is an upper bound if it depends on another one.

    To find these, the adjustment is repeated with all upper bounds replaced by 0.
    """
    known = [value for value in values if value is not None]
    upper = holm([value.value for value in known])
    lower = holm([0.0 if value.at_most else value.value for value in known])
    found = iter(PValue(float(high), bool(low < high)) for low, high in zip(lower, upper, strict=True))
    return [None if value is None else next(found) for value in values]
