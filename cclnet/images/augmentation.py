"""Random crops, flips and colour jitter for whole batches, as a function of (seed, epoch, image) only.

So an image gets the same view in the same epoch, independent of its batch, the order, the number of workers or an
interruption.

The colour jitter follows torchvision's ColorJitter with three differences, which make it a single affine map of the RGB
values: the order is always brightness, contrast, saturation, hue; values are clipped to [0, 1] once at the end and not
after each step; and the hue rotates the colour plane of YIQ instead of the HSV wheel.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from cclnet.images.cache import ImageCache
from cclnet.images.transfer import sent

MEAN = (0.485, 0.456, 0.406)
STANDARD_DEVIATION = (0.229, 0.224, 0.225)
"""Those of ImageNet, for values in [0, 1], which most of torchvision's pretrained weights expect."""

GREY = (0.299, 0.587, 0.114)
"""Luma of RGB (ITU-R BT.601), as in torchvision."""

CACHED_VALUES = 350_000
"""Number of values that a CPU processes at a time, so that they stay in its cache between operations."""


class Normalization(NamedTuple):
    """Normalisation of values in [0, 1], per channel: (value − mean) / standard deviation."""

    mean: tuple[float, ...] = MEAN
    standard_deviation: tuple[float, ...] = STANDARD_DEVIATION


IMAGENET = Normalization()
"""Used for training from scratch."""


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
        return (2 * draws - 1) * reach + draws.new_tensor([1.0, 1.0, 1.0, 0.0])


def to_network(crops: UInt8[Tensor, "n h w 3"], normalization: Normalization = IMAGENET) -> Float[Tensor, "n 3 h w"]:
    """Convert bytes to normalised values, the network's input (channels last in memory)."""
    return normalize(crops.to(torch.float32) / 255, normalization).permute(0, 3, 1, 2)


def jitter_to_network(
    crops: UInt8[Tensor, "n h w 3"],
    factors: Float[Tensor, "n 4"],
    layout: torch.memory_format,
    normalization: Normalization = IMAGENET,
) -> Float[Tensor, "n 3 h w"]:
    """Like ``to_network``, with colour jitter by each image's factors (see ``ColorJitter.factors``) and in this layout.

    The factors are on the CPU, on whichever device the crops are.
    """
    images, height, width, channels = crops.shape
    inputs = torch.empty((images, channels, height, width), device=crops.device, memory_format=layout)
    at_once = images if crops.is_cuda else max(1, CACHED_VALUES // crops[0].numel())
    maps = (sent(tensor, crops.device) for tensor in color_maps(factors))
    parts = (tensor.split(at_once) for tensor in (crops, *maps, inputs))
    for portion, matrices, weights, result in zip(*parts, strict=True):
        colors = map_colors(portion.to(torch.float32).div_(255), matrices, weights)
        normalize(colors, normalization, out=result.permute(0, 2, 3, 1))
    return inputs


def memory_layout(name: Literal["contiguous", "channels_last"]) -> torch.memory_format:
    """The memory format of torch for a value of the key ``memory_format``."""
    return torch.channels_last if name == "channels_last" else torch.contiguous_format


def normalize(
    colors: Float[Tensor, "n h w 3"],
    normalization: Normalization = IMAGENET,
    out: Float[Tensor, "n h w 3"] | None = None,
) -> Float[Tensor, "n h w 3"]:
    """(values − mean) / standard deviation, per channel, in new memory or in ``out``."""
    mean, deviation = (_constant(values, colors) for values in normalization)
    return torch.sub(colors, mean, out=out).div_(deviation)


def _constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A tensor on the device of ``like``, created without waiting for the computations there."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


def jitter(colors: Float[Tensor, "n h w 3"], factors: Float[Tensor, "n 4"]) -> Float[Tensor, "n h w 3"]:
    """Brightness, contrast, saturation and hue as one affine map per image, clipped to [0, 1] at the end."""
    return map_colors(colors, *color_maps(factors))


def color_maps(factors: Float[Tensor, "n 4"]) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, " n"]]:
    """The linear map of each image's RGB values, and the weight of its mean grey, which is added to them.

    Contrast blends with the mean grey, which neither saturation nor hue changes, so the same value is added to all
    three channels.
    """
    brightness, contrast, saturation, hue = factors.unbind(dim=1)
    matrices = color_matrices(saturation, hue) * (brightness * contrast)[:, None, None]
    return matrices, (1 - contrast) * brightness


def map_colors(
    colors: Float[Tensor, "n h w 3"], matrices: Float[Tensor, "n 3 3"], grey_weights: Float[Tensor, " n"]
) -> Float[Tensor, "n h w 3"]:
    """Apply the maps of ``color_maps`` and clip to [0, 1].

    The maps are computed channel by channel in contiguous memory: a product of such small matrices takes longer, and
    rounds differently on different machines. The channels of the result are contiguous too.
    """
    mean_grey = (colors.mean(dim=(1, 2)) * _constant(GREY, colors)).sum(dim=1)
    red, green, blue = colors.permute(0, 3, 1, 2).contiguous().split(1, dim=1)
    from_red, from_green, from_blue = matrices[..., None, None].unbind(dim=2)
    moved = from_red * red
    moved += from_green * green
    moved += from_blue * blue
    moved += (grey_weights * mean_grey)[:, None, None, None]
    return moved.clamp_(0, 1).permute(0, 2, 3, 1)


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
