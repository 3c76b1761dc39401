"""q^cls, the class probabilities that a network predicts for images."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cclnet.images.augmentation import IMAGENET, Normalization, to_network
from cclnet.images.cache import ImageCache
from cclnet.images.decoding import Pixels, central_crop
from cclnet.images.subset import Subset
from cclnet.images.transfer import gathered, sent
from cclnet.networks.model import CCLNet

PREDICTION_BATCH = 256
"""The most images that a network computes at once, unless asked for."""

_PIXELS_ON_CPU = 2**20
"""The most pixels of a batch on a CPU. Beyond them networks become slower, to about half the speed for 256 images of
224 pixels; see ``docs/evidence/performance.md``."""


def prediction_batch(crop: int, device: torch.device) -> int:
    """How many crops of ``crop`` × ``crop`` pixels a network computes at once on a device, at least one."""
    if device.type != "cpu":
        return PREDICTION_BATCH
    return min(PREDICTION_BATCH, max(1, _PIXELS_ON_CPU // crop**2))


def prediction_batches(
    images: Subset,
    crop: int,
    device: torch.device,
    normalization: Normalization = IMAGENET,
    layout: torch.memory_format = torch.contiguous_format,
) -> Iterator[Float[Tensor, "n 3 h w"]]:
    """Yield the central crops of all images in order, normalised, on the device and in the given layout."""
    batch_size = prediction_batch(crop, device)
    if images.resident is None:
        crops = (central_crop(images.cache[row], crop) for row in images.rows)
        return crops_to_network(crops, batch_size, device, normalization, layout)
    resident = images.resident
    batches = np.split(images.rows, range(batch_size, len(images), batch_size))
    gathered_crops = (
        gathered(resident, images.cache, rows, *_central_places(images.cache, rows, crop)) for rows in batches
    )
    return (to_network(crops, normalization).contiguous(memory_format=layout) for crops in gathered_crops)


def _central_places(
    cache: ImageCache, rows: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels of ``images.central_crop``, n × size each."""
    starts = (np.rint((sides[rows] - size) / 2).astype(np.int64) for sides in (cache.heights, cache.widths))
    ys, xs = (start[:, None] + np.arange(size) for start in starts)
    return ys, xs


def crops_to_network(
    crops: Iterable[Pixels],
    batch_size: int,
    device: torch.device,
    normalization: Normalization = IMAGENET,
    layout: torch.memory_format = torch.contiguous_format,
) -> Iterator[Float[Tensor, "n 3 h w"]]:
    """Yield crops of equal size in batches, normalised and on the device; memory does not grow with their number."""
    remaining = iter(crops)
    while batch := list(islice(remaining, batch_size)):
        inputs = to_network(sent(torch.from_numpy(np.stack(batch)), device), normalization)
        yield inputs.contiguous(memory_format=layout)


def predict(
    model: CCLNet,
    images: Subset,
    crop: int,
    device: torch.device,
    between_steps: Callable[[], None] = lambda: None,
    normalization: Normalization = IMAGENET,
    layout: torch.memory_format = torch.contiguous_format,
) -> NDArray[np.float64]:
    """q^cls of every image from its central crop, n × K; ``between_steps`` is called after every batch."""
    model.eval()
    probabilities = []
    for inputs in prediction_batches(images, crop, device, normalization, layout):
        probabilities.append(class_probabilities(model, inputs))
        between_steps()
    return np.concatenate(probabilities)


@torch.inference_mode()
def features_and_probabilities(
    model: CCLNet,
    images: Subset,
    crop: int,
    device: torch.device,
    normalization: Normalization = IMAGENET,
    layout: torch.memory_format = torch.contiguous_format,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The features, n × n1, and q^cls, n × K, of every image from its central crop."""
    model.eval()
    features, probabilities = [], []
    for inputs in prediction_batches(images, crop, device, normalization, layout):
        vectors, logits = model(inputs, with_features=True)
        if device.type == "mps":  # it has no float64
            vectors, logits = vectors.cpu(), logits.cpu()
        features.append(vectors.double().cpu().numpy())
        probabilities.append(logits.double().softmax(dim=1).cpu().numpy())
    return np.concatenate(features), np.concatenate(probabilities)


@torch.inference_mode()
def class_probabilities(model: CCLNet, inputs: Float[Tensor, "n 3 h w"]) -> NDArray[np.float64]:
    """q^cls of one batch, n × K; the model must be in evaluation mode."""
    logits = model(inputs)
    if logits.device.type == "mps":
        logits = logits.cpu()  # MPS has no float64
    return logits.double().softmax(dim=1).cpu().numpy()
