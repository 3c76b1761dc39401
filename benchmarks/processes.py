"""Two processes that train one network together, on a core each, beside one process on one core."""

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.measure import Comparison, Series, Target, in_turn
from benchmarks.settings import Settings
from benchmarks.training import TINY, Case, large_images, small_images, training_set
from cclnet.errors import CCLNetError

COUNT = 2
STEPS = {"small": 3, "large": 2}


def run(settings: Settings) -> list[Comparison]:
    """ResNet-18 on small images and on large ones; every batch is shared."""
    cases = [TINY] if settings.tiny else [small_images(STEPS["small"], "cpu"), large_images(STEPS["large"], "cpu")]
    return [compare(case, settings) for case in cases]


def compare(case: Case, settings: Settings) -> Comparison:
    """Both on one size of images."""
    with tempfile.TemporaryDirectory() as folder:
        training_set(case, settings, Path(folder))
        contenders = {str(count): partial(in_processes, count, Path(folder), case) for count in (1, COUNT)}
        one, several = in_turn(contenders, settings.repetitions, warm_up=False).values()
    expected = Series(f"{COUNT} × one process", [COUNT * value for value in one.values])
    measured = Series(f"{COUNT} processes", several.values)
    return Comparison(str(case), "images/s", measured, expected, Target(low=0.9))


def in_processes(count: int, folder: Path, case: Case) -> float:
    """The images a second of so many processes.

    Raises:
        CCLNetError: one of them failed.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command = [*torchrun, "-m", "benchmarks.rank", str(folder), json.dumps(case)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if finished.returncode:
        raise CCLNetError(f"{count} processes ended with exit status {finished.returncode}: {finished.stderr}")
    return float(finished.stdout)
