import errno
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cclnet.system import locks
from cclnet.system.errors import CCLNetError
from cclnet.system.locks import Locking, lock, only_process

PROJECT = Path(__file__).parents[2]
DOING = "is training in this folder"

HOLDS = """
import sys
from pathlib import Path
from cclnet.system.locks import only_process
with only_process(Path(sys.argv[1]), "is training in this folder"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_the_first_one_s_number_until_that_is_killed(tmp_path: Path):
    file = tmp_path / "new" / "lock"
    command = [sys.executable, "-c", HOLDS, str(file)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "locked\n"
        refusal = f"process {owner.pid} {DOING} already; wait for it, or end it with: kill {owner.pid}"
        for _ in range(2):  # a refused one leaves the number there
            with pytest.raises(CCLNetError) as refused, only_process(file, DOING):
                pass
            assert str(refused.value) == refusal
        owner.kill()
    with only_process(file, DOING):
        assert file.read_text() == f"{os.getpid()} {socket.gethostname()}"


def test_the_lock_ends_with_the_block_and_after_an_error(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), only_process(tmp_path / "lock", DOING):
        raise ZeroDivisionError
    with (
        only_process(tmp_path / "lock", DOING),
        pytest.raises(CCLNetError, match=f"process {os.getpid()} is"),
        only_process(tmp_path / "lock", DOING),
    ):
        pass
    with only_process(tmp_path / "lock", DOING):
        pass


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        ("4711 node17", "process 4711 on node17 sleeps already; wait for it, or end it there with: kill 4711"),
        ("", "another process sleeps already; wait for it"),
    ],
)
def test_a_process_of_another_machine_is_not_to_be_killed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str, said: str
):
    (tmp_path / "lock").write_text(owner)
    monkeypatch.setattr(locks, "lock", lambda file: Locking.BUSY)
    with pytest.raises(CCLNetError) as refused, only_process(tmp_path / "lock", "sleeps"):
        pass
    assert str(refused.value) == said


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, None])
def test_without_locks_one_warning_is_given_and_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int | None
):
    def refuse(*_: Any) -> None:
        assert number is not None
        raise OSError(number, os.strerror(number))

    if number is None:
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", refuse)
    done = False
    with caplog.at_level(logging.WARNING), only_process(tmp_path / "lock", DOING):
        done = True
    assert done
    assert caplog.messages == [f"{tmp_path / 'lock'} cannot be locked here: make sure that no second process {DOING}"]


def test_a_disk_that_fails_is_no_missing_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", fail)
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="Input/output error"):
        lock(file)


IMPORTS_ALL = """
import sys
sys.modules["fcntl"] = None
from importlib import import_module
from pathlib import Path
for path in sorted(Path("cclnet").rglob("*.py")):
    parts = path.with_suffix("").parts
    if parts[-1] != "__main__":
        import_module(".".join(parts).removesuffix(".__init__"))
"""


def test_every_module_is_imported_without_fcntl():
    ended = subprocess.run([sys.executable, "-c", IMPORTS_ALL], cwd=PROJECT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
