"""Names of images, classes and lesions: normalisation and comparison."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters, line ends, zero-width and direction marks, and surrogates for bytes that are not text. Names may
not contain any of them."""
_FORMULA = re.compile(r"\s*[=+\-@].*[(|!]", re.DOTALL)
IS_FORMULA = "reads as a formula, which a spreadsheet would compute as it opens a table: call it otherwise"
_BLANKS = "\u200b\u2060\ufeff"
"""Zero-width characters that ``str.strip`` does not remove."""
_MOST_SPELLINGS = 3
_MOST_LISTED = 5
_LONGEST = 100

Item = TypeVar("Item")


def is_formula(name: str) -> bool:
    """Whether a spreadsheet would take a cell with this name for a formula that calls something, ``=cmd|…`` say."""
    return bool(_FORMULA.match(name))


def normalised(name: str) -> str:
    """A name in Unicode's composed form (NFC) without outer blanks, so that names that look the same are equal."""
    composed = unicodedata.normalize("NFC", name)
    while composed != (stripped := composed.strip().strip(_BLANKS)):
        composed = stripped
    return composed


def shown(path: Path | str) -> str:
    """A path for printing, with control characters escaped."""
    text = str(path)
    return ascii(text) if UNPRINTABLE.search(text) else text


def listed(names: Sequence[str]) -> str:
    """The first names, shortened and with control characters escaped, and the number of the others."""
    first = [shown(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…") for name in names[:_MOST_LISTED]]
    return ", ".join(first) + (f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else "")


def spelling_notes(spelt: Iterable[str], what: str) -> list[str]:
    """Notes on names with several spellings, as texts for a ``Problem``.

    Args:
        spelt: the original names, before ``normalised``.
        what: a noun for them, such as ``group``.

    Returns:
        A note for each name with several spellings that are treated as one, and for names that are treated as different
        although they differ only in letter case, width or inner blanks.
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
    """The first names, with non-ASCII characters escaped, and the number of further ones."""
    ordered = sorted(names)
    more = len(ordered) - _MOST_SPELLINGS
    return ", ".join(map(ascii, ordered[:_MOST_SPELLINGS])) + (f" and {more} more" if more > 0 else "")


def connected(sets: Iterable[Sequence[Item]]) -> dict[Item, Item]:
    """The smallest item of each item's connected component, where items of the same set are connected."""
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
