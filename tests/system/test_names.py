import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from cclnet.system.names import UNPRINTABLE, connected, is_formula, normalised, shown, spelling_notes

DECOMPOSED = unicodedata.normalize("NFD", "Müller")


@pytest.mark.parametrize(
    "name", ["Müller", DECOMPOSED, "Müller ", "\tMüller", f"\ufeff{DECOMPOSED}\u200b", " \u200b Müller"]
)
def test_what_reads_the_same_is_the_same(name: str):
    assert normalised(name) == "Müller"


@pytest.mark.parametrize("name", ["", "a b", "P1", "p1", "ﬁ", "１", "a.b", "-"])
def test_what_reads_otherwise_stays_as_it_is(name: str):
    assert normalised(name) == name


def test_normalising_twice_changes_nothing():
    letters = ["a", "ü", "\u0308", " ", "\u200b", "\ufeff", "\t", "ﬁ"]
    drawn = random.Random(0)  # noqa: S311
    for _ in range(1000):
        name = "".join(drawn.choices(letters, k=drawn.randrange(8)))
        assert normalised(normalised(name)) == normalised(name)


def test_spellings_that_count_as_one_and_names_that_do_not_are_noted():
    notes = spelling_notes([DECOMPOSED, "Müller", "Müller ", "P 1", "p1", "P1", "other"], "group")
    assert notes == [
        f"writes group 'Müller' in 3 ways, which count as one: {DECOMPOSED!a}, 'M\\xfcller', 'M\\xfcller '",
        "has the groups 'P 1', 'P1', 'p1', which count as 3: check whether they are one",
    ]
    assert spelling_notes(["a", "b", "a"], "group") == []


@pytest.mark.parametrize("character", ["\x1b", "\n", "\u2028", "\u202e", "\u200b", "\ud800", "\x9b", "\ufeff"])
def test_what_steers_a_terminal_or_hides_is_unprintable(character: str):
    assert UNPRINTABLE.search(f"a{character}b")
    assert shown(f"a{character}b") == ascii(f"a{character}b")


@pytest.mark.parametrize("name", ["Bildschirmfoto 9.41\u202fAM", "a\xa0b", "שלום", "می\u200cخواهم", "猫 🐈"])
def test_names_of_people_and_systems_are_printable(name: str):
    assert not UNPRINTABLE.search(name)
    assert shown(Path(name)) == name


def components(sets: Sequence[Sequence[int]]) -> list[set[int]]:
    """Connected items, the slow way."""
    found: list[set[int]] = []
    for items in sets:
        touched = [group for group in found if group & set(items)]
        found = [group for group in found if group not in touched] + [set(items).union(*touched)]
    return found


@pytest.mark.parametrize("seed", range(20))
def test_connected_items_share_their_least(seed: int):
    drawn = random.Random(seed)  # noqa: S311
    sets = [drawn.choices(range(60), k=drawn.randint(1, 4)) for _ in range(25)]
    expected = {item: min(group) for group in components(sets) for item in group}
    assert connected(sets) == expected
    assert connected([]) == {}


@pytest.mark.parametrize(
    "name",
    ["=cmd|' /C calc'!A0", '=LINK("http://a")', "@SUM(1)", "+2+cmd|'x'!A1", "-(1)", " =1!A", "=\n(1)"],
)
def test_a_formula_that_calls_something_is_one(name: str):
    assert is_formula(name)


@pytest.mark.parametrize("name", ["-1", "+1", "=", "@home", "a=(1)", "-x (2"[1:], "1-(2)", "melanoma!", "", "a|b"])
def test_signs_and_marks_alone_make_no_formula(name: str):
    assert not is_formula(name)
