"""The one family of errors that a user can put right; the edge of the program prints them without a traceback."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple


class CCLNetError(Exception):
    """What is wrong, where, and what to do about it, in one line."""


class ParamsError(CCLNetError):
    """``params.yaml`` asks for something that does not exist; all mistakes are listed together."""


class Problem(NamedTuple):
    """One fault of a dataset: the file (or image) it is in, and what is wrong with it."""

    where: str
    what: str


class DataError(CCLNetError):
    """A dataset cannot be used.

    Args:
        summary: one line that says what was being read and what to do.
        problems: every fault found, in the order in which the user meets the files.
    """

    def __init__(self, summary: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([summary, *(f"  {where}: {what}" for where, what in self.problems)]))


@contextmanager
def errors_in_one_line(program: str) -> Iterator[None]:
    """End the process with exit code 1 and the error's own words, no traceback, when a user can put it right."""
    try:
        yield
    except CCLNetError as error:
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
