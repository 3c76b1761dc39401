"""Two processes that train one network together, on one core each, compared with one process on one core.

They are also compared with two independent trainings at the same time, whose loss of speed is due to the machine and
not to the exchange of gradients.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.catalogue import Settings
from benchmarks.measure import Comparison, Series, Target
from benchmarks.training import TINY, Case, large_images, small_images, training_set
from cclnet.system.errors import CCLNetError

COUNT = 2
STEPS = {"small": 3, "large": 2}


def run(settings: Settings) -> list[Comparison]:
    """Measure ResNet-18 on small and on large images; every batch is divided among the processes."""
    cases = [small_images(STEPS["small"], "cpu"), large_images(STEPS["large"], "cpu")]
    return [row for case in ([TINY] if settings.tiny else cases) for row in compare(case, settings)]


def compare(case: Case, settings: Settings) -> list[Comparison]:
    """Compare joint and independent training with a multiple of the speed of one process."""
    with tempfile.TemporaryDirectory() as folder:
        training_set(case, settings, Path(folder))
        speeds = in_processes(Path(folder), case, settings.repetitions)
    expected = Series(f"{COUNT} × one process", [COUNT * value for value in speeds["one"]])
    together, apart = (Series(f"{COUNT} {how}", speeds[how]) for how in ("together", "apart"))
    return [
        Comparison(str(case), "images/s", together, apart, Target(low=0.95)),
        Comparison(str(case), "images/s", together, expected),
        Comparison(str(case), "images/s", apart, expected),
    ]


def in_processes(folder: Path, case: Case, repetitions: int) -> dict[str, list[float]]:
    """Run ``benchmarks.rank`` and return its measurements.

    Raises:
        CCLNetError: one of the processes failed.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={COUNT}"]
    command = [*torchrun, "-m", "benchmarks.rank", str(folder), json.dumps(case), str(repetitions)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if finished.returncode:
        raise CCLNetError(f"{COUNT} processes ended with exit status {finished.returncode}: {finished.stderr}")
    return json.loads(finished.stdout)
