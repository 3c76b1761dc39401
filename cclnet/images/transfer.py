"""From the processor's memory to a GPU's, without either waiting for the other."""

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from cclnet.images.cache import ImageCache

LARGEST_SHARE = 0.25
"""Of a GPU's free memory that the images may take; the rest is the network's."""

PORTION = 2**26
"""Bytes copied at once."""


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device.

    A GPU fetches it from page-locked memory when it has done what it was given before; the processor goes on at once.
    """
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def resident_pixels(cache: ImageCache, device: torch.device) -> UInt8[Tensor, " bytes"] | None:
    """All resized images on a GPU, where they take no more than ``LARGEST_SHARE`` of its free memory.

    None where they take more, and on a processor, which reads them from the file that is mapped into its memory.
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
    """Parts of images of one size, cut where the bytes lie, in one operation for all of them.

    Args:
        pixels: of ``copied_pixels``.
        cache: the same images, which tells where each is.
        rows: n of them.
        ys, xs: n × height and n × width: the line and the column that each pixel is taken from.
    """
    starts = cache.offsets[rows][:, None] // 3 + ys * cache.widths[rows][:, None]  # of each line, in pixels
    starts, xs_there = (sent(torch.from_numpy(part), pixels.device) for part in (starts, xs))
    return pixels.view(-1, 3)[starts[:, :, None] + xs_there[:, None, :]]
