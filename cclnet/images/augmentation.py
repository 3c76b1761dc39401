"""Random crops, flips and colour jitter for whole batches, as a function of (seed, epoch, image) only.

So an image gets the same view in the same epoch, independent of its batch, the order, the number of workers or an
interruption.

The colour jitter has two forms. ``affine`` follows torchvision's ColorJitter with three differences, which make it a
single affine map of the RGB values: the order is always brightness, contrast, saturation, hue; values are clipped to
[0, 1] once at the end and not after each step; and the hue rotates the colour plane of YIQ instead of the HSV wheel.
``torchvision`` applies torchvision's own operations to each image's bytes, in a random order, with the same factors.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cclnet.images.cache import ImageCache
from cclnet.images.transfer import sent

MEAN = (0.485, 0.456, 0.406)
STANDARD_DEVIATION = (0.229, 0.224, 0.225)
"""Those of ImageNet, for values in [0, 1], which most of torchvision's pretrained weights expect."""

GREY = (0.299, 0.587, 0.114)
"""Luma of RGB (ITU-R BT.601), as in torchvision."""

CACHED_VALUES = 350_000
"""Number of values that a CPU processes at a time, so that they stay in its cache between operations."""

JITTER_STEPS = ("brightness", "contrast", "saturation", "hue")
_NEUTRAL = (1.0, 1.0, 1.0, 0.0)
"""The factors of these steps that change nothing."""
JITTER_ORDER_STREAM = 5  # differs from Views.STREAM, so that no two uses of the seed share random numbers


class Normalization(NamedTuple):
    """Normalisation of values in [0, 1], per channel: (value − mean) / standard deviation."""

    mean: tuple[float, ...] = MEAN
    standard_deviation: tuple[float, ...] = STANDARD_DEVIATION


IMAGENET = Normalization()
"""Used for training from scratch."""
_NONE = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Views:
    """One random view of every image of a dataset, for one epoch.

    Attributes:
        uniforms: images × 8, uniform in [0, 1): top, left, upside down, mirrored, brightness, contrast,
            saturation, hue.
    """

    uniforms: NDArray[np.float32]

    STREAM: ClassVar[int] = 1

    @classmethod
    def of_epoch(cls, num_images: int, seed: int, epoch: int) -> "Views":
        """Draw the views of an epoch; there is a row for every image of the cache, not only for training images."""
        return cls(np.random.default_rng([seed, cls.STREAM, epoch]).random((num_images, 8), dtype=np.float32))

    def crops(self, cache: ImageCache, rows: NDArray[np.int64], size: int) -> UInt8[Tensor, "n size size 3"]:
        """The random crops of these images, flipped."""
        tops, lefts, upside_down, mirrored = self._windows(cache, rows, size)
        crops = torch.from_numpy(cache.crops(rows, size, tops, lefts))
        for crop, *turned in zip(crops, upside_down, mirrored, strict=True):
            if sides := [side for side, flipped in enumerate(turned) if flipped]:
                crop.copy_(crop.flip(sides))  # ten times as fast as NumPy's
        return crops

    def places(
        self, cache: ImageCache, rows: NDArray[np.int64], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The source pixels of the same crops in their images: rows and columns, n × size each."""
        tops, lefts, upside_down, mirrored = (column[:, None] for column in self._windows(cache, rows, size))
        line = np.arange(size)
        return tops + np.where(upside_down, line[::-1], line), lefts + np.where(mirrored, line[::-1], line)

    def _windows(self, cache: ImageCache, rows: NDArray[np.int64], size: int) -> tuple[NDArray[Any], ...]:
        """Top, left, and the vertical and horizontal flip, of each image's crop."""
        top, left, upside_down, mirrored = self.uniforms[rows, :4].T
        tops = np.floor(top * (cache.heights[rows] - size + 1)).astype(np.int64)
        lefts = np.floor(left * (cache.widths[rows] - size + 1)).astype(np.int64)
        return tops, lefts, upside_down < 0.5, mirrored < 0.5

    def color_draws(self, rows: NDArray[np.int64]) -> Float[Tensor, "n 4"]:
        """The random numbers for each image's brightness, contrast, saturation and hue."""
        return torch.from_numpy(self.uniforms[rows, 4:])


@dataclass(frozen=True)
class ColorJitter:
    """The ranges of the colour jitter, in the units of torchvision's ColorJitter.

    Attributes:
        brightness, contrast, saturation: the factor lies within 1 ± this value.
        hue: the rotation lies within ± this fraction of a full turn, at most 0.5.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def factors(self, draws: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Factors of brightness, contrast and saturation, and the hue as a fraction of a turn, from uniform draws."""
        reach = draws.new_tensor([self.brightness, self.contrast, self.saturation, self.hue])
        return (2 * draws - 1) * reach + draws.new_tensor(_NEUTRAL)


def jitter_orders(num_images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A random order of the four jitter steps for every image of the cache, n × 4, for ``torchvision_jitter``."""
    random = np.random.default_rng([seed, JITTER_ORDER_STREAM, epoch])
    return random.permuted(np.tile(np.arange(len(JITTER_STEPS)), (num_images, 1)), axis=1)


def torchvision_jitter(
    crops: UInt8[Tensor, "n h w 3"], factors: Float[Tensor, "n 4"], orders: NDArray[np.int64]
) -> UInt8[Tensor, "n h w 3"]:
    """torchvision's ColorJitter, image by image on bytes, as in its recommended pipelines; the hue rotates in HSV.

    Each step rounds to bytes, and so clips to [0, 255]. As in torchvision, a step without any range is left out.

    Args:
        crops: bytes, on any device.
        factors: of each image (see ``ColorJitter.factors``), on the CPU.
        orders: n × 4, places in ``JITTER_STEPS`` (see ``jitter_orders``).
    """
    from torchvision.transforms.v2 import functional as adjust  # takes a second to import

    steps = [getattr(adjust, f"adjust_{name}") for name in JITTER_STEPS]
    moved = torch.empty_like(crops)
    for crop, of_image, order, result in zip(crops, factors.tolist(), orders.tolist(), moved, strict=True):
        image = crop.permute(2, 0, 1)
        for step in order:
            if of_image[step] != _NEUTRAL[step]:
                image = steps[step](image, of_image[step])
        result.copy_(image.permute(1, 2, 0))
    return moved


def to_network(
    crops: UInt8[Tensor, "n h w 3"],
    normalization: Normalization = IMAGENET,
    layout: torch.memory_format = torch.channels_last,
) -> Float[Tensor, "n 3 h w"]:
    """Convert bytes to normalised values, the network's input, in this layout."""
    inputs = normalize(crops.to(torch.float32) / 255, normalization).permute(0, 3, 1, 2)
    return inputs.contiguous(memory_format=layout)


def jitter_to_network(
    crops: UInt8[Tensor, "n h w 3"],
    factors: Float[Tensor, "n 4"],
    layout: torch.memory_format,
    normalization: Normalization = IMAGENET,
) -> Float[Tensor, "n 3 h w"]:
    """Like ``to_network``, with colour jitter by each image's factors (see ``ColorJitter.factors``).

    Jitter, conversion and normalisation are a single map. The factors are on the CPU, on whichever device the crops
    are.
    """
    images, height, width, channels = crops.shape
    inputs = torch.empty((images, channels, height, width), device=crops.device, memory_format=layout)
    at_once = images if crops.is_cuda else max(1, CACHED_VALUES // crops[0].numel())
    maps = (sent(tensor, crops.device) for tensor in color_maps(factors, 255, normalization))
    bounds = [sent(tensor, crops.device) for tensor in _bounds(normalization)]
    parts = (tensor.split(at_once) for tensor in (crops, *maps, inputs))
    for portion, matrices, grey_weights, result in zip(*parts, strict=True):
        map_colors(portion, matrices, grey_weights, *bounds, out=result.permute(0, 2, 3, 1))
    return inputs


def memory_layout(name: str) -> torch.memory_format:
    """The memory format of torch for a value of the key ``memory_format`` other than ``auto``."""
    return {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[name]


def normalize(colors: Float[Tensor, "n h w 3"], normalization: Normalization = IMAGENET) -> Float[Tensor, "n h w 3"]:
    """(values − mean) / standard deviation, per channel."""
    mean, deviation = (_constant(values, colors) for values in normalization)
    return torch.sub(colors, mean).div_(deviation)


def _constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A tensor on the device of ``like``, created without waiting for the computations there."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


def jitter(colors: Float[Tensor, "n h w 3"], factors: Float[Tensor, "n 4"]) -> Float[Tensor, "n h w 3"]:
    """Brightness, contrast, saturation and hue as one affine map per image, clipped to [0, 1] at the end."""
    maps = color_maps(factors, 1, _NONE)
    return map_colors(
        colors, *maps, *_bounds(_NONE), out=torch.empty_like(colors, memory_format=torch.contiguous_format)
    )


def color_maps(
    factors: Float[Tensor, "n 4"], white: float, normalization: Normalization
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]:
    """The linear map from each image's RGB values, 0 … ``white``, to the network's, and the weight of its mean grey.

    Contrast blends with the mean grey, which neither saturation nor hue changes, so the same multiple of it is added to
    all three channels, before the normalisation.
    """
    brightness, contrast, saturation, hue = factors.unbind(dim=1)
    matrices = color_matrices(saturation, hue) * (brightness * contrast)[:, None, None]
    grey_weights = (1 - contrast) * brightness
    unit = white * factors.new_tensor(normalization.standard_deviation)
    return matrices / unit[:, None], grey_weights[:, None] / unit


def _bounds(normalization: Normalization) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
    """The normalised values of black and white."""
    mean, deviation = (torch.tensor(values) for values in normalization)
    return -mean / deviation, (1 - mean) / deviation


def map_colors(
    values: Float[Tensor, "n h w 3"] | UInt8[Tensor, "n h w 3"],
    matrices: Float[Tensor, "n 3 3"],
    grey_weights: Float[Tensor, "n 3"],
    black: Float[Tensor, " 3"],
    white: Float[Tensor, " 3"],
    out: Float[Tensor, "n h w 3"],
) -> Float[Tensor, "n h w 3"]:
    """Apply the maps of ``color_maps`` plus ``black``, and clip to ``black`` … ``white``, into ``out``.

    An output value depends on the values of its own pixel, which lie up to two places before or after it. So the map is
    a sum over five shifts of the whole image, with weights that are equal in all rows and zero where a shift reaches
    another pixel. No channel has to be moved in memory. (A product of such small matrices takes longer, and rounds
    differently on different machines.)
    """
    images, height, width, channels = values.shape
    reach = channels - 1
    length = height * width * channels
    padded = matrices.new_empty((images, length + 2 * reach))
    padded[:, :reach] = padded[:, -reach:] = 0
    padded[:, reach:-reach].copy_(values.flatten(1))
    shifted = [padded[:, shift : shift + length].unflatten(1, (height, -1)) for shift in range(2 * reach + 1)]

    def in_rows(of_channels: Tensor) -> Tensor:
        return of_channels.repeat(1, width)[:, None]

    mean_grey = _mean_grey(shifted[reach])[:, None]
    wide = functional.pad(matrices, (reach, reach))
    weights = [in_rows(wide.diagonal(shift, dim1=1, dim2=2)) for shift in range(2 * reach + 1)]
    mapped = torch.addcmul(in_rows(black + grey_weights * mean_grey), weights[0], shifted[0])
    for of_shift, neighbours in zip(weights[1:], shifted[1:], strict=True):
        mapped.addcmul_(of_shift, neighbours)
    low, high = in_rows(black[None]), in_rows(white[None])
    if out.is_contiguous():
        torch.clamp(mapped, low, high, out=out.view_as(mapped))
    else:
        out.copy_(torch.clamp(mapped, low, high, out=mapped).view_as(out))
    return out


def _mean_grey(rows: Float[Tensor, "n h w3"]) -> Float[Tensor, " n"]:
    """The mean grey of each image; the sums of bytes are exact, so no order of summation changes it."""
    height, width = rows.shape[1], rows.shape[2] // len(GREY)
    sums = rows.sum(dim=1).unflatten(1, (width, -1)).sum(dim=1, dtype=torch.float64)
    return ((sums * _constant(GREY, sums)).sum(dim=1) / (height * width)).to(rows.dtype)


def color_matrices(saturation: Float[Tensor, " n"], hue: Float[Tensor, " n"]) -> Float[Tensor, "n 3 3"]:
    """The linear maps of RGB that scale the saturation and rotate the hue; both leave grey unchanged."""
    grey = saturation.new_tensor(GREY).expand(3, 3)
    saturate = saturation[:, None, None] * (torch.eye(3).to(grey) - grey) + grey
    to_yiq = saturation.new_tensor(_RGB_TO_YIQ)
    from_yiq = saturation.new_tensor(_YIQ_TO_RGB)
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rows = [torch.stack(row, dim=-1) for row in ((one, zero, zero), (zero, cos, sin), (zero, -sin, cos))]
    return from_yiq @ torch.stack(rows, dim=-2) @ to_yiq @ saturate


_RGB_TO_YIQ = [list(GREY), [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]]
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ).tolist()
