"""The minibatches of an epoch: their order, and how they reach the network."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cclnet.images.augmentation import (
    IMAGENET,
    ColorJitter,
    Normalization,
    Views,
    jitter_orders,
    jitter_to_network,
    memory_layout,
    to_network,
    torchvision_jitter,
)
from cclnet.images.subset import Subset
from cclnet.images.transfer import gathered, sent
from cclnet.params import TrainParams
from cclnet.training.distributed import ALONE, IMAGES_EACH, Processes

ORDER_STREAM = 2  # differs from Views.STREAM, so that no two uses of the seed share random numbers


def training_batches(
    images: Subset,
    params: TrainParams,
    epoch: int,
    device: torch.device,
    seen: int = 0,
    processes: Processes = ALONE,
    normalization: Normalization = IMAGENET,
) -> Iterator[tuple[Float[Tensor, "n 3 h w"], Int[Tensor, " n"], int]]:
    """Yield the minibatches of one epoch after the first ``seen`` images: augmented, normalised, on the device.

    Each item is this process's share of a minibatch: inputs, labels, and the size of the whole minibatch.
    """
    views = Views.of_epoch(len(images.cache.images), params.seed, epoch)
    jitter = ColorJitter(**params.jitter.ranges)
    layout = memory_layout(params.memory_format)
    orders = None
    if params.jitter.form == "torchvision":
        orders = jitter_orders(len(images.cache.images), params.seed, epoch)
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
        if orders is None:
            inputs = jitter_to_network(crops, factors, layout, normalization)
        else:
            inputs = to_network(torchvision_jitter(crops, factors, orders[own.rows]), normalization, layout)
        yield inputs, sent(torch.from_numpy(own.labels), device), len(chosen)


def epoch_order(labels: NDArray[np.int64], seed: int, epoch: int, balanced: bool = False) -> NDArray[np.int64]:
    """Every image once in random order; if ``balanced``, the same number of draws with every class equally likely."""
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
    """Split into batches; a last batch of fewer than ``smallest`` images is merged into the one before it."""
    cuts = np.arange(batch_size, len(order) - smallest + 1, batch_size)
    return np.split(order, cuts)
