"""One process at a time for a result."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from studies.running.locks import BusyError, locked
from studies.running.settings import ROOT
from tests.studies.running.waiting import wait_until

HOLDER = """
import sys, time
from pathlib import Path
from studies.running.locks import locked
with locked(Path(sys.argv[1]), wait=True):
    Path(sys.argv[2]).write_text("held")
    time.sleep(float(sys.argv[3]))
"""


def hold(lock: Path, mark: Path, seconds: float) -> subprocess.Popen[bytes]:
    """A process that holds the lock; it writes the mark as soon as it does."""
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(lock), str(mark), str(seconds)], cwd=ROOT)


def test_a_lock_is_held_by_one_process_and_names_it(tmp_path: Path):
    lock = tmp_path / "new" / "cell-0.lock"
    holder = hold(lock, tmp_path / "mark", 600)
    wait_until((tmp_path / "mark").is_file, "the lock is not held")
    with pytest.raises(BusyError, match=f"^process {holder.pid} is at work on cell-0; wait for it$"), locked(lock):
        pass
    holder.kill()
    holder.wait()
    with locked(lock):  # the file of a killed process is no lock
        assert lock.read_text(encoding="ascii") == str(os.getpid())
    assert not lock.exists()


def test_a_lock_can_be_waited_for(tmp_path: Path):
    lock = tmp_path / "lock"
    with locked(lock):
        holder = hold(lock, tmp_path / "mark", 0)
        wait_until(lambda: opened(lock) > 1, "the other process has not come to the lock")
        assert not (tmp_path / "mark").exists()
    holder.wait()
    assert (tmp_path / "mark").exists() and not lock.exists()


def opened(path: Path) -> int:
    """How many processes have a file open, as Linux tells it; elsewhere enough not to wait."""
    if not Path("/proc/self/fd").is_dir():
        return 2
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += any(file.samefile(path) for file in (process / "fd").iterdir() if file.exists())
        except OSError:
            continue
    return found


def test_a_file_system_without_locks_is_named_and_does_not_end_the_work(tmp_path, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock"):
        pass
    assert capsys.readouterr().err == (
        f"{tmp_path / 'lock'} cannot be locked (No locks available): start no second run of it\n"
    )
