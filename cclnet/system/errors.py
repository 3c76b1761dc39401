"""The one family of errors that a user can put right; the edge of the program prints them without a traceback."""

import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple


class CCLNetError(Exception):
    """What is wrong, where, and what to do about it, in one line.

    Attributes:
        exit_status: what the process ends with.
    """

    exit_status = 1


class ParamsError(CCLNetError):
    """``params.yaml`` asks for something that does not exist; all mistakes are listed together."""


class MissingPackageError(CCLNetError):
    """A package that only some uses of the project need is not installed.

    Args:
        purpose: what was asked for.
        error: the import that failed.
        packages: what to install.
    """

    def __init__(self, purpose: str, error: ModuleNotFoundError, packages: str) -> None:
        super().__init__(f"{purpose} needs {error.name}, which is not installed: pip install {packages}")


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
    """End the process with the error's own words and exit status, no traceback, when a user can put it right.

    So ends also what no code of this project raises: a full disk, too little memory (1), Ctrl-C (130).
    """
    try:
        yield
    except CCLNetError as error:
        status, message = error.exit_status, str(error)
    except KeyboardInterrupt:
        status, message = 130, "interrupted; run it again"
    except (MemoryError, RuntimeError, OSError) as error:
        if not (reason := exhausted(error)):
            raise
        status, message = 1, reason
    else:
        return
    print(f"{program}: {message}", file=sys.stderr)
    raise SystemExit(status) from None


def exhausted(error: Exception) -> str:
    """What the machine has run out of and what to do, empty if the error is another."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return f"the disk or a limit on it is full ({error}); free some space and run it again" if full else ""
    # torch's own errors, told by their names so that this module does not load it; the second one is oneDNN's
    on_gpu = type(error).__name__ == "OutOfMemoryError"
    on_cpu = any(words in str(error) for words in ("DefaultCPUAllocator", "could not create a primitive"))
    short = isinstance(error, MemoryError) or on_gpu or on_cpu
    return "out of memory; lower batch_size or crop in params.yaml, or end other programs" if short else ""
