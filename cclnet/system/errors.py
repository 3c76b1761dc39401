"""Errors that a user can fix; the entry points of the programs print them without a traceback."""

import difflib
import errno
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import NamedTuple

from cclnet.system.streams import READER_GONE, flush_output, prepare_streams, print_error


class CCLNetError(Exception):
    """An error that a user can fix: what is wrong, where, and what to do about it, in one line.

    Attributes:
        exit_status: the exit status of the process.
    """

    exit_status = 1


class ParamsError(CCLNetError):
    """``params.yaml`` is invalid; all mistakes are listed together."""


class MissingPackageError(CCLNetError):
    """An optional package is not installed.

    Args:
        purpose: the feature that needs it.
        error: the failed import.
        packages: the packages to install.
    """

    def __init__(self, purpose: str, error: ModuleNotFoundError, packages: str) -> None:
        super().__init__(f"{purpose} needs {error.name}, which is not installed: pip install {packages}")


class Problem(NamedTuple):
    """One problem of a dataset: the file (or image) and a description."""

    where: str
    what: str


class DataError(CCLNetError):
    """A dataset cannot be used.

    Args:
        summary: one line that says what was being read and what to do.
        problems: all problems found, in the order of the files.
    """

    def __init__(self, summary: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([summary, *(f"  {where}: {what}" for where, what in self.problems)]))


def did_you_mean(given: str, options: Iterable[str] | Mapping[str, str]) -> str:
    """``; did you mean …?`` with the option that is closest to the given name; empty if none is close.

    Args:
        given: a name that does not exist.
        options: the existing names; for a mapping, the keys are compared and the value is suggested.
    """
    names = options if isinstance(options, Mapping) else {name: name for name in options}
    close = difflib.get_close_matches(given, list(names), n=1)
    return f"; did you mean {names[close[0]]}?" if close else ""


@contextmanager
def errors_in_one_line(program: str) -> Iterator[None]:
    """End the process with one line and an exit status, without traceback, for every error that a user can fix.

    Besides the errors of this project these are files that cannot be read or written, a full disk, out of memory (exit
    status 1), Ctrl-C (130), and a closed reader of standard output (141, without a line).
    """
    prepare_streams()
    before = len(_interrupts)
    with _interrupts_noted():
        try:
            yield
            flush_output()
            return
        except SystemExit:
            _flush_before_exit()
            raise
        except (KeyboardInterrupt, Exception) as error:
            ending = _INTERRUPTED if len(_interrupts) > before else _ending(error)
            if ending is None:
                raise
    if ending.line:
        print_error(f"{program}: {ending.line}")
    raise SystemExit(ending.status) from None


class _Ending(NamedTuple):
    """How a program ends after an error."""

    status: int
    line: str


_INTERRUPTED = _Ending(130, "interrupted; run it again")


def _ending(error: BaseException) -> _Ending | None:
    """How the program ends after this error, None if a user cannot fix it."""
    if isinstance(error, CCLNetError):
        return _Ending(error.exit_status, str(error))
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return _Ending(READER_GONE, "")
    if reason := exhausted(error):
        return _Ending(1, reason)
    if isinstance(error, OSError) and (reason := _of_a_file(error)):
        return _Ending(1, reason)
    return None


def _flush_before_exit() -> None:
    try:
        flush_output()
    except BrokenPipeError:
        raise SystemExit(READER_GONE) from None
    except OSError as error:
        print_error(f"standard output cannot be written: {error.strerror}")
        raise SystemExit(1) from None


_interrupts: list[int] = []
"""All SIGINTs received: a library that is being loaded may turn ``KeyboardInterrupt`` into another error."""


@contextmanager
def _interrupts_noted() -> Iterator[None]:
    """Record every SIGINT and raise ``KeyboardInterrupt``; SIGINT stays ignored if the process was started that way."""
    before = signal.getsignal(signal.SIGINT)
    if before not in (signal.default_int_handler, signal.SIG_DFL) or current_thread() is not main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


_CORRECTIONS = {
    errno.ENOENT: "check the name, or make it first (in a project: dvc repro)",
    errno.EACCES: "change its permissions, or those of its folder",
    errno.EPERM: "change its permissions, or those of its folder",
    errno.EROFS: "choose a place that can be written to",
    errno.EISDIR: "a folder is where a file is needed: move it away",
    errno.ENOTDIR: "one of its folders is a file: move that away",
    errno.EEXIST: "a file is where a folder is needed: move it away",
    errno.ELOOP: "its links lead in a circle",
    errno.ENAMETOOLONG: "shorten it",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine: end other programs",
    errno.EIO: "the disk behind it fails: check it",
    errno.ESTALE: "its network folder has changed: mount it again",
}
"""What to do about errors of the operating system."""


def _of_a_file(error: OSError) -> str:
    """The file, the error and the remedy; empty for an error that does not concern a file or a disk."""
    advice = _CORRECTIONS.get(error.errno or 0)
    if error.filename is None:
        return f"{error.strerror}: {advice}" if error.errno in (errno.EIO, errno.ESTALE, errno.EROFS) else ""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return f"{name}: {error.strerror}; {advice or 'correct that and run it again'}"


def exhausted(error: BaseException) -> str:
    """The exhausted resource and the remedy; empty for other errors."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return f"the disk or a limit on it is full ({error}); free some space and run it again" if full else ""
    if not isinstance(error, MemoryError | RuntimeError):
        return ""
    # torch's errors are recognised by name, so that this module does not load torch; the second one is oneDNN's
    on_gpu = type(error).__name__ == "OutOfMemoryError"
    on_cpu = any(words in str(error) for words in ("DefaultCPUAllocator", "could not create a primitive"))
    if isinstance(error, MemoryError) or on_gpu or on_cpu:
        return "out of memory; lower batch_size or crop in params.yaml, or end other programs"
    return ""
