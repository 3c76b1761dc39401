"""Settings and a comparison for the tests of the benchmarks."""

from benchmarks.catalogue import Settings
from benchmarks.measure import Comparison, Series, Target

IN_SMALL = Settings(tiny=True, repetitions=1, images=None, device="cpu")


def comparison(target: Target | None = None) -> Comparison:
    return Comparison("a case", "s", Series("this", [3.0, 1.0, 2.5]), Series("that", [2.0, 0.5, 1.0]), target)
