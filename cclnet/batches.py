"""Which images come when, and how they reach the network."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from cclnet.augmentation import (
    IMAGENET,
    ColorJitter,
    Normalization,
    Views,
    jitter_to_network,
    memory_layout,
    to_network,
)
from cclnet.images import ImageCache, Pixels, central_crop
from cclnet.params import TrainParams
from cclnet.processes import ALONE, IMAGES_EACH, Processes
from cclnet.transfer import gathered, sent

ORDER_STREAM = 2  # apart from Views.STREAM: no two uses of the seed share their numbers
LABEL_STREAM = 4
PREDICTION_BATCH = 256


@dataclass(frozen=True)
class Subset:
    """The training or the validation images.

    Attributes:
        cache: all resized images.
        rows: which of them belong to the subset.
        labels: their classes, 0 … K − 1.
        resident: the cache's bytes on the GPU that trains; None where they stay with the processor.
    """

    cache: ImageCache
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    resident: UInt8[Tensor, " bytes"] | None = None

    @classmethod
    def of_split(cls, cache: ImageCache, split: pd.DataFrame, subset: str, classes: Sequence[str]) -> Self:
        """The images that a split puts into ``train`` or ``validation``."""
        chosen = split[split["subset"] == subset]
        number = {name: label for label, name in enumerate(classes)}
        labels = np.array([number[name] for name in chosen["label"]], dtype=np.int64)
        return cls(cache, cache.rows(chosen["image"].tolist()), labels)

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, places: NDArray[np.int64]) -> Self:
        """The images at these places of the subset."""
        return replace(self, rows=self.rows[places], labels=self.labels[places])

    def with_shuffled_labels(self, seed: int) -> Self:
        """The same images with each other's labels: classes as large as before, and nothing that they look like."""
        random = np.random.default_rng([seed, LABEL_STREAM])
        return replace(self, labels=random.permutation(self.labels))

    def class_counts(self, num_classes: int) -> Int[Tensor, " k"]:
        """Images of each class."""
        return torch.from_numpy(np.bincount(self.labels, minlength=num_classes))


def training_batches(
    images: Subset,
    params: TrainParams,
    epoch: int,
    device: torch.device,
    seen: int = 0,
    processes: Processes = ALONE,
    normalization: Normalization = IMAGENET,
) -> Iterator[tuple[Float[Tensor, "n 3 h w"], Int[Tensor, " n"], int]]:
    """The minibatches of one epoch after the first ``seen`` images: augmented, normalised, on the device.

    Each is this process's share of one, with the number of images that all shares have together.
    """
    views = Views.of_epoch(len(images.cache.images), params.seed, epoch)
    jitter = ColorJitter(params.brightness, params.contrast, params.saturation, params.hue)
    order = epoch_order(images.labels, params.seed, epoch, balanced=params.head_balance == "sampling")
    batches = split_into_batches(order, params.batch_size, IMAGES_EACH * processes.count)
    ends = np.cumsum([len(batch) for batch in batches])
    for chosen in batches[np.searchsorted(ends, seen, side="right") :]:
        own = images.part(processes.share(chosen))
        if own.resident is None:
            crops = sent(views.crops(own.cache, own.rows, params.crop), device)
        else:
            crops = gathered(own.resident, own.cache, own.rows, *views.places(own.cache, own.rows, params.crop))
        factors = jitter.factors(views.color_draws(own.rows))
        inputs = jitter_to_network(crops, factors, memory_layout(params.memory_format), normalization)
        yield inputs, sent(torch.from_numpy(own.labels), device), len(chosen)


def epoch_order(labels: NDArray[np.int64], seed: int, epoch: int, balanced: bool = False) -> NDArray[np.int64]:
    """Every image once in random order or, balanced, as many draws with every class equally likely."""
    random = np.random.default_rng([seed, ORDER_STREAM, epoch])
    if not balanced:
        return random.permutation(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    by_class = np.argsort(labels, kind="stable")
    starts = np.cumsum(counts) - counts
    drawn = random.integers(len(classes), size=len(labels))
    return by_class[starts[drawn] + random.integers(counts[drawn])]


def split_into_batches(
    order: NDArray[np.int64], batch_size: int, smallest: int = IMAGES_EACH
) -> list[NDArray[np.int64]]:
    """Portions of the batch size and a smaller last one; fewer than ``smallest`` left over join the one before it."""
    cuts = np.arange(batch_size, len(order) - smallest + 1, batch_size)
    return np.split(order, cuts)


def prediction_batches(
    images: Subset,
    crop: int,
    device: torch.device,
    normalization: Normalization = IMAGENET,
    layout: torch.memory_format = torch.contiguous_format,
) -> Iterator[Float[Tensor, "n 3 h w"]]:
    """The central crops of all images in their own order, normalised, on the device, in this layout."""
    if images.resident is None:
        crops = (central_crop(images.cache[row], crop) for row in images.rows)
        return crops_to_network(crops, device, normalization, layout)
    resident = images.resident
    batches = np.split(images.rows, range(PREDICTION_BATCH, len(images), PREDICTION_BATCH))
    gathered_crops = (
        gathered(resident, images.cache, rows, *_central_places(images.cache, rows, crop)) for rows in batches
    )
    return (to_network(crops, normalization).contiguous(memory_format=layout) for crops in gathered_crops)


def _central_places(
    cache: ImageCache, rows: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lines and columns of ``images.central_crop``, n × size each."""
    starts = (np.rint((sides[rows] - size) / 2).astype(np.int64) for sides in (cache.heights, cache.widths))
    ys, xs = (start[:, None] + np.arange(size) for start in starts)
    return ys, xs


def crops_to_network(
    crops: Iterable[Pixels],
    device: torch.device,
    normalization: Normalization = IMAGENET,
    layout: torch.memory_format = torch.contiguous_format,
) -> Iterator[Float[Tensor, "n 3 h w"]]:
    """Crops of one size, normalised, on the device, so many at once that memory does not grow with their number."""
    remaining = iter(crops)
    while batch := list(islice(remaining, PREDICTION_BATCH)):
        inputs = to_network(sent(torch.from_numpy(np.stack(batch)), device), normalization)
        yield inputs.contiguous(memory_format=layout)
