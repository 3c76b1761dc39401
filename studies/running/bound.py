"""Run a module like ``python -m``, and end it when the process that started it has ended.

    python -m studies.running.bound PARENT MODULE [ARGUMENT …]

A killed process cannot end its child processes, so they check for it themselves. Only the standard library is imported
here, because a stage has to prepare the processor before NumPy is loaded.
"""

import os
import runpy
import signal
import sys
import threading
import time

INTERVAL = 0.5
"""Seconds between two checks of the parent."""

GRACE = 60.0
"""Seconds after SIGTERM in which a training may finish its step and save its state."""


def end_with(parent: int) -> None:
    """Send SIGTERM to this process when its parent has changed, and SIGKILL if it still runs after ``GRACE``."""
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parent, module, *arguments = sys.argv[1:]
    threading.Thread(target=end_with, args=[int(parent)], daemon=True).start()
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
