"""Training compared with alternatives: torchvision's reference loop, and timm's loader and step.

All three train ResNet-18 from scratch on the same resized images, with the same batch size, augmentation, optimizer and
clipping. The alternatives read JPEG files with one worker per core; the workers are kept between epochs.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.data.dataset import ImageDataset
from timm.data.loader import create_loader
from timm.data.transforms import ToNumpy
from timm.optim._optim_factory import create_optimizer_v2
from timm.utils.clip_grad import dispatch_clip_grad
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import get_model
from torchvision.transforms import v2

from benchmarks.catalogue import Settings
from benchmarks.images import photographs, write_image_folder
from benchmarks.measure import Comparison, Target, in_turn
from benchmarks.torchvision_path import augmentation, transform
from benchmarks.training import TINY, Case, large_images, new_trainer, small_images, speed, training_set
from cclnet.dataset.isic import CLASSES
from cclnet.params import TrainParams

STEPS = {"small": 5, "large": 3}
Epoch = Callable[[], None]


def run(settings: Settings) -> list[Comparison]:
    """Measure small and large images."""
    sizes = [small_images(STEPS["small"], settings.device), large_images(STEPS["large"], settings.device)]
    return [comparison for case in ([TINY] if settings.tiny else sizes) for comparison in compare(case, settings)]


def compare(case: Case, settings: Settings) -> list[Comparison]:
    """Compare all three for one image size."""
    with tempfile.TemporaryDirectory() as name:
        images = training_set(case, settings, Path(name))
        classes = Path(name) / "classes"
        write_image_folder(classes, images.cache, photographs(len(images), settings.images))
        trainer = new_trainer(case, settings.device, images, changes={"method": "baseline"})
        epochs = {
            "cclnet": lambda: trainer.train_epoch(images),
            "torchvision": torchvision_epoch(classes, trainer.params, trainer.device),
            "timm": timm_epoch(classes, trainer.params, trainer.device),
        }
        contenders = {name: partial(speed, len(images), epoch) for name, epoch in epochs.items()}
        ours, *others = in_turn(contenders, settings.repetitions).values()
    return [Comparison(str(case), "images/s", ours, theirs, Target(low=1.0)) for theirs in others]


def torchvision_epoch(classes: Path, params: TrainParams, device: torch.device) -> Epoch:
    """An epoch as in torchvision's references/classification/train.py."""
    files = ImageFolder(classes, transform(params))
    workers = os.cpu_count() or 1
    pin = device.type == "cuda"
    loader = DataLoader(
        files, params.batch_size, shuffle=True, num_workers=workers, persistent_workers=True, pin_memory=pin
    )
    model = get_model(params.backbone, weights=None, num_classes=len(CLASSES)).to(device).train()
    chosen = params.optimizer
    optimizer = torch.optim.SGD(
        model.parameters(), chosen.lr_backbone, chosen.momentum, weight_decay=chosen.weight_decay
    )
    criterion = nn.CrossEntropyLoss()

    def epoch() -> None:
        for inputs, labels in loader:
            inputs, labels = inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            loss = criterion(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), chosen.clip_norm)
            optimizer.step()
            loss.item()  # for the log in every step

    return epoch


def timm_epoch(classes: Path, params: TrainParams, device: torch.device) -> Epoch:
    """An epoch as in timm's train.py, whose loader converts bytes to values batch by batch on the device."""
    files = ImageDataset(str(classes))
    loader: Iterable[Any] = create_loader(
        files,
        input_size=(3, params.crop, params.crop),
        batch_size=params.batch_size,
        is_training=True,
        num_workers=os.cpu_count() or 1,
        pin_memory=device.type == "cuda",
        device=device,
    )
    files.transform = v2.Compose([*augmentation(params), ToNumpy()])
    model = get_model(params.backbone, weights=None, num_classes=len(CLASSES)).to(device).train()
    chosen = params.optimizer
    optimizer = create_optimizer_v2(
        model, "momentum", lr=chosen.lr_backbone, weight_decay=chosen.weight_decay, momentum=chosen.momentum
    )
    criterion = nn.CrossEntropyLoss()

    def epoch() -> None:
        for inputs, labels in loader:
            loss = criterion(model(inputs), labels)
            loss.backward()
            dispatch_clip_grad(model.parameters(), chosen.clip_norm, mode="norm")
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return epoch
