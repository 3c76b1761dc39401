"""The fuzzing campaign in short, and how it judges."""

import warnings
from pathlib import Path

import pytest

from cclnet.system.errors import CCLNetError, DataError, Problem
from tests.campaigns.fuzz import SHARES, TARGETS, Chance, outcome, run_block, spoilt_bytes, spoilt_json, spoilt_text

INPUTS = {
    "images": 1200, "tables": 300, "zips": 200, "features": 100, "soft-labels": 200, "folders": 80, "params": 15,
    "models": 20,
}  # fmt: skip
"""Some seconds' worth."""


@pytest.mark.parametrize("target", TARGETS)
def test_spoilt_inputs_are_used_or_refused(target: str):
    counts, failures = run_block(target, "test", 0, INPUTS[target])
    assert failures == []
    assert counts.total() == INPUTS[target]
    assert counts["refused"] > 0


def test_every_target_has_its_share_of_all_inputs():
    assert set(SHARES) == set(TARGETS) == set(INPUTS)
    assert sum(SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("spoils", [spoilt_bytes, spoilt_text])
def test_an_input_depends_on_its_number_alone(spoils):
    data = b"image,label\na,MEL\nb,NV\n"
    again = [[spoils(data, Chance(f"0/tables/{number}"), [data]) for number in range(50)] for _ in range(2)]
    assert again[0] == again[1]
    assert len(set(again[0])) > 20


def test_the_value_that_is_spoilt_stays_as_it_was():
    value = {"a": [1, {"b": 2}], "c": "d"}
    found = {str(spoilt_json(value, Chance(number))) for number in range(200)}
    assert value == {"a": [1, {"b": 2}], "c": "d"}
    assert len(found) > 50


# how the campaign judges


def used(_: Chance, __: Path) -> None:
    pass


def refused(_: Chance, __: Path) -> None:
    raise DataError("it cannot be used:", [Problem("a", "is b"), Problem("c", "is d")])


def refused_in_two_lines(_: Chance, __: Path) -> None:
    raise CCLNetError("it cannot\nbe used")


def refused_without_a_word(_: Chance, __: Path) -> None:
    raise CCLNetError("")


def another_error(_: Chance, __: Path) -> None:
    raise KeyError("label")


def warned(_: Chance, __: Path) -> None:
    warnings.warn("mixed types", UserWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (used, ("used", "")),
        (refused, ("refused", "")),
        (refused_in_two_lines, ("failed", "no refusal of one line: 'it cannot\\nbe used'")),
        (refused_without_a_word, ("failed", "no refusal of one line: ''")),
        (another_error, ("failed", "KeyError: 'label'")),
        (warned, ("failed", "UserWarning: mixed types")),
    ],
)
def test_one_line_or_a_report_is_demanded(use, expected: tuple[str, str], tmp_path: Path):
    assert outcome(use, Chance(0), tmp_path) == expected
