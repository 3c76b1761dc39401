"""Processes that end when the one that started them ends."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from cclnet.system.interruption import interruptible
from studies.running.settings import ROOT

INTERVAL = 0.1
"""Seconds between two checks of a running process."""


def start_module(
    module: str, arguments: Sequence[str], folder: Path, log: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``python -m module`` in a folder; it ends when this process ends.

    It has its own session, so Ctrl-C reaches only this process, which then ends it with one signal.

    Args:
        module: full name of the module.
        arguments: its arguments.
        folder: its working folder; this checkout's modules can be imported in any folder.
        log: receives its output; None for the terminal.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("DVC_ROOT", None)  # the folder is a separate project root
    command = [sys.executable, "-m", "studies.running.bound", str(os.getpid()), module, *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)  # noqa: S603


def end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask running processes to end and wait for them, because a training saves its state first."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


def status_of(process: subprocess.Popen[bytes]) -> int:
    """Wait for the exit status of a process; end it if this process is asked to end.

    Raises:
        InterruptionError: SIGINT or SIGTERM was received; the process has ended.
    """
    with interruptible() as end_if_asked_to:
        try:
            while process.poll() is None:
                end_if_asked_to()
                time.sleep(INTERVAL)
        finally:
            end_all([process])
    return process.returncode
