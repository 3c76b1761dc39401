"""Augmented, normalised batches from the cache, compared with torchvision's path from JPEG files, on one core."""

import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.catalogue import Settings
from benchmarks.images import photographs, write_image_folder
from benchmarks.measure import Comparison, Target, in_turn, pinned
from benchmarks.torchvision_path import transform
from benchmarks.training import TINY, Case, large_images, small_images, speed, train_params, training_set
from cclnet.images.augmentation import Views
from cclnet.images.subset import Subset
from cclnet.params import TrainParams
from cclnet.training.batches import training_batches

STEPS, BATCH = 4, 64


def run(settings: Settings) -> list[Comparison]:
    """Measure crops of 224 from images of 256 pixels, and of 56 from 64; both paths start with resized images."""
    sizes = [large_images(STEPS, "cpu"), small_images(STEPS, "cpu")]
    cases = [TINY] if settings.tiny else [size._replace(batch=BATCH) for size in sizes]
    targets = [Target(low=20), None]
    with pinned(cores=1):
        return [row for case, target in zip(cases, targets, strict=False) for row in compare(case, target, settings)]


def compare(case: Case, target: Target | None, settings: Settings) -> list[Comparison]:
    """Compare both for one image size, and measure cclnet's path without colour jitter."""
    params = train_params(case, {"memory_format": "channels_last"})
    with tempfile.TemporaryDirectory() as folder:
        images = training_set(case, settings, Path(folder))
        write_image_folder(Path(folder) / "classes", images.cache, photographs(len(images), settings.images))
        files = ImageFolder(Path(folder) / "classes", transform(params))
        loader = DataLoader(files, case.batch, shuffle=True)
        contenders = {
            "cclnet": partial(speed, len(images), lambda: exhaust(training_batches(images, params, 1, CPU))),
            "torchvision": partial(speed, len(images), lambda: exhaust(loader)),
            "cclnet without colours": partial(speed, len(images), lambda: exhaust(crops_of(images, params))),
        }
        ours, theirs, without = in_turn(contenders, settings.repetitions).values()
    name = f"{case.crop} px of {case.short_side}"
    return [
        Comparison(name, "images/s a core", ours, theirs, target),
        Comparison(name, "images/s a core", without, ours),
    ]


def crops_of(images: Subset, params: TrainParams) -> Iterator[UInt8[Tensor, "n h w 3"]]:
    """The crops of one epoch before colour jitter."""
    views = Views.of_epoch(len(images), params.seed, 1)
    for rows in np.split(images.rows, range(params.batch_size, len(images), params.batch_size)):
        yield views.crops(images.cache, rows, params.crop)


CPU = torch.device("cpu")


def exhaust(batches: Iterable[object]) -> None:
    """Consume all batches without keeping them."""
    for _ in batches:
        pass
