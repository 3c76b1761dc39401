"""An epoch of CCL-Net compared with one of the baseline; and Algorithm 1 as printed, with two forwards per step."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_

from benchmarks.catalogue import Settings
from benchmarks.measure import Comparison, Target, in_turn, seconds
from benchmarks.training import TINY, large_images, new_trainer, training_set
from cclnet.images.subset import Subset
from cclnet.training.batches import training_batches
from cclnet.training.trainer import Trainer

STEPS = 2


def run(settings: Settings) -> list[Comparison]:
    """Measure ResNet-18 on large images."""
    case = TINY if settings.tiny else large_images(STEPS, settings.device)
    with tempfile.TemporaryDirectory() as folder:
        images = training_set(case, settings, Path(folder))
        baseline = new_trainer(case, settings.device, images, changes={"method": "baseline"})
        ccl, literal = (new_trainer(case, settings.device, images, changes={"method": "ccl"}) for _ in range(2))
        contenders = {
            "CCL-Net": partial(seconds, lambda: ccl.train_epoch(images)),
            "two forwards": partial(seconds, lambda: literal_epoch(literal, images)),
            "baseline": partial(seconds, lambda: baseline.train_epoch(images)),
        }
        series = in_turn(contenders, settings.repetitions)
    target = Target(high=1.02)
    return [
        Comparison(str(case), "s an epoch", series["CCL-Net"], series["baseline"], target),
        Comparison(str(case), "s an epoch", series["two forwards"], series["baseline"]),
    ]


def literal_epoch(trainer: Trainer, images: Subset) -> None:
    """Lines 3 to 8 of Algorithm 1 as printed: the head's update has its own forward pass (line 7)."""
    model, head, head_optimizer = trainer.model, trainer.head, trainer.head_optimizer
    if head is None or head_optimizer is None:
        raise ValueError("the baseline has no head to update")
    trainer.epoch += 1
    model.train()
    for inputs, labels, _ in training_batches(images, trainer.params, trainer.epoch, trainer.device):
        trainer.classification_loss(model(inputs), labels).backward()
        update(trainer.optimizer, trainer.params.optimizer.clip_norm)
        with torch.no_grad():
            features = model.backbone(inputs)
        trainer.head_loss(features, labels).backward()
        update(head_optimizer, trainer.params.optimizer.clip_norm)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)


def update(optimizer: torch.optim.Optimizer, clip_norm: float) -> None:
    """Clip the gradients, update the parameters and reset the gradients."""
    clip_grad_norm_(optimizer.param_groups[0]["params"], clip_norm)
    optimizer.step()
    optimizer.zero_grad()
