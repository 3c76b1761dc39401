"""Names of images, classes and lesions: brought into one spelling where they are read, and compared."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters, ends of lines, marks without width that change the direction of text or hide in it, and what
stands for bytes that are not text. No name may have one."""
_FORMULA = re.compile(r"\s*[=+\-@].*[(|!]", re.DOTALL)
IS_FORMULA = "reads as a formula, which a spreadsheet would compute as it opens a table: call it otherwise"
_BLANKS = "\u200b\u2060\ufeff"
"""Characters without width, beside those that ``str.strip`` knows."""
_MOST_SPELLINGS = 3

Item = TypeVar("Item")


def is_formula(name: str) -> bool:
    """Whether a spreadsheet would take a cell with this name for a formula that calls something, ``=cmd|…`` say."""
    return bool(_FORMULA.match(name))


def normalised(name: str) -> str:
    """A name in Unicode's composed form (NFC), without blanks at its ends: equal for what reads the same."""
    composed = unicodedata.normalize("NFC", name)
    while composed != (stripped := composed.strip().strip(_BLANKS)):
        composed = stripped
    return composed


def shown(path: Path | str) -> str:
    """A path as it may be printed: with escapes for what a terminal could take for commands."""
    text = str(path)
    return ascii(text) if UNPRINTABLE.search(text) else text


def spelling_notes(spelt: Iterable[str], what: str) -> list[str]:
    """What names are written in several ways, in the words of a ``Problem``.

    Args:
        spelt: the names as they are written, before ``normalised``.
        what: a noun for them, such as ``group``.

    Returns:
        A note for each name in several spellings that count as one, and for names that count as different although only
        letter case, width or inner blanks differ.
    """
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in spelt:
        spellings[normalised(name)].add(name)
    notes = [
        f"writes {what} {name!r} in {len(ways)} ways, which count as one: {_listed(ways)}"
        for name, ways in sorted(spellings.items())
        if len(ways) > 1
    ]
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(spellings):
        alike["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    return notes + [
        f"has the {what}s {_listed(names)}, which count as {len(names)}: check whether they are one"
        for names in alike.values()
        if len(names) > 1
    ]


def _listed(names: Iterable[str]) -> str:
    """Some names, in Python's notation in which every character shows, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - _MOST_SPELLINGS
    return ", ".join(map(ascii, ordered[:_MOST_SPELLINGS])) + (f" and {more} more" if more > 0 else "")


def connected(sets: Iterable[Sequence[Item]]) -> dict[Item, Item]:
    """The least of all items that each is connected with through sets that share items, itself included."""
    parent: dict[Any, Any] = {}

    def root(item: Any) -> Any:
        while parent.setdefault(item, item) != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for items in sets:
        for item in items:
            first, second = sorted((root(items[0]), root(item)))
            parent[second] = first
    return {item: root(item) for item in parent}
