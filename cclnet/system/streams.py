"""The standard streams of a program: opened if closed, able to print all characters, closed without traceback."""

import io
import os
import sys
import unicodedata
from pathlib import Path
from typing import TextIO

READER_GONE = 141
"""Exit status of a program whose reader has closed the pipe: 128 + SIGPIPE, as in a shell."""

_NAMES = ("stdin", "stdout", "stderr")  # in the order of their file descriptors


def prepare_streams() -> None:
    """Open streams that the parent has closed on the null device, and make all characters printable in any encoding.

    Otherwise the next opened file would get the descriptor of the closed stream, and output of a library to standard
    error would be written to that file.
    """
    for number, name in enumerate(_NAMES):
        if not _is_open(number):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free descriptor: this one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - kept
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
    """Flush standard output while errors can still be handled.

    Raises:
        OSError: it cannot be written; its buffer is discarded, so that Python does not try again on exit.
    """
    try:
        sys.stdout.flush()
    except OSError:
        _give_up(sys.stdout)
        raise


def print_error(text: str) -> None:
    """Print to standard error; a closed reader is ignored."""
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Redirect a stream, including its buffer, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def printable(text: str) -> str:
    """The text with control characters escaped, except line ends: a file name must not control a terminal."""
    return "".join(letter if letter == "\n" or _is_harmless(letter) else _escaped(letter) for letter in text)


def _is_harmless(letter: str) -> bool:
    """Whether a character is not a control character, a format character (such as direction marks) or a surrogate."""
    return unicodedata.category(letter) not in ("Cc", "Cf", "Cs")


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
