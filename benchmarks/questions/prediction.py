"""The network as ``cclnet predict`` runs it with torch, compared with onnxruntime, on one batch in memory."""

from functools import partial
from itertools import product
from typing import get_args

import torch

from benchmarks.catalogue import Settings
from benchmarks.measure import Comparison, Target, in_turn
from benchmarks.training import TINY, Case, speed, train_params
from cclnet.dataset.isic import CLASSES
from cclnet.inference.prediction import Runtime, network_function
from cclnet.inference.probabilities import prediction_batch
from cclnet.training.description import describe
from cclnet.training.trainer import Trainer

BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0")
SIZES = {64: 56, 256: 224}
"""Pixels of the short side, and of the crop."""


def run(settings: Settings) -> list[Comparison]:
    """Measure three backbones on small and on large images."""
    cases = [
        Case(backbone, short_side, crop, prediction_batch(crop, torch.device("cpu")), 1)
        for (short_side, crop), backbone in product(SIZES.items(), BACKBONES)
    ]
    return [compare(case, settings.repetitions) for case in ([TINY] if settings.tiny else cases)]


def compare(case: Case, repetitions: int) -> Comparison:
    """Compare both for one network."""
    device = torch.device("cpu")
    trainer = Trainer(train_params(case), torch.ones(len(CLASSES), dtype=torch.int64), device)
    model, description = trainer.model.eval(), describe(trainer, CLASSES, case.short_side, {})
    batch = torch.randn(case.batch, 3, case.crop, case.crop, generator=torch.Generator().manual_seed(0))
    contenders = {}
    for runtime in get_args(Runtime):
        compute, layout = network_function(model, description, device, runtime)
        inputs = batch.contiguous(memory_format=layout)
        contenders[runtime] = partial(speed, case.batch, partial(compute, inputs))
    series = in_turn(contenders, repetitions)
    return Comparison(str(case), "images/s", series["torch"], series["onnxruntime"], Target(low=0.9))
