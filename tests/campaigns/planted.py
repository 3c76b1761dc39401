"""A stage of the pipeline with one fault planted in it, for ``faults.py``; run it where the stage would be run.

    python -m tests.campaigns.planted STAGE none
    python -m tests.campaigns.planted STAGE kill | terminate | full | nan PLACE NAME NUMBER [RANK]
    python -m tests.campaigns.planted STAGE file-size | memory BYTES
    python -m tests.campaigns.planted STAGE lacks flock | flock-ENOSYS | fcntl | fsync | fsync-of-folders | rename
    python -m tests.campaigns.planted STAGE unreadable NAME

The fault strikes when the stage is at PLACE for the NUMBER-th time with a file whose name matches NAME:

    write           half of what is written then has reached the file
    fsync           everything is written, and not flushed to the disk
    rename          the file is whole, and not under its final name
    renamed         it is, and the folder is not flushed to the disk
    unlink          the file is about to be removed
    step            the trainer is about to step; an even NUMBER is between the two optimizers' steps (NAME is ``*``)

``kill``: SIGKILL; ``terminate``: SIGTERM; ``full``: the disk has no space left; ``nan``: the network's weights become
NaN. With a RANK it strikes in that one of the processes that the stage starts. The limits: no file may be longer than
BYTES; the process may have so much more memory than it has once it has loaded its code. What a file system may lack:
locks, as NFS (ENOLCK) and Lustre (ENOSYS) say it, and Windows; flushing; renaming over a file that is mounted. NAME may
not be read.
"""

import builtins
import errno
import io
import os
import resource
import runpy
import signal
import stat
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


class HalfWritten:
    """A file, of whose next content only one half is written before the fault strikes."""

    def __init__(self, file: Any, strike: Callable[[Any], None], name: str) -> None:
        self._file, self._strike, self._name = file, strike, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "HalfWritten":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, content: Any) -> int:
        half = len(content) // 2
        self._file.write(content[:half])
        self._file.flush()
        self._strike(self._name)
        return half + self._file.write(content[half:])


def killed(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminated(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def full(_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def not_a_number(trainer: Any) -> None:
    for parameter in trainer.model.parameters():
        parameter.data.fill_(float("nan"))


ACTIONS: dict[str, Callable[[Any], None]] = {"kill": killed, "terminate": terminated, "full": full, "nan": not_a_number}


def plant(action: str, place: str, pattern: str, number: int) -> None:
    """Let the fault strike at its place."""
    passed = 0

    def strike(name: str, subject: Any = None) -> None:
        nonlocal passed
        passed += fnmatch(name, pattern)
        if passed == number and fnmatch(name, pattern):
            ACTIONS[action](subject)

    match place:
        case "write":
            plant_in_writing(strike)
        case "fsync":
            plant_before(os, "fsync", lambda file: strike(Path(f"/proc/self/fd/{file}").readlink().name))
        case "rename":
            plant_before(os, "replace", lambda _, name: strike(Path(name).name))
        case "renamed":
            plant_after(os, "replace", lambda _, name: strike(Path(name).name))
        case "unlink":
            plant_before(os, "unlink", lambda name, **_: strike(Path(name).name))
        case "step":
            prepare_stage()
            from cclnet.training.trainer import Trainer

            plant_before(Trainer, "_step", lambda trainer, _: strike("*", trainer))
        case _:
            raise ValueError(place)


def prepare_stage() -> None:
    """Set what a stage sets before it loads torch; needed wherever a fault is planted in code that loads it."""
    import stages

    stages.prepare()


def plant_before(owner: Any, name: str, strike: Callable[..., None]) -> None:
    original = getattr(owner, name)

    def replacement(*arguments: Any, **named: Any) -> Any:
        strike(*arguments, **named)
        return original(*arguments, **named)

    setattr(owner, name, replacement)


def plant_after(owner: Any, name: str, strike: Callable[..., None]) -> None:
    original = getattr(owner, name)

    def replacement(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        strike(*arguments, **named)
        return result

    setattr(owner, name, replacement)


def plant_in_writing(strike: Callable[[str], None]) -> None:
    original = io.open

    def replacement(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        opened = original(file, mode, *arguments, **named)
        if isinstance(file, str | Path) and set(mode) & set("wax+"):
            return HalfWritten(opened, strike, Path(file).name)
        return opened

    io.open = builtins.open = replacement


def plant_in_processes() -> None:
    """Let the processes that the stage starts run this script, with the same arguments, instead of the stage."""
    prepare_stage()
    from torch.distributed.launcher import api

    this = list(sys.argv)  # the stage gets another

    class Planted(api.elastic_launch):
        def __call__(self, *_: str) -> Any:
            return super().__call__(*this)

    api.elastic_launch = Planted


def failing(number: int) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def take_away(what: str) -> None:
    """Let the file systems lack something."""
    from cclnet.system import locks

    fsync, replace = os.fsync, os.replace

    def fsync_of_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    def replace_nothing(source: Any, target: Any) -> None:
        if Path(target).exists():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        replace(source, target)

    match what:
        case "flock":
            locks.fcntl.flock = failing(errno.ENOLCK)  # pyright: ignore[reportOptionalMemberAccess]
        case "flock-ENOSYS":
            locks.fcntl.flock = failing(errno.ENOSYS)  # pyright: ignore[reportOptionalMemberAccess]
        case "fcntl":
            locks.fcntl = None
        case "fsync":
            os.fsync = failing(errno.EINVAL)
        case "fsync-of-folders":
            os.fsync = fsync_of_files
        case "rename":
            os.replace = replace_nothing
        case _:
            raise ValueError(what)


def make_unreadable(pattern: str) -> None:
    original = io.open

    def replacement(file: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(file, str | Path) and fnmatch(Path(file).name, pattern):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return original(file, *arguments, **named)

    io.open = builtins.open = replacement


def limit(kind: int, size: int) -> None:
    resource.setrlimit(kind, (size, size))


def limit_further_memory(size: int) -> None:
    """Load what a stage loads, so that the limit meets its work and not its start."""
    prepare_stage()
    import torch

    import cclnet.networks.model_file
    import cclnet.training.loop  # noqa: F401

    torch.ones(512, 512).mm(torch.ones(512, 512))  # starts the threads
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit(resource.RLIMIT_AS, pages * resource.getpagesize() + size)


if __name__ == "__main__":
    stage = sys.argv[1]
    match sys.argv[2:]:
        case ["none"]:
            pass
        case ["file-size", size]:
            limit(resource.RLIMIT_FSIZE, int(size))
        case ["memory", size]:
            limit_further_memory(int(size))
        case ["lacks", what]:
            take_away(what)
        case ["unreadable", pattern]:
            make_unreadable(pattern)
        case [action, place, pattern, number, rank] if "RANK" in os.environ:
            if os.environ["RANK"] == rank:
                plant(action, place, pattern, int(number))
        case [_, _, _, _, _]:
            plant_in_processes()
        case [action, place, pattern, number]:
            plant(action, place, pattern, int(number))
        case other:
            raise ValueError(other)
    del sys.argv[1:]  # they are this program's, and a stage takes none
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
