"""The mean colours of images, by which a model notices images unlike those that it was trained on."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cclnet.images.decoding import Pixels

LIMIT = 4.0
"""Standard deviations from the training images' mean beyond which the colour of an image is unlike theirs."""
SMALLEST_DEVIATION = 1.0
"""Levels of 255; generated images may all have one colour."""


class Colours(NamedTuple):
    """Mean and standard deviation over images of their mean colour, per channel, in levels of 255."""

    mean: list[float]
    deviation: list[float]


def mean_colour(image: Pixels) -> NDArray[np.float64]:
    """The mean of an h × w × 3 image in levels of 255, per channel."""
    height, width, channels = image.shape
    return image.reshape(-1, channels).sum(axis=0, dtype=np.int64) / (height * width)


def colours_of(images: Iterable[Pixels]) -> Colours:
    """The colours of at least one image, rounded to a thousandth of a level; equal on every processor."""
    channels = np.array([mean_colour(image) for image in images]).T.tolist()
    means = [math.fsum(values) / len(values) for values in channels]
    squares = [
        math.fsum((value - mean) ** 2 for value in values) / len(values)
        for values, mean in zip(channels, means, strict=True)
    ]
    return Colours([round(mean, 3) for mean in means], [round(math.sqrt(square), 3) for square in squares])


def unlike(colours: Colours, others: ArrayLike) -> NDArray[np.bool_]:
    """Whether each mean colour, n × 3, is more than ``LIMIT`` deviations from the mean in any channel."""
    deviations = np.maximum(colours.deviation, SMALLEST_DEVIATION)
    return np.asarray((np.abs(np.asarray(others) - colours.mean) > LIMIT * deviations).any(axis=1))
