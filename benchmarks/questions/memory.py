"""Peak memory of a stage's process with ten times the images, compared with the original number."""

import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.catalogue import Settings
from benchmarks.images import write_dataset
from benchmarks.measure import Comparison, Series, Target
from cclnet.dataset.isic import CLASSES
from cclnet.dataset.sample import CLASS_POINTS, Photograph, draw_lesion, encode, photograph
from cclnet.system.errors import CCLNetError
from studies.running.projects import run_stage, start_project, start_stage

IMAGES, TIMES = 600, 10
MEASURED = ("resize", "train", "evaluate")
PARAMS = {
    "dataset": "isic2018_64",
    "backbone": "mobilenet_v2",
    "epochs": "1",
    "milestones": "[]",
    "validation_fraction": "0.5",
}
INTERVAL = 0.005
"""Seconds between two measurements."""


class Peak(NamedTuple):
    """The peak memory of a process, in MiB.

    Attributes:
        own: anonymous memory (the kernel's RssAnon).
        resident: including pages of mapped files (VmHWM), which the kernel can reclaim.
    """

    own: float
    resident: float


def run(settings: Settings) -> list[Comparison]:
    """Measure all stages that process the images."""
    number = 100 if settings.tiny else IMAGES
    measured = MEASURED[:1] if settings.tiny else MEASURED
    rounds = [[peaks(count, measured) for count in (number, TIMES * number)] for _ in range(settings.repetitions)]
    comparisons = []
    for stage in measured:
        for kind, words, target in (("own", "memory of its own", Target(high=1.1)), ("resident", "with files", None)):
            few, many = ([getattr(one[place][stage], kind) for one in rounds] for place in range(2))
            many, few = Series(f"{TIMES * number:,} images", many), Series(f"{number:,} images", few)
            comparisons.append(Comparison(f"{stage}, {words}", "MiB", many, few, target))
    return comparisons


def peaks(images: int, measured: tuple[str, ...]) -> dict[str, Peak]:
    """Run the pipeline on ``images`` images and return the peak memory of the measured stages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "data" / "raw", small_photographs(images))
        start_project(folder, PARAMS)
        run_stage("split", folder)
        return {stage: watched(start_stage(stage, folder)) for stage in measured}


def small_photographs(number: int) -> list[Photograph]:
    """Images in the size of the embedded sample: one of each class, repeated."""
    random = np.random.default_rng(0)
    files = [encode(photograph(random, draw_lesion(random, point))) for point in CLASS_POINTS.values()]
    return [Photograph(CLASSES[place % 7], place, files[place % 7]) for place in range(number)]


def watched(process: subprocess.Popen[bytes]) -> Peak:
    """Monitor the memory of a process until it ends.

    Raises:
        CCLNetError: it failed.
    """
    status = Path(f"/proc/{process.pid}/status")
    own = resident = 0.0
    while process.poll() is None:
        held = {name: value for name, _, value in (line.partition(":") for line in status.read_text().splitlines())}
        own = max(own, mebibytes(held.get("RssAnon")))
        resident = max(resident, mebibytes(held.get("VmHWM")))
        time.sleep(INTERVAL)
    if process.returncode:
        raise CCLNetError(f"a stage ended with exit status {process.returncode}")
    return Peak(own, resident)


def mebibytes(text: str | None) -> float:
    """Convert ``1024 kB`` to 1; None, as for a process that has just ended, gives 0."""
    return float(text.split()[0]) / 1024 if text else 0.0
