"""Stands for a training in the tests of processes: writes its id into a file and waits.

    python -m studies.running.bound PARENT tests.studies.running.sleeper FILE [DEPTH]

With a depth, it waits for a sleeper of its own. SIGTERM ends it at once, with the status 143 of a training.
"""

import os
import sys
import time
from pathlib import Path

from cclnet.system.errors import errors_in_one_line
from studies.running.processes import start_module, status_of
from studies.running.settings import ROOT


def main() -> int:
    file, depth = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    (file.parent / f"{file.name}.{depth}").write_text(str(os.getpid()), encoding="ascii")
    if depth:
        return status_of(start_module("tests.studies.running.sleeper", [str(file), str(depth - 1)], ROOT))
    time.sleep(600)
    return 0


if __name__ == "__main__":
    with errors_in_one_line("sleeper"):
        sys.exit(main())
