"""From the cache to augmented, normalised batches, beside torchvision's path from JPEG files, on one core."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.images import photographs, write_image_folder
from benchmarks.measure import Comparison, Target, in_turn, pinned
from benchmarks.settings import Settings
from benchmarks.torchvision_path import transform
from benchmarks.training import TINY, Case, large_images, small_images, speed, train_params, training_set
from cclnet.batches import training_batches

STEPS, BATCH = 4, 64


def run(settings: Settings) -> list[Comparison]:
    """Crops of 224 from images of 256 pixels, and of 56 from 64; both paths have the resized images already."""
    sizes = [large_images(STEPS, "cpu"), small_images(STEPS, "cpu")]
    cases = [TINY] if settings.tiny else [size._replace(batch=BATCH) for size in sizes]
    targets = [Target(low=20), None]
    with pinned(cores=1):
        return [compare(case, target, settings) for case, target in zip(cases, targets, strict=False)]


def compare(case: Case, target: Target | None, settings: Settings) -> Comparison:
    """Both of one size of images."""
    params = train_params(case)
    with tempfile.TemporaryDirectory() as folder:
        images = training_set(case, settings, Path(folder))
        write_image_folder(Path(folder) / "classes", images.cache, photographs(len(images), settings.images))
        files = ImageFolder(Path(folder) / "classes", transform(params))
        loader = DataLoader(files, case.batch, shuffle=True)
        contenders = {
            "cclnet": partial(speed, len(images), lambda: exhaust(training_batches(images, params, 1, CPU))),
            "torchvision": partial(speed, len(images), lambda: exhaust(loader)),
        }
        ours, theirs = in_turn(contenders, settings.repetitions).values()
    return Comparison(f"{case.crop} px of {case.short_side}", "images/s a core", ours, theirs, target)


CPU = torch.device("cpu")


def exhaust(batches) -> None:
    """Have all batches made and keep none."""
    for _ in batches:
        pass
