"""Run a module as ``python -m`` does, and end it when the process that started it is gone.

    python -m studies.running.bound PARENT MODULE [ARGUMENT …]

A process that is killed cannot end those that it started, so these look after themselves. Nothing but the standard
library is imported here: a stage has to prepare the processor before NumPy is loaded.
"""

import os
import runpy
import signal
import sys
import threading
import time

INTERVAL = 0.5
"""Seconds between two looks at the parent."""

GRACE = 60.0
"""Seconds that a training has, after SIGTERM, to finish its step and to save its state."""


def end_with(parent: int) -> None:
    """Send this process SIGTERM when its parent has changed, and SIGKILL if it is still there after ``GRACE``."""
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
