"""No process outlives the one that started it, however that ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from studies.running.processes import end_all, start_module, status_of
from studies.running.settings import ROOT
from tests.studies.running.waiting import id_in, is_running, wait_until

RUNNER = """
from cclnet.system.errors import errors_in_one_line
from studies.running.runner import Job, run_all
with errors_in_one_line("runner"):
    run_all("test", [Job(name, "tests.studies.running.sleeper", [name, "1"]) for name in {names!r}], {at_once})
"""


def start_runner(names: list[str], at_once: int) -> subprocess.Popen[str]:
    """A runner of sleepers that each wait for a second one, as a cell waits for its stage."""
    code = RUNNER.format(names=names, at_once=at_once)
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_runner_that_is_ended_leaves_no_process_behind(tmp_path: Path, number: int, status: int):
    names = [str(tmp_path / name) for name in "ab"]
    runner = start_runner(names, at_once=2)
    processes = [id_in(Path(f"{name}.{depth}")) for name in names for depth in (0, 1)]
    assert all(map(is_running, processes))
    runner.send_signal(number)
    _, printed = runner.communicate()
    assert runner.returncode == status
    wait_until(lambda: not any(map(is_running, processes)), "a process is still running")
    if number != signal.SIGKILL:
        name = signal.Signals(number).name
        assert f"runner: ended by {name}; what is done is kept, run it again" in printed


def test_a_process_whose_parent_is_killed_ends_the_next_one_too(tmp_path: Path):
    process = start_module("tests.studies.running.sleeper", [str(tmp_path / "a"), "2"], ROOT)
    others = [id_in(tmp_path / f"a.{depth}") for depth in (1, 0)]
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_running, others)), "a process is still running")


def test_a_process_started_by_one_that_is_gone_ends(tmp_path: Path):
    """The parent may be killed before the new process has looked at it for the first time."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-m", "studies.running.bound", str(gone.pid), "tests.studies.running.sleeper"]
    finished = subprocess.run([*command, str(tmp_path / "a")], cwd=ROOT, check=False, timeout=120)
    assert finished.returncode == -signal.SIGTERM


def test_a_module_runs_as_with_python_m(tmp_path: Path):
    (tmp_path / "shown.py").write_text("import sys\nprint(__name__, __spec__.name, sys.argv[1:])\nsys.exit(7)\n")
    with (tmp_path / "log").open("w+b") as log:
        assert status_of(start_module("shown", ["a b", "--c"], tmp_path, log)) == 7
        log.seek(0)
        assert log.read().decode() == "__main__ shown ['a b', '--c']\n"


def test_a_process_that_has_ended_is_left_alone(tmp_path: Path):
    (tmp_path / "short.py").touch()
    process = start_module("short", [], tmp_path)
    process.wait()
    end_all([process])
    assert process.returncode == 0
