"""Asynchronous transfers from main memory to a GPU."""

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from cclnet.images.cache import ImageCache

LARGEST_SHARE = 0.25
"""Largest fraction of a GPU's free memory that the images may take; the rest is for the network."""

PORTION = 2**26
"""Number of bytes copied at once."""


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device.

    A GPU copies it from page-locked memory after its previous work; the CPU does not wait for that.
    """
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def resident_pixels(cache: ImageCache, device: torch.device) -> UInt8[Tensor, " bytes"] | None:
    """All resized images on a GPU, if they take no more than ``LARGEST_SHARE`` of its free memory.

    None if they take more, and on a CPU, which reads them from the memory-mapped file.
    """
    if device.type != "cuda" or cache.pixels.nbytes > LARGEST_SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    return copied_pixels(cache, device)


def copied_pixels(cache: ImageCache, device: torch.device) -> UInt8[Tensor, " bytes"]:
    """All resized images on a device, for ``gathered``."""
    pixels = torch.empty(cache.pixels.size, dtype=torch.uint8, device=device)
    for start, portion in enumerate(pixels.split(PORTION)):
        portion.copy_(torch.from_numpy(cache.pixels[start * PORTION :][: len(portion)].copy()))
    return pixels


def gathered(
    pixels: UInt8[Tensor, " bytes"],
    cache: ImageCache,
    rows: NDArray[np.int64],
    ys: NDArray[np.int64],
    xs: NDArray[np.int64],
) -> UInt8[Tensor, "n height width 3"]:
    """Crops of equal size, gathered on the device of the pixels in one operation.

    Args:
        pixels: the result of ``copied_pixels``.
        cache: the same images, with their offsets and widths.
        rows: n rows of the cache.
        ys, xs: n × height and n × width: the source row and column of each pixel.
    """
    starts = cache.offsets[rows][:, None] // 3 + ys * cache.widths[rows][:, None]  # of each row of pixels
    starts, xs_there = (sent(torch.from_numpy(part), pixels.device) for part in (starts, xs))
    return pixels.view(-1, 3)[starts[:, :, None] + xs_there[:, None, :]]
