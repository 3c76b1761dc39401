"""Growth of the time of an epoch with the number of images."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.catalogue import Settings
from benchmarks.measure import Comparison, Series, Target, in_turn, seconds
from benchmarks.training import TINY, new_trainer, training_set
from cclnet.images.subset import Subset

TIMES = (1, 2, 4, 8)
STEPS = 8


def run(settings: Settings) -> list[Comparison]:
    """Measure a network that is small enough to make any overhead visible."""
    case = TINY if settings.tiny else TINY._replace(batch=32, steps=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        images = training_set(case, settings, Path(folder))
        trainers = {times: new_trainer(case, settings.device, images) for times in TIMES}
        contenders = {
            str(times): partial(seconds, partial(trainers[times].train_epoch, repeated(images, times)))
            for times in TIMES
        }
        series = in_turn(contenders, settings.repetitions)
    first = series["1"]
    return [
        Comparison(
            f"{times} × {len(images)} images",
            "s an epoch",
            Series(f"epoch of {times} ×", series[str(times)].values),
            Series(f"{times} × the epoch of 1 ×", [times * value for value in first.values]),
            Target(0.95, 1.05),
        )
        for times in TIMES[1:]
    ]


def repeated(images: Subset, times: int) -> Subset:
    """Repeat the images several times, as separate rows."""
    cache = images.cache
    columns = (np.tile(column, times) for column in (cache.heights, cache.widths, cache.offsets))
    larger = type(cache)(cache.pixels, cache.images * times, *columns)
    return Subset(larger, np.arange(times * len(images)), np.tile(images.labels, times))
