"""Images of two classes side by side, for pages."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from cclnet.images.decoding import Pixels

SIDE = 160  # pixels of a thumbnail


class PictureOf(NamedTuple):
    """An image of a page: its id, and its pixels as a data URL."""

    name: str
    source: str


class ImagePair(NamedTuple):
    """The images of two similar classes: the nearest pairs, and the most typical images of each class."""

    a: str
    b: str
    nearest_a: list[PictureOf]
    nearest_b: list[PictureOf]
    typical_a: list[PictureOf]
    typical_b: list[PictureOf]


def image_pair(pair: Mapping[str, Any], source_of: Callable[[str], str]) -> ImagePair:
    """The images of a pair of classes.

    Args:
        pair: one of ``inference.examples.with_examples``.
        source_of: gives the pixels of an image as a data URL.
    """

    def strip(images: Sequence[str]) -> list[PictureOf]:
        return [PictureOf(image, source_of(image)) for image in images]

    nearest_a, nearest_b = ([images[place] for images in pair["nearest"]] for place in (0, 1))
    rest = strip(pair["typical_a"]), strip(pair["typical_b"])
    return ImagePair(pair["a"], pair["b"], strip(nearest_a), strip(nearest_b), *rest)


def jpeg_source(pixels: Pixels) -> str:
    """A small copy of an image (RGB) as a data URL."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
