"""Training from the cache, compared with bare steps of the same network on one batch in memory."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from benchmarks.catalogue import Settings
from benchmarks.measure import Comparison, Target, in_turn
from benchmarks.training import TINY, Case, large_images, new_trainer, small_images, speed, training_set
from cclnet.training.batches import training_batches
from cclnet.training.trainer import Trainer

STEPS = {"small": 6, "large": 3}
PRECISIONS = {"cpu": ["float32"], "cuda": ["float32", "bfloat16"]}


def run(settings: Settings) -> list[Comparison]:
    """Measure three backbones on small images and ResNet-18 on large ones; on a GPU in both precisions."""
    small = small_images(STEPS["small"], settings.device)
    backbones = ("resnet18", "mobilenet_v2", "efficientnet_b0")
    cases = [small._replace(backbone=name) for name in backbones] + [large_images(STEPS["large"], settings.device)]
    return [
        compare(case, precision, settings)
        for case in ([TINY] if settings.tiny else cases)
        for precision in PRECISIONS[settings.device]
    ]


def compare(case: Case, precision: str, settings: Settings) -> Comparison:
    """Compare both for one case, with separate trainers."""
    with tempfile.TemporaryDirectory() as folder:
        images = training_set(case, settings, Path(folder))
        chosen = {"computation.precision": precision}
        trainer, bare = (new_trainer(case, settings.device, images, changes=chosen) for _ in range(2))
        inputs, labels, _ = next(training_batches(images, bare.params, 1, bare.device))
        contenders = {
            "training": partial(speed, len(images), lambda: trainer.train_epoch(images)),
            "bare steps": partial(speed, len(images), lambda: bare_steps(bare, inputs, labels, case.steps)),
        }
        training, steps = in_turn(contenders, settings.repetitions).values()
    return Comparison(f"{case}, {precision}", "images/s", training, steps, Target(low=0.97))


def bare_steps(trainer: Trainer, inputs: Float[Tensor, "n 3 h w"], labels: Int[Tensor, " n"], steps: int) -> None:
    """Only forward, backward and update of network and head: a lower bound for the time of training."""
    model, optimizers = trainer.model, [trainer.optimizer, trainer.head_optimizer]
    for _ in range(steps):
        half = trainer.params.computation.precision == "bfloat16"
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=half):
            features = model.backbone(inputs)
            logits = model.classifier(features)
        loss = functional.cross_entropy(logits.float(), labels)
        (loss + trainer.head_loss(features.detach().float(), labels)).backward()
        for optimizer in filter(None, optimizers):
            optimizer.step()
            optimizer.zero_grad()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
