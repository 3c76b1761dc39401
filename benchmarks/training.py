"""Small experiments for measuring training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.catalogue import Settings
from benchmarks.images import open_cache, photographs
from benchmarks.measure import seconds
from cclnet.dataset.isic import CLASSES
from cclnet.images.cache import ImageCache
from cclnet.images.subset import Subset
from cclnet.params import Params, TrainParams
from cclnet.training.distributed import ALONE, Processes
from cclnet.training.trainer import Trainer
from studies.running.settings import params_with


class Case(NamedTuple):
    """A network and its input.

    Attributes:
        backbone: name of the backbone.
        short_side, crop: pixels.
        batch: images per step.
        steps: steps per epoch.
    """

    backbone: str
    short_side: int
    crop: int
    batch: int
    steps: int

    def __str__(self) -> str:
        return f"{self.backbone}, {self.crop} px, batches of {self.batch}"


NOTHING: Mapping[str, str] = {}
TINY = Case("shufflenet_v2_x0_5", 36, 32, 8, 2)


def small_images(steps: int, device: str) -> Case:
    """ResNet-18 on images with a short side of 64 pixels, with ten times the steps on a GPU."""
    return Case("resnet18", 64, 56, 128, 10 * steps if device == "cuda" else steps)


def large_images(steps: int, device: str) -> Case:
    """ResNet-18 on images of the paper's size, with the paper's batch size on a GPU."""
    return Case("resnet18", 256, 224, 128, 10 * steps) if device == "cuda" else Case("resnet18", 256, 224, 32, steps)


def training_set(case: Case, settings: Settings, folder: Path) -> Subset:
    """Create the images of one epoch in a folder."""
    return all_of(open_cache(folder, photographs(case.batch * case.steps, settings.images), case.short_side))


def all_of(cache: ImageCache) -> Subset:
    """All images of a cache, with the classes of ``photographs``."""
    rows = np.arange(len(cache.images))
    return Subset(cache, rows, rows % len(CLASSES))


def train_params(case: Case, changes: Mapping[str, str] = NOTHING) -> TrainParams:
    """The params of the paper's experiment with the network and images of a case, and with some changes."""
    block = {"short_side": str(case.short_side), "crop": str(case.crop), "batch_size": str(case.batch)}
    changed = params_with({"dataset": "isic2018", "backbone": case.backbone, **block, **changes})
    return Params.model_validate(changed).stage(TrainParams)


def new_trainer(
    case: Case, device: str, images: Subset, processes: Processes = ALONE, changes: Mapping[str, str] = NOTHING
) -> Trainer:
    """A new trainer for a case."""
    counts = images.class_counts(len(CLASSES))
    return Trainer(train_params(case, changes), counts, torch.device(device), processes)


def speed(images: int, work: Callable[[], object]) -> float:
    """Images per second of work that processes ``images`` images."""
    return images / seconds(work)
