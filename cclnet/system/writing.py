"""Files that are either whole or not there: written beside their place, flushed to the disk, then renamed.

Pipes, devices and standard output have no place beside them: they get the whole contents at the end. Where a file
system cannot give one of the guarantees, one warning says so and the work goes on.
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
from tempfile import SpooledTemporaryFile
from typing import IO

from cclnet.system.errors import CCLNetError
from cclnet.system.locks import NOT_OFFERED, Locking, lock

logger = logging.getLogger(__name__)

STANDARD_OUTPUT = Path("-")
"""What a command takes for standard output in the place of a file."""

_MEMORY = 2**24  # bytes kept there of what goes to a pipe or a device; more goes to a temporary file
_DAY = 86_400  # seconds
_ANYBODY_MAY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that gets its name as the block ends, so that a reader sees the whole of it or the one before it.

    Symbolic links are followed, and the permissions and the owner of a file that is there are kept. A write-protected
    file, and a link to one, gives way to a new file: that is how DVC links outputs to its cache.

    Args:
        path: the file; its folder is made if need be. A pipe or a device, ``/dev/stdout`` and ``-`` for standard output
            get the contents as the block ends.

    Raises:
        CCLNetError: the disk is full, or refuses the file for another reason.
        BrokenPipeError: nobody reads the pipe.
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
            raise  # about a file that the caller reads meanwhile
        raise CCLNetError(f"{path} cannot be written: {_reason(error, path)}; correct that and run it again") from None


def _reason(error: OSError, path: Path) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{_first_that_is_there(path)} is no folder"
    return error.strerror or str(error)


def _first_that_is_there(path: Path) -> Path:
    """The lowest of a path's folders that is there, perhaps as something else."""
    return next(folder for folder in path.absolute().parents if os.path.lexists(folder))


def _opened(path: Path) -> AbstractContextManager[IO[bytes]]:
    """The way of writing that fits what is at this path."""
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
    """The number of this process's open file that a path such as ``-``, ``/dev/stdout`` or ``/dev/fd/63`` leads to."""
    if path == STANDARD_OUTPUT:
        return 1
    for _ in range(_MOST_LINKS):
        folder = Path(os.path.realpath(path.parent))
        if folder in (Path(f"/proc/{os.getpid()}/fd"), Path("/dev/fd")) and path.name.isdecimal():
            return int(path.name)
        if not os.path.islink(path):  # noqa: PTH114 - False also for a name that cannot be
            return None
        path = folder / path.readlink()
    return None


_MOST_LINKS = 40  # as Linux has it


def is_standard_output(path: Path | None) -> bool:
    """Whether a command's file is its standard output, which then gets nothing else."""
    return path is not None and open_descriptor(path) == 1


def _target(path: Path, status: os.stat_result | None) -> Path:
    """What a link leads to, also where that is not there yet; the link itself if that is write-protected."""
    if path.is_symlink() and status and not status.st_mode & _ANYBODY_MAY_WRITE:
        return path
    return Path(os.path.realpath(path))


def _status(path: Path) -> os.stat_result | None:
    """What is at a path, None for nothing; a link that the system would not follow for its user is an error."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def _replaced(target: Path, before: os.stat_result | None) -> Iterator[IO[bytes]]:
    """Write beside a file, then take its place."""
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
                file.close()  # Windows renames no open file; elsewhere its lock lasts until it has its name
            _take_place(partial, target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    flush_folder(target.parent)


def _new_partial(target: Path) -> tuple[Path, IO[bytes]]:
    """A new locked file beside another one, with a name that no other writer has and nobody can have guessed."""
    while True:
        partial = target.with_name(f"{_beginning(target)}.{secrets.token_hex(4)}.partial")
        with suppress(FileExistsError):
            file = partial.open("xb")
            if lock(file) != Locking.BUSY and _is_open_as(partial, file):
                return partial, file
            file.close()  # another writer has just taken it for abandoned


def _beginning(target: Path) -> str:
    """As much of a file's name as leaves room for what makes it that of a partial file, in 255 bytes."""
    name = target.name
    while len(os.fsencode(name)) > 255 - len(".01234567.partial"):
        name = name[:-1]
    return name


def _is_open_as(path: Path, file: IO[bytes]) -> bool:
    """Whether this is still the file of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    return False


def _remove_abandoned(target: Path) -> None:
    """Remove what killed writers of a file have left beside it."""
    name = re.compile(rf"{re.escape(_beginning(target))}\.[0-9a-f]{{8}}\.partial")
    with suppress(PermissionError):  # one may write to a folder without listing it
        for other in os.listdir(target.parent):  # noqa: PTH208 - names, and nothing else of thousands of files
            if name.fullmatch(other):
                with suppress(OSError):
                    _remove_if_abandoned(target.with_name(other))


def _remove_if_abandoned(partial: Path) -> None:
    """Remove a partial file whose writer is gone: nobody locks it, or, without locks, nobody has written for a day."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(partial, flags), "rb") as file:
        status, locking = os.fstat(file.fileno()), lock(file)
        old = locking == Locking.NOT_OFFERED and time.time() - status.st_mtime > _DAY
        if stat.S_ISREG(status.st_mode) and (old or locking == Locking.LOCKED) and _is_open_as(partial, file):
            partial.unlink()


def _keep_owner_and_permissions(partial: Path, target: Path, before: os.stat_result) -> None:
    with suppress(OSError, AttributeError):  # only root may give a file away; Windows has no owners
        os.chown(partial, before.st_uid, before.st_gid)
    with suppress(OSError):  # a file system may have the same permissions for all files
        shutil.copymode(target, partial)


def _take_place(partial: Path, target: Path) -> None:
    """Rename a file over another one, or copy it into one that cannot be replaced: a single file that is mounted."""
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
    """Write into the file that is there, all at the end, for want of a permission to replace it."""
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
    """Write to a pipe or a device, all at the end, so that nothing of what is given up gets there."""
    with os.fdopen(descriptor, "wb") as stream, SpooledTemporaryFile(_MEMORY) as contents:
        yield contents
        contents.seek(0)
        sys.stdout.flush()  # what was printed before comes first
        shutil.copyfileobj(contents, stream)


def _flush_to_disk(descriptor: int, path: Path) -> None:
    """Wait until a file or folder is on the disk, where the file system can say so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise
        _warn(f"{path} cannot be flushed to the disk ({error.strerror}): a power cut may undo what was written last")


def flush_folder(folder: Path) -> None:
    """Make the names in a folder as lasting as its files."""
    if os.name == "nt":
        return  # opens no folder
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one may write to a folder without reading it
        return
    try:
        _flush_to_disk(descriptor, folder)
    finally:
        os.close(descriptor)


def _warn(message: str) -> None:
    """One warning of a kind: what holds for one file holds for its neighbours."""
    kind = message.partition(" cannot ")[2]
    if kind not in _warned:
        _warned.add(kind)
        logger.warning(message)


_warned: set[str] = set()


def require_writable(
    outputs: Iterable[Path | None], inputs: Iterable[Path] = (), replace_protected: bool = False
) -> None:
    """Find out before the work whether its outputs can be written.

    Args:
        outputs: the files that will be written; None is passed over.
        inputs: the files that are read, none of which may be overwritten.
        replace_protected: a write-protected file may give way to a new one, as DVC has its outputs.

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
    """Whether two paths lead to one file, there or not."""
    if None not in (first := open_descriptor(one), second := open_descriptor(other)):
        return first == second
    return os.path.realpath(one) == os.path.realpath(other)


def _problem_of_output(path: Path, replace_protected: bool) -> str:
    """Why a file cannot be written, as far as it can be known; empty if nothing speaks against it."""
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
        folder = _first_that_is_there(target)
        return "" if os.access(folder, os.W_OK | os.X_OK) else f"cannot be written: {folder} is write-protected"
    if stat.S_ISDIR(status.st_mode):
        return "is a folder"
    replaceable = replace_protected and os.access(target.parent, os.W_OK)
    writable = status.st_mode & _ANYBODY_MAY_WRITE and os.access(target, os.W_OK)
    return "" if writable or replaceable else "is write-protected"
