import math

import pytest

from cclnet.views.rendering import decimals, flat, full_names, probability, setting, signed


@pytest.mark.parametrize(
    ("value", "plain", "with_sign"),
    [
        (0.12345, "0.123", "+0.123"),
        (-0.5, "−0.500", "−0.500"),
        (-0.0001, "−0.000", "0.000"),
        (0.0001, "0.000", "0.000"),
        (0, "0.000", "0.000"),
        (None, "–", "–"),
        (math.nan, "–", "–"),
    ],
)
def test_numbers(value: float | None, plain: str, with_sign: str):
    assert (decimals(value), signed(value)) == (plain, with_sign)


def test_numbers_have_the_places_that_are_asked_for():
    assert (decimals(2 / 3, 1), signed(2 / 3, 1)) == ("0.7", "+0.7")


def test_params_are_flat_and_in_the_notation_of_their_file():
    found = flat({"seed": 0, "sample": {"seed": 1, "deeper": {"a": None}}})
    assert found == {"seed": 0, "sample.seed": 1, "sample.deeper.a": None}
    assert [setting(value) for value in ("word", None, True, 0.5, [1, 2])] == ["word", "null", "true", "0.5", "[1, 2]"]


def test_no_p_is_printed_as_0():
    assert [probability(p) for p in (0.25, 1e-4, 2e-39, None)] == ["0.2500", "0.0001", "<0.0001", "–"]


def test_abbreviations_have_a_meaning_and_other_classes_their_own_name():
    assert full_names(["NV", "cat"]) == {"NV": "melanocytic nevus", "cat": "cat"}
