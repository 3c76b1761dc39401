"""The standard streams of a program: open, able to print every letter, and given up without a traceback."""

import io
import os
import sys
import unicodedata
from pathlib import Path
from typing import TextIO

READER_GONE = 141
"""Exit status of a program whose reader has gone: 128 + SIGPIPE, as a shell counts it."""

_NAMES = ("stdin", "stdout", "stderr")  # in the order of their file descriptors


def prepare_streams() -> None:
    """Open on the null device what the parent has closed, and let every letter be printed in any encoding.

    Without this the next file that is opened would take the number of the closed stream, and what some library prints
    to standard error would end up in that file.
    """
    for number, name in enumerate(_NAMES):
        if not _is_open(number):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def flush_output() -> None:
    """Write out what is printed, which would otherwise happen after the last place where an error can be handled.

    Raises:
        OSError: it cannot be written; the stream is given up, so that Python does not try again as it ends.
    """
    try:
        sys.stdout.flush()
    except OSError:
        _give_up(sys.stdout)
        raise


def print_error(text: str) -> None:
    """Print to standard error, where somebody may read it or nobody."""
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Send what is left in a stream's buffer to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def printable(text: str) -> str:
    """The text with control characters escaped, but for line ends: the name of a file must not steer a terminal."""
    return "".join(letter if letter == "\n" or _is_harmless(letter) else _escaped(letter) for letter in text)


def _is_harmless(letter: str) -> bool:
    """Whether it is none of control, format (which includes the change of direction) and lone surrogates."""
    return unicodedata.category(letter) not in ("Cc", "Cf", "Cs")


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
