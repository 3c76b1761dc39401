"""Two processes that train one network together, on a core each, beside one process on one core."""

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.measure import Comparison, Series, Target, in_turn
from benchmarks.settings import Settings
from benchmarks.training import TINY, Case, small_images, training_set
from cclnet.errors import CCLNetError

COUNT, STEPS = 2, 3


def run(settings: Settings) -> list[Comparison]:
    """ResNet-18 on small images; every batch is shared."""
    case = TINY if settings.tiny else small_images(STEPS, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        training_set(case, settings, Path(folder))
        contenders = {str(count): partial(in_processes, count, Path(folder), case) for count in (1, COUNT)}
        one, several = in_turn(contenders, settings.repetitions, warm_up=False).values()
    expected = Series(f"{COUNT} × one process", [COUNT * value for value in one.values])
    measured = Series(f"{COUNT} processes", several.values)
    return [Comparison(str(case), "images/s", measured, expected, Target(low=0.9))]


def in_processes(count: int, folder: Path, case: Case) -> float:
    """The images a second of so many processes.

    Raises:
        CCLNetError: one of them failed.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command = [*torchrun, "-m", "benchmarks.process", str(folder), json.dumps(case)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if finished.returncode:
        raise CCLNetError(f"{count} processes ended with exit status {finished.returncode}: {finished.stderr}")
    return float(finished.stdout)
