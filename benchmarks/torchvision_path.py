"""What a user of torchvision writes for the same augmentation."""

import torch
from torchvision.transforms import v2

from cclnet.images.augmentation import MEAN, STANDARD_DEVIATION
from cclnet.params import TrainParams


def augmentation(params: TrainParams) -> list[v2.Transform]:
    """Random crop, two flips and colours of a picture that is resized already."""
    return [
        v2.RandomCrop(params.crop),
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.ColorJitter(params.brightness, params.contrast, params.saturation, params.hue),
    ]


def to_network() -> list[v2.Transform]:
    """From a picture to normalised values."""
    to_float = v2.ToDtype(torch.float32, scale=True)
    return [v2.ToImage(), to_float, v2.Normalize(list(MEAN), list(STANDARD_DEVIATION))]


def transform(params: TrainParams) -> v2.Compose:
    """From a picture to a view of it for the network."""
    return v2.Compose([*augmentation(params), *to_network()])
