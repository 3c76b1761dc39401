"""Atomic writing of files: written to a temporary file in the same folder, flushed to the disk, then renamed.

Pipes, devices and standard output receive the whole contents at the end. If a file system cannot give one of the
guarantees, the work continues after one warning.
"""

import errno
import itertools
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO

from cclnet.system.errors import CCLNetError
from cclnet.system.locks import NOT_OFFERED, Locking, lock

logger = logging.getLogger(__name__)

STANDARD_OUTPUT = Path("-")
"""The file name that stands for standard output in a command."""

_MEMORY = 2**24  # bytes for a pipe or a device that are kept in memory; more go to a temporary file
_DAY = 86_400  # seconds
_ANYBODY_MAY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces ``path`` when the block ends, so that a reader sees either the old or the new contents.

    Symbolic links are followed, and the permissions and the owner of an existing file are kept. A write-protected file,
    or a link to one, is replaced by a new file, because DVC links outputs to its cache in this way.

    Args:
        path: the file; its folder is created if necessary. A pipe or a device, ``/dev/stdout`` and ``-`` for standard
            output receive the contents when the block ends.

    Raises:
        CCLNetError: the disk is full, or the file cannot be written for another reason.
        BrokenPipeError: the reader of the pipe has closed it.
    """
    in_block = False
    try:
        with _opened(path) as file:
            in_block = True
            yield file
            in_block = False
    except BrokenPipeError:
        raise
    except OSError as error:
        if in_block and error.filename is not None:
            raise  # about a file that the caller reads in the block
        raise CCLNetError(f"{path} cannot be written: {_reason(error, path)}; correct that and run it again") from None


def _reason(error: OSError, path: Path) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{_first_that_is_there(path)} is no folder"
    return error.strerror or str(error)


def _first_that_is_there(path: Path) -> Path:
    """The deepest existing parent of a path, which may not be a folder."""
    return next(folder for folder in path.absolute().parents if os.path.lexists(folder))


def _opened(path: Path) -> AbstractContextManager[IO[bytes]]:
    """Choose the way of writing that fits the existing file at this path."""
    descriptor = open_descriptor(path)
    if descriptor is not None:
        return _streamed(os.dup(descriptor))
    before = _status(path)
    target = _target(path, before)
    target.parent.mkdir(parents=True, exist_ok=True)
    if before and not stat.S_ISREG(before.st_mode):
        return _streamed(os.open(target, os.O_WRONLY | os.O_APPEND))
    if before and not os.access(target.parent, os.W_OK):
        return _rewritten(target)
    return _replaced(target, before)


def open_descriptor(path: Path) -> int | None:
    """The file descriptor of this process that a path such as ``-``, ``/dev/stdout`` or ``/dev/fd/63`` refers to."""
    if path == STANDARD_OUTPUT:
        return 1
    for _ in range(_MOST_LINKS):
        folder = Path(os.path.realpath(path.parent))
        if folder in (Path(f"/proc/{os.getpid()}/fd"), Path("/dev/fd")) and path.name.isdecimal():
            return int(path.name)
        if not os.path.islink(path):  # noqa: PTH114 - False also for an invalid name
            return None
        path = folder / path.readlink()
    return None


_MOST_LINKS = 40  # as in Linux


def is_standard_output(path: Path | None) -> bool:
    """Whether a command's file is standard output, to which nothing else may then be written."""
    return path is not None and open_descriptor(path) == 1


def _target(path: Path, status: os.stat_result | None) -> Path:
    """The target of a link, even if it does not exist yet; the link itself if its target is write-protected."""
    if path.is_symlink() and status and not status.st_mode & _ANYBODY_MAY_WRITE:
        return path
    return Path(os.path.realpath(path))


def _status(path: Path) -> os.stat_result | None:
    """The status of a path, None if it does not exist; a link that cannot be followed is an error."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def _replaced(target: Path, before: os.stat_result | None) -> Iterator[IO[bytes]]:
    """Write to a temporary file, then replace the target."""
    _remove_abandoned(target)
    partial, file = _new_partial(target)
    try:
        with file:
            if before and before.st_mode & _ANYBODY_MAY_WRITE:
                _keep_owner_and_permissions(partial, target, before)
            yield file
            file.flush()
            _flush_to_disk(file.fileno(), target)
            if os.name == "nt":
                file.close()  # Windows cannot rename an open file; elsewhere the lock is kept until the renaming
            _take_place(partial, target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    flush_folder(target.parent)


def _new_partial(target: Path) -> tuple[Path, IO[bytes]]:
    """Create a locked file beside the target, with a unique and unpredictable name."""
    while True:
        partial = target.with_name(f"{_beginning(target)}.{secrets.token_hex(4)}.partial")
        with suppress(FileExistsError):
            file = partial.open("xb")
            if lock(file) != Locking.BUSY and _is_open_as(partial, file):
                return partial, file
            file.close()  # another writer has just removed it as abandoned


def _beginning(target: Path) -> str:
    """The file's name, shortened so that the name of its partial file fits into 255 bytes."""
    name = target.name
    while len(os.fsencode(name)) > 255 - len(".01234567.partial"):
        name = name[:-1]
    return name


def _is_open_as(path: Path, file: IO[bytes]) -> bool:
    """Whether the path still refers to this open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    return False


def _remove_abandoned(target: Path) -> None:
    """Remove the partial files that killed writers have left."""
    name = re.compile(rf"{re.escape(_beginning(target))}\.[0-9a-f]{{8}}\.partial")
    with suppress(PermissionError):  # a folder may be writable but not readable
        for other in os.listdir(target.parent):  # noqa: PTH208 - only the names are needed
            if name.fullmatch(other):
                with suppress(OSError):
                    _remove_if_abandoned(target.with_name(other))


def _remove_if_abandoned(partial: Path) -> None:
    """Remove a partial file that is not locked or, without support for locks, has not been written to for a day."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(partial, flags), "rb") as file:
        status, locking = os.fstat(file.fileno()), lock(file)
        old = locking == Locking.NOT_OFFERED and time.time() - status.st_mtime > _DAY
        if stat.S_ISREG(status.st_mode) and (old or locking == Locking.LOCKED) and _is_open_as(partial, file):
            partial.unlink()


def _keep_owner_and_permissions(partial: Path, target: Path, before: os.stat_result) -> None:
    with suppress(OSError, AttributeError):  # only root may change the owner; Windows has no owners
        os.chown(partial, before.st_uid, before.st_gid)
    with suppress(OSError):  # a file system may have the same permissions for all files
        shutil.copymode(target, partial)


def _take_place(partial: Path, target: Path) -> None:
    """Rename a file over another one, or copy it into one that cannot be replaced, such as a mounted single file."""
    try:
        partial.replace(target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        with partial.open("rb") as contents, target.open("r+b") as file:
            _overwrite(file, contents, target)
        partial.unlink()


@contextmanager
def _rewritten(target: Path) -> Iterator[IO[bytes]]:
    """Overwrite the existing file at the end of the block, if there is no permission to replace it."""
    with target.open("r+b") as file, SpooledTemporaryFile(_MEMORY) as contents:
        yield contents
        contents.seek(0)
        _overwrite(file, contents, target)


def _overwrite(file: IO[bytes], contents: IO[bytes], target: Path) -> None:
    _warn(f"{target} cannot be replaced, so it is overwritten: if that is interrupted, half of it is lost")
    shutil.copyfileobj(contents, file)
    file.truncate()
    file.flush()
    _flush_to_disk(file.fileno(), target)


@contextmanager
def _streamed(descriptor: int) -> Iterator[IO[bytes]]:
    """Write to a pipe or a device at the end of the block, so that nothing is written after an error."""
    with os.fdopen(descriptor, "wb") as stream, SpooledTemporaryFile(_MEMORY) as contents:
        yield contents
        contents.seek(0)
        sys.stdout.flush()  # earlier output comes first
        shutil.copyfileobj(contents, stream)


def _flush_to_disk(descriptor: int, path: Path) -> None:
    """Wait until a file or folder is on the disk, if the file system supports it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise
        _warn(f"{path} cannot be flushed to the disk ({error.strerror}): a power cut may undo what was written last")


def flush_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk."""
    if os.name == "nt":
        return  # folders cannot be opened
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # the folder may be writable but not readable
        return
    try:
        _flush_to_disk(descriptor, folder)
    finally:
        os.close(descriptor)


def _warn(message: str) -> None:
    """Log only the first warning of each kind, since it also applies to other files."""
    kind = message.partition(" cannot ")[2]
    if kind not in _warned:
        _warned.add(kind)
        logger.warning(message)


_warned: set[str] = set()


def require_writable(
    outputs: Iterable[Path | None], inputs: Iterable[Path] = (), replace_protected: bool = False
) -> None:
    """Check before the work whether its outputs can be written.

    Args:
        outputs: the files that will be written; None is ignored.
        inputs: the files that are read, none of which may be overwritten.
        replace_protected: a write-protected file may be replaced, as DVC's outputs are.

    Raises:
        CCLNetError: some outputs cannot be written, or are an input or the same file; all of them are named.
    """
    paths = [path for path in outputs if path is not None]
    problems = [f"{path} {problem}" for path in paths if (problem := _problem_of_output(path, replace_protected))]
    problems += [f"{path} is also read" for path in paths if any(_is_same(path, other) for other in inputs)]
    pairs = itertools.combinations(paths, 2)
    problems += [f"{one} and {other} are the same file" for one, other in pairs if _is_same(one, other)]
    if problems:
        raise CCLNetError(f"{'; '.join(problems)}: choose another file to write")


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths refer to the same file, which need not exist."""
    if None not in (first := open_descriptor(one), second := open_descriptor(other)):
        return first == second
    return os.path.realpath(one) == os.path.realpath(other)


def _problem_of_output(path: Path, replace_protected: bool) -> str:
    """Why a file cannot be written; empty if there is no known reason."""
    if open_descriptor(path) is not None:
        return ""
    target = Path(os.path.realpath(path))
    try:
        status = _status(path)
    except NotADirectoryError:
        return f"cannot be written: {_first_that_is_there(target)} is no folder"
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    if status is None:
        return _problem_of_folder(_first_that_is_there(target))
    if stat.S_ISDIR(status.st_mode):
        return "is a folder"
    replaceable = replace_protected and os.access(target.parent, os.W_OK)
    writable = status.st_mode & _ANYBODY_MAY_WRITE and os.access(target, os.W_OK)
    return "" if writable or replaceable else "is write-protected"


def _problem_of_folder(folder: Path) -> str:
    """Why no file can be made in a folder; empty if one can."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot be written: {folder} is write-protected"
    try:
        with TemporaryFile(dir=folder):  # root has access everywhere, also where no file can be, such as /proc
            return ""
    except OSError as error:
        return f"cannot be written: {folder}: {error.strerror}"
