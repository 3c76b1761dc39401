"""The small chain of ``golden.py`` on several processors: a table of sha256 by file and machine.

    make everywhere

The others than this machine's are emulated by qemu-user (Debian and Ubuntu: ``apt-get install qemu-user``), two
minutes each. A control shows that the comparison can fail: run natively, the emulated machine gives other bytes.
Exit status 0: all machines agree and the control differs; 1 otherwise.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

GOLDEN = Path(__file__).with_name("golden.py")
EMULATED = ("EPYC-Milan", "Haswell")
DEPENDS_ON_TRAINING = "models/model.safetensors"


def hashes_on(machine: str | None, processor: str) -> dict[str, str]:
    """Path → sha256 of what the small chain leaves on an emulated machine, or on this one (None)."""
    emulator = ["qemu-x86_64", "-cpu", machine] if machine else []
    # threads that wait by spinning take an emulated processor from those that work
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as folder:
        command = [*emulator, sys.executable, str(GOLDEN), folder, processor]
        finished = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
        )
    return json.loads(finished.stdout[finished.stdout.index("{") :])


def main() -> int:
    console = Console(width=120 if not sys.stdout.isatty() else None)
    if not shutil.which("qemu-x86_64"):
        console.print("everywhere: qemu-x86_64 is not installed; on Debian and Ubuntu: apt-get install qemu-user")
        return 1
    runs = {
        "this machine": (None, "portable"),
        **{machine: (machine, "portable") for machine in EMULATED},
        "this machine, native": (None, "native"),
        f"{EMULATED[-1]}, native": (EMULATED[-1], "native"),
    }
    console.print(f"running on {'; '.join(runs)}, some minutes")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # an emulated process keeps one core busy most of the time
        columns = dict(zip(runs, pool.map(lambda run: hashes_on(*run), runs.values()), strict=True))
    table = Table("file", *columns)
    for path in columns["this machine"]:
        table.add_row(path, *(hashes[path][:12] for hashes in columns.values()))
    console.print(table)
    portable = [hashes for name, hashes in columns.items() if not name.endswith("native")]
    equal = all(hashes == portable[0] for hashes in portable)
    here, there = (hashes[DEPENDS_ON_TRAINING] for name, hashes in columns.items() if name.endswith("native"))
    console.print(f"portable: {'equal on all machines' if equal else 'DIFFERENT'}")
    console.print(f"control, native: the trained models {'differ, as they should' if here != there else 'ARE EQUAL'}")
    return int(not equal or here == there)


if __name__ == "__main__":
    sys.exit(main())
