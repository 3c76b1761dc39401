"""Params, images, networks and whole trainings for the tests of training."""

import copy
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cclnet.ccl import CCLHead, Convergence
from cclnet.images.cache import ImageCache
from cclnet.images.subset import Subset
from cclnet.networks.model import CCLNet, build_model
from cclnet.params import TrainParams
from cclnet.system.interruption import InterruptionError
from cclnet.training.history import Row
from cclnet.training.loop import fit
from cclnet.training.states import StateStore
from cclnet.training.trainer import Trainer

CPU = torch.device("cpu")
K = 7
PAPER_BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0")
TIMM_BACKBONES = ("timm/test_vit_relpos", "timm/test_convnext", "timm/test_efficientnet")
NUM_FEATURES = 8
RAN_ON = {"threads": 1, "versions": {"torch": "2"}}
GROUPS = ("head", "label_smoothing", "optimizer", "jitter", "computation")
PARAMS: dict[str, Any] = {
    "backbone": "tiny",
    "weights": None,
    "method": "ccl",
    "soft_label_source": "head",
    "training_labels": "original",
    "seed": 0,
    "lr_ccl": 0.01,
    "alpha_cc": 10.0,
    "head": {
        "margin": 2.0,
        "temperature": 1.0,
        "dictionary_init": "uniform",
        "freeze_patience": 10,
        "freeze_at": "best",
    },
    "label_smoothing": {"epsilon": 0.1, "prior": "uniform"},
    "optimizer": {"lr_backbone": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "clip_norm": 2.0, "loss_factor": 1.0},
    "jitter": {"form": "affine", "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
    "computation": {"precision": "float32", "compile": False},
    "peers": {
        "confidence_penalty": {"weight": 0.1},
        "online_smoothing": {"hard_share": 0.5},
        "margin_smoothing": {"margin": 0.5, "weight": 0.1, "form": "equation"},
        "virtual_teacher": {
            "correct": 0.9,
            "weight": 0.5,
            "temperature": 2.0,
            "form": "equation",
            "multiplier": 1.0,
        },
        "maxsup": {"weight": 0.1, "last_weight": 0.2},
        "label_confusion": {"weight": 4.0, "embedding_dim": 5},
    },
    "crop": 32,
    "epochs": 4,
    "milestones": [],
    "batch_size": 8,
    "head_balance": "none",
    "lr_backbone_factor": 1.0,
    "lr_ccl_factor": 1.0,
    "memory_format": "contiguous",
    "processor": "native",
    "threads": 1,
}


def build_tiny_or_real(
    backbone: str, weights: str | None, image_size: int, num_classes: int, with_head: bool, **head: Any
) -> CCLNet:
    """``build_model`` that also knows a network in which everything is small, with batch norm and dropout."""
    if backbone != "tiny":
        return build_model(backbone, weights, image_size, num_classes, with_head, **head)
    layers = nn.Conv2d(3, NUM_FEATURES, 3, stride=4), nn.BatchNorm2d(NUM_FEATURES), nn.ReLU()
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2))
    small_head = CCLHead(NUM_FEATURES, num_classes, hidden_dim=32, embedding_dim=16, **head) if with_head else None
    return CCLNet(network, NUM_FEATURES, num_classes, small_head)


def settings_of(method: str) -> dict[str, str]:
    """The settings of a method; labels from class means are those of CCL-Net from another source."""
    return {"method": "ccl", "soft_label_source": method} if method == "class_means" else {"method": method}


def params(**changes: Any) -> TrainParams:
    """The params above with some of them changed; a key of a group is named without its group."""
    values = copy.deepcopy(PARAMS)
    for key, value in changes.items():
        holder = next((values[group] for group in GROUPS if key in values[group]), values)
        holder[key] = value
    return TrainParams.model_validate(values)


def subset_of(labels: Sequence[int], seed: int = 0) -> Subset:
    """Random images of two sizes, more of them than belong to the subset."""
    random = np.random.default_rng(seed)
    count = len(labels) + 3
    heights, widths = np.full(count, 36), np.where(np.arange(count) % 2, 36, 40)
    sizes = heights * widths * 3
    pixels = random.integers(0, 256, sizes.sum(), dtype=np.uint8)
    names = [f"ISIC_{number:07d}" for number in range(count)]
    cache = ImageCache(pixels, names, heights, widths, np.cumsum(sizes) - sizes)
    return Subset(cache, random.permutation(count)[: len(labels)], np.array(labels, dtype=np.int64))


IMAGES = subset_of([k % K for k in range(16)])
VALIDATION = subset_of([k % K for k in range(9)], seed=1)
BALANCED = subset_of([k % K for k in range(14)])
UNBALANCED = subset_of([0] * 8 + [1, 2, 3, 4, 5, 5, 6, 6])
STEPS_OF_AN_EPOCH = 3  # two of training, one of validation of IMAGES and VALIDATION


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


# the dictionary starts at its softest and stiffens at once: the best epoch is 1, the dictionary freezes in epoch 3
FREEZES_IN_EPOCH_3 = {"dictionary_init": "positive", "lr_ccl": 0.05, "alpha_cc": 0.0, "freeze_patience": 2}


def trainer_of(images: Subset = IMAGES, **changes: Any) -> Trainer:
    return Trainer(params(**changes), images.class_counts(K), CPU)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The parameters and buffers that are not the same to the last bit."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def parameter_names(model: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def buffer_names(model: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_buffers() if name.startswith(prefixes)}


def convergence_of(trainer: Trainer) -> Convergence:
    assert trainer.freezing
    return trainer.freezing.convergence


class SuddenDeathError(Exception):
    """Whatever ends a process."""


def run_fit(
    folder: Path,
    changes: dict[str, Any],
    interrupted_at: int | None = None,
    ran_on: dict[str, Any] = RAN_ON,
    asked_after: int | None = None,
) -> tuple[dict[str, Tensor], list[Row], Trainer]:
    """A fit by a new trainer, as a new process would do it.

    It falls dead once so many images are trained on, or is asked to end after so many steps of training and validation.
    """
    trainer = trainer_of(**changes)
    steps = 0

    def report(name: str, done: int, total: int, detail: str = "") -> None:
        assert total == trainer.params.epochs * len(IMAGES)
        if interrupted_at is not None and done >= interrupted_at:
            raise SuddenDeathError

    def between_steps() -> None:
        nonlocal steps
        steps += 1
        if steps == asked_after:
            raise InterruptionError(signal.SIGTERM)

    with StateStore(folder, "run") as store:
        history = fit(trainer, IMAGES, VALIDATION, store, ran_on, report, between_steps)
    return weights_of(trainer.model), history, trainer


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)
