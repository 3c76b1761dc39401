"""Training with the backbone compiled by torch, compared with training without compilation."""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.catalogue import Settings
from benchmarks.measure import Comparison, in_turn
from benchmarks.training import TINY, Case, new_trainer, small_images, speed, training_set

STEPS = 3


def run(settings: Settings) -> list[Comparison]:
    """Measure a network with many small layers and one with few large layers; compilation time is not counted."""
    small = small_images(STEPS, settings.device)
    tiny = TINY._replace(backbone="timm/test_convnext")  # compiled in seconds
    cases = [tiny] if settings.tiny else [small._replace(backbone=name) for name in ("mobilenet_v2", "resnet18")]
    return [compare(case, settings) for case in cases]


def compare(case: Case, settings: Settings) -> Comparison:
    """Compare both for one network."""
    with tempfile.TemporaryDirectory() as folder:
        images = training_set(case, settings, Path(folder))
        compiled = new_trainer(case, settings.device, images, changes={"computation.compile": "true"})
        plain = new_trainer(case, settings.device, images, changes={"computation.compile": "false"})
        contenders = {
            "compiled": partial(speed, len(images), lambda: compiled.train_epoch(images)),
            "as written": partial(speed, len(images), lambda: plain.train_epoch(images)),
        }
        faster, written = in_turn(contenders, settings.repetitions).values()
    return Comparison(str(case), "images/s", faster, written)
