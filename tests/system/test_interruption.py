import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cclnet.system import interruption
from cclnet.system.interruption import InterruptionError, end_at_once_while_loading, end_with_dvc, interruptible

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_end_of_the_step(number: signal.Signals, status: int):
    with interruptible() as end_if_asked_to:
        end_if_asked_to()
        signal.raise_signal(number)
        done = True
        with pytest.raises(InterruptionError, match=f"ended by {number.name}; what is done is kept") as ended:
            end_if_asked_to()
    assert done
    assert ended.value.exit_status == status


@pytest.mark.parametrize("agreed", [0, signal.SIGTERM])
def test_what_all_agree_upon_counts(agreed: int):
    said = []

    def agree(number: int) -> int:
        said.append(number)
        return agreed

    with interruptible(agree) as end_if_asked_to:
        for _ in range(2):
            try:
                end_if_asked_to()
            except InterruptionError as ended:
                assert ended.exit_status == 128 + agreed
            else:
                assert agreed == 0
            if len(said) == 1:
                signal.raise_signal(signal.SIGINT)
    assert said == [0, signal.SIGINT]


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), interruptible():
        assert signal.getsignal(signal.SIGINT) is not before[0]
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


STUCK = """
import time
from cclnet.system.interruption import interruptible
with interruptible():
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
"""


def test_a_second_signal_does_not_wait():
    with subprocess.Popen([sys.executable, "-c", STUCK], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()  # without effect on a process that has ended
    assert process.returncode == -signal.SIGTERM


def test_a_process_that_is_one_of_several_finishes_its_step_whatever_comes():
    with interruptible(insist=False) as end_if_asked_to:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(InterruptionError, match="SIGTERM"):
            end_if_asked_to()


# before errors can be handled


def test_ctrl_c_while_libraries_load_ends_the_process_at_once():
    code = (
        "import time\nfrom cclnet.system.interruption import end_at_once_while_loading\n"
        "end_at_once_while_loading()\nprint('loading', flush=True)\ntime.sleep(60)"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (-signal.SIGINT, "")


def test_ctrl_c_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        end_at_once_while_loading()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# with the DVC that has started it

STAGE = """
import os, sys, time
from pathlib import Path
from cclnet.system.interruption import InterruptionError, end_with_dvc, interruptible
seconds = float(sys.argv[1])
end_with_dvc()
Path("pid").write_text(str(os.getpid()))
if seconds:
    with interruptible() as end_if_asked_to:
        try:
            while True:
                time.sleep(seconds)  # a step
                Path("state").write_text("kept")
                end_if_asked_to()
        except InterruptionError as error:
            Path("ended").write_text(str(error.exit_status))
else:
    time.sleep(60)
    Path("ended").write_text("never")
"""

# starts a stage as DVC does; the shell is a process of its own if there is a command after the stage's
DVC = """
import os, subprocess, sys
shell, *command = sys.argv[1:]
variables = {"DVC_STAGE": "train", "DVC_ROOT": os.getcwd()} if shell != "none" else {}
line = [command] if shell != "sh" else [["sh", "-c", '"$0" "$@"; exit $?', *command]]
subprocess.Popen(*line, env=os.environ | variables).communicate()
"""


def started(tmp_path: Path, shell: str, seconds: float) -> tuple[subprocess.Popen[bytes], int]:
    """What stands for DVC, and the number of its stage, which is at work."""
    stage = [sys.executable, "-c", STAGE, str(seconds)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC")}
    environment |= {"PYTHONPATH": str(PROJECT)}
    with (tmp_path / "err").open("wb") as err:
        dvc = subprocess.Popen([sys.executable, "-c", DVC, shell, *stage], cwd=tmp_path, env=environment, stderr=err)
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.02)
    time.sleep(0.3)  # the thread that watches DVC starts
    return dvc, int(pid.read_text())


def is_alive(process: int) -> bool:
    with suppress(OSError):
        return b") Z " not in Path(f"/proc/{process}/stat").read_bytes()
    return False


def ends_within(process: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and is_alive(process):
        time.sleep(0.02)
    return not is_alive(process)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("shell", ["", "sh"])
def test_a_stage_ends_after_its_step_when_its_dvc_is_killed(tmp_path: Path, kill: signal.Signals, shell: str):
    dvc, stage = started(tmp_path, shell, 0.2)
    assert is_alive(stage)
    dvc.send_signal(kill)
    dvc.wait()
    assert ends_within(stage, 20)
    assert (tmp_path / "ended").read_text() == "143"
    assert (tmp_path / "state").read_text() == "kept"
    said = f"DVC, process {dvc.pid}, has ended before this stage, which ends now, too\n"
    assert (tmp_path / "err").read_text() == said


def test_a_signal_to_dvc_and_its_stage_alike_lets_the_step_end(tmp_path: Path):
    dvc, stage = started(tmp_path, "", 2.0)
    os.kill(stage, signal.SIGTERM)
    dvc.terminate()
    dvc.wait()
    assert ends_within(stage, 30)
    assert (tmp_path / "ended").read_text() == "143"
    assert (tmp_path / "state").read_text() == "kept"


def test_a_stage_that_has_no_steps_ends_at_once(tmp_path: Path):
    dvc, stage = started(tmp_path, "sh", 0)
    dvc.kill()
    dvc.wait()
    assert ends_within(stage, 20)
    assert not (tmp_path / "ended").exists()


def test_what_dvc_has_not_started_goes_on_without_its_parent(tmp_path: Path):
    parent, process = started(tmp_path, "none", 0.2)
    parent.kill()
    parent.wait()
    assert not ends_within(process, 3)
    os.kill(process, signal.SIGKILL)
    assert (tmp_path / "err").read_text() == ""


def test_where_processes_have_no_handles_their_parents_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interruption, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    parents = iter([4711, 4711, 4711, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(interruption, "_mark", lambda process: b"")
    asked = []
    monkeypatch.setattr(interruption, "_ask_to_end", lambda: asked.append(True))
    interruption._end_after(interruption._dvc())
    assert asked == [True]
    assert next(parents, None) is None


def test_no_watch_is_kept_without_dvc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr("threading.Thread", None)
    end_with_dvc()
