"""Stages forked off a process that has loaded their libraries, because loading takes most of the time of a short run.

``faults.py`` starts this file as a program in the folder of a run. It reads a JSON line for each process that is asked
for, and answers with the number of the process, which becomes a child of the one that asks.
"""

import ctypes
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

PLANTED = Path(__file__).resolve().with_name("planted.py")
LIBRARIES = (
    "cclnet.dataset.download", "cclnet.dataset.splits", "cclnet.experiments.run", "cclnet.inference.examples",
    "cclnet.metrics.score_table", "cclnet.networks.model_file", "cclnet.training.loop", "cclnet.views.figures",
    "cclnet.views.page",
)  # fmt: skip
"""What imports all that the stages import."""


def serve() -> None:
    """Fork off a process for each line of standard input; in that process, return when its stage has ended."""
    import_module("stages").prepare()
    for name in LIBRARIES:
        import_module(name)
    while line := sys.stdin.readline():
        reading, writing = os.pipe()
        if between := os.fork():  # ends at once, so that its child is given to the process that asks
            os.waitpid(between, 0)
            os.write(1, os.read(reading, 20))
            os.close(reading)
            os.close(writing)
        elif number := os.fork():
            os.write(writing, b"%d\n" % number)
            os._exit(0)
        else:
            os.close(reading)
            os.close(writing)
            run_stage(**json.loads(line))
            return


def run_stage(folder: str, stage: str, fault: list[str], stderr: str) -> None:
    """Be the process of a stage, perhaps with a fault planted in it."""
    os.chdir(folder)
    for stream, path in enumerate((os.devnull, os.devnull, stderr)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, stream)
        os.close(opened)
    if fault:
        sys.argv = [str(PLANTED), stage, *fault]
        runpy.run_path(str(PLANTED), run_name="__main__")
    else:
        sys.argv = [stage]
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)


class Process:
    """A forked process, with what the campaigns use of ``subprocess.Popen``."""

    def __init__(self, pid: int, stderr: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._stderr = stderr

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if (status := self.poll()) is not None:
            return status
        file = os.pidfd_open(self.pid)
        try:
            ready = select.poll()
            ready.register(file, select.POLLIN)
            if not ready.poll(None if timeout is None else 1000 * timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        finally:
            os.close(file)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        self.wait(timeout)
        return None, self._stderr.read_text(encoding="utf-8")

    def send_signal(self, kind: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, kind)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """Starts stages in forked processes; the first one decides the environment and the params of the libraries.

    Args:
        folder: for what the processes write to standard error.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._server: subprocess.Popen[str] | None = None
        self._alone = threading.Lock()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, folder: Path, environment: dict[str, str], stage: str, *fault: str) -> Process:
        with self._alone:
            if not self._server:
                pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
                self._server = subprocess.Popen([sys.executable, __file__], cwd=folder, env=environment, **pipes)
            self._count += 1
            stderr = self._folder / f"stderr {self._count}"
            request = {"folder": str(folder), "stage": stage, "fault": fault, "stderr": str(stderr)}
            assert self._server.stdin and self._server.stdout
            self._server.stdin.write(f"{json.dumps(request)}\n")
            self._server.stdin.flush()
            return Process(int(self._server.stdout.readline()), stderr)

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        if self._server:
            self._server.communicate()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


_PR_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h

if __name__ == "__main__":
    serve()
