"""Training from the cache, compared with the fastest bare steps of the same network on one batch in memory.

The bare steps run in both memory formats, as written and compiled; the fastest of the four is the yardstick.
"""

import tempfile
from functools import partial
from itertools import product
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

STEPS = {"small": 3, "large": 2}
BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0")
PRECISIONS = ("float32", "bfloat16")
VARIANTS = {
    f"{words}{', compiled' if compiled else ''}": {
        "memory_format": memory_format,
        "computation.compile": str(compiled).lower(),
    }
    for compiled, (memory_format, words) in product(
        (False, True), {"contiguous": "NCHW", "channels_last": "channels last"}.items()
    )
}


def run(settings: Settings) -> list[Comparison]:
    """Measure three backbones on small and on large images in both precisions."""
    sizes = [small_images(STEPS["small"], settings.device), large_images(STEPS["large"], settings.device)]
    cases = [size._replace(backbone=backbone) for size in sizes for backbone in BACKBONES]
    tiny = TINY._replace(backbone="timm/test_convnext")  # compiled in seconds
    return [
        row
        for case, precision in product([tiny] if settings.tiny else cases, PRECISIONS)
        for row in compare(case, precision, settings)
    ]


def compare(case: Case, precision: str, settings: Settings) -> list[Comparison]:
    """Compare training with the fastest bare steps of one case, and these with the other bare steps."""
    with tempfile.TemporaryDirectory() as folder:
        images = training_set(case, settings, Path(folder))
        chosen = {"computation.precision": precision}
        contenders = {}
        for name, compiled in {"training": "false", "training, compiled": "true"}.items():
            trainer = new_trainer(case, settings.device, images, changes=chosen | {"computation.compile": compiled})
            contenders[name] = partial(speed, len(images), partial(trainer.train_epoch, images))
        for name, variant in VARIANTS.items():
            bare = new_trainer(case, settings.device, images, changes=chosen | variant)
            inputs, labels, _ = next(training_batches(images, bare.params, 1, bare.device))
            contenders[name] = partial(speed, len(images), partial(bare_steps, bare, inputs, labels, case.steps))
        training, compiled_training, *steps = in_turn(contenders, settings.repetitions).values()
    torch.compiler.reset()  # forget the compiled networks
    fastest = max(steps, key=lambda series: series.median)
    case_words = f"{case}, {precision}"
    return [
        Comparison(case_words, "images/s", training, fastest, Target(low=0.95)),
        Comparison(case_words, "images/s", compiled_training, fastest),
        *(Comparison(case_words, "images/s", other, fastest) for other in steps if other is not fastest),
    ]


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
