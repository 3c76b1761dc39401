"""The rows of the tables, and the page."""

from benchmarks.measure import Target
from benchmarks.report import row_of
from tests.benchmarks.builders import comparison


def test_a_ratio_is_of_medians_and_its_spread_of_each_repetition():
    row = row_of(comparison(Target(low=2)))
    assert (row["measured_median"], row["measured_low"], row["measured_high"]) == (2.5, 1.0, 3.0)
    assert (row["reference_median"], row["reference_low"], row["reference_high"]) == (1.0, 0.5, 2.0)
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == (2.5, 1.5, 2.5)
    assert (row["target"], row["met"], row["repetitions"]) == ("≥ 2", "yes", 3)
