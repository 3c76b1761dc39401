"""Training beside busy programs, compared with its share of an idle machine; and the cost of short waiting.

``cclnet.system.machine`` lets torch's threads sleep soon while they wait. The setting is read when torch is loaded, so
every measurement is a new process: ``python -m benchmarks.questions.waiting FOLDER CASE``.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING

from cclnet.system.machine import keep_freed_memory, prepare_processor

if TYPE_CHECKING:
    from benchmarks.catalogue import Settings
    from benchmarks.measure import Comparison

BUSY = 4
"""Number of other programs, each of which always has work for one core."""
STEPS, EPOCHS = 8, 3
DEFAULT = {"GOMP_SPINCOUNT": "300000"}
"""How long libgomp lets a thread wait by default before it sleeps, if the threads are no more than the cores."""


def run(settings: "Settings") -> "list[Comparison]":
    """Measure small images in small batches, which have the most waiting."""
    from benchmarks.measure import Comparison, Series, Target, in_turn
    from benchmarks.training import TINY, Case, training_set

    case = TINY if settings.tiny else Case("resnet18", 36, 32, 32, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        training_set(case, settings, Path(folder))
        one = partial(in_new_process, Path(folder), case)
        contenders = {"alone": one, "alone, waiting as by default": partial(one, DEFAULT)}
        contenders |= {"beside busy programs": partial(beside_busy, one)}
        contenders |= {"beside busy programs, waiting as by default": partial(beside_busy, partial(one, DEFAULT))}
        alone, default, beside, default_beside = in_turn(contenders, settings.repetitions, warm_up=False).values()
    share = Series(f"1/{BUSY} of the speed alone", [value / BUSY for value in alone.values])
    return [
        Comparison(f"{case}, {BUSY} busy programs", "images/s", beside, share, Target(low=0.9)),
        Comparison(f"{case}, {BUSY} busy programs", "images/s", default_beside, share),
        Comparison(str(case), "images/s", alone, default, Target(low=0.98)),
    ]


def in_new_process(folder: Path, case: tuple, environment: Mapping[str, str] = MappingProxyType({})) -> float:
    """Images per second of training in a process with these variables of the environment."""
    command = [sys.executable, "-m", "benchmarks.questions.waiting", str(folder), json.dumps(case)]
    finished = subprocess.run(command, env=os.environ | environment, check=True, capture_output=True, text=True)  # noqa: S603
    return float(finished.stdout)


def beside_busy(measure: partial) -> float:
    """The same measurement while other programs are busy."""
    with busy_programs():
        return measure()


@contextmanager
def busy_programs() -> Iterator[None]:
    """Other programs, each busy on one core until the block ends."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def main(folder: Path, case: list) -> None:
    """Print the median of some epochs after a first one that is not counted."""
    keep_freed_memory()
    prepare_processor("native", None)  # before NumPy and torch are imported

    from benchmarks.training import Case, all_of, new_trainer, speed
    from cclnet.images.cache import ImageCache

    images = all_of(ImageCache.open(folder / "images.npy", folder / "images.csv"))
    trainer = new_trainer(Case(*case), "cpu", images, changes={"memory_format": "contiguous"})
    speeds = [speed(len(images), lambda: trainer.train_epoch(images)) for _ in range(1 + EPOCHS)]
    print(median(speeds[1:]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
