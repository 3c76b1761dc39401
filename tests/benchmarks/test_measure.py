"""The arithmetic of what is measured."""

import pytest

from benchmarks.measure import Target, figure, in_turn
from tests.benchmarks.builders import comparison


@pytest.mark.parametrize(
    ("target", "text", "met"),
    [
        (Target(low=2.5), "≥ 2.5", True),
        (Target(low=2.6), "≥ 2.6", False),
        (Target(high=2.5), "≤ 2.5", True),
        (Target(high=2.4), "≤ 2.4", False),
        (Target(2.4, 2.6), "2.4 to 2.6", True),
        (Target(2.6, 3), "2.6 to 3", False),
        (Target(2, 2.4), "2 to 2.4", False),
        (None, "None", None),
    ],
)
def test_a_target_is_met_with_both_ends(target: Target | None, text: str, met: bool | None):
    assert str(target) == text
    assert comparison(target).met is met


def test_things_are_measured_in_turn_and_the_first_round_is_not_counted():
    calls: list[str] = []

    def measuring(name: str):
        def measure() -> float:
            calls.append(name)
            return float(len(calls))

        return measure

    series = in_turn({"a": measuring("a"), "b": measuring("b")}, repetitions=2)
    assert "".join(calls) == "ababab"
    assert {name: one.values for name, one in series.items()} == {"a": [3, 5], "b": [4, 6]}
    calls.clear()
    assert in_turn({"a": measuring("a")}, 3, warm_up=False)["a"].values == [1, 2, 3]


def test_figures_have_three_digits():
    assert [figure(value) for value in (0.012345, 1.0, 12.345, 123.45, 12345.6)] == [
        "0.0123",
        "1",
        "12.3",
        "123",
        "12,346",
    ]
