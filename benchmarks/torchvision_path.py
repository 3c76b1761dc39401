"""The same augmentation, written with torchvision."""

import torch
from torchvision.transforms import v2

from cclnet.images.augmentation import MEAN, STANDARD_DEVIATION
from cclnet.params import TrainParams


def augmentation(params: TrainParams) -> list[v2.Transform]:
    """Random crop, two flips and colour jitter of a resized picture."""
    return [
        v2.RandomCrop(params.crop),
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.ColorJitter(**params.jitter.ranges),
    ]


def to_network() -> list[v2.Transform]:
    """Convert a picture to normalised values."""
    to_float = v2.ToDtype(torch.float32, scale=True)
    return [v2.ToImage(), to_float, v2.Normalize(list(MEAN), list(STANDARD_DEVIATION))]


def transform(params: TrainParams) -> v2.Compose:
    """The whole transform from a picture to the network's input."""
    return v2.Compose([*augmentation(params), *to_network()])
