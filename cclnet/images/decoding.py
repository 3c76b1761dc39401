"""An image file's bytes as pixels: decoding, resizing, the central crop."""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]
"""height × width × 3, RGB."""

MAX_PIXELS = 64_000_000
"""A larger image is refused: dermoscopy has none, decompression bombs have."""

_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")
"""Pillow knows more, some of which hide more than 8 bits a channel (PPM, JPEG 2000) or start a program (EPS)."""
_WHOLE_RANGE_MODES = {"1", "L", "P", "RGB", "CMYK", "YCbCr"}


def decode(data: bytes) -> Image.Image:
    """The picture in a file's bytes as upright RGB.

    Grey, palette and CMYK pictures are converted, the EXIF orientation is applied.

    Raises:
        ValueError: the bytes are no picture, are truncated, are larger than ``MAX_PIXELS``, have transparency, or more
            than 8 bits a channel, which a conversion would silently cut off.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} × {image.height} pixels are more than {MAX_PIXELS:,}")
            mode = _stored_mode(image)
            if mode not in _WHOLE_RANGE_MODES or "transparency" in image.info:
                raise ValueError(f"mode {mode}: only grey and colour images of 8 bits without transparency")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image if image.mode == "RGB" else image.convert("RGB")  # either would make another copy
    except UnidentifiedImageError:
        raise ValueError("cannot be decoded: not in any known image format") from None
    except (OSError, SyntaxError, NotImplementedError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be decoded: {error}") from error


def _stored_mode(image: ImageFile.ImageFile) -> str:
    """The mode of a picture in its file: Pillow calls colours of 16 bits RGB, and cuts them to 8 as it loads them."""
    stored = (tile.args if isinstance(tile.args, str) else tile.args[0] for tile in image.tile if tile.args)
    return next((mode for mode in stored if str(mode).startswith(f"{image.mode};16")), image.mode)


def resized_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the short side as asked and the aspect ratio kept to the nearest pixel."""
    scale = short_side / min(width, height)
    return max(short_side, round(width * scale)), max(short_side, round(height * scale))


def resize(image: Image.Image, short_side: int) -> Pixels:
    """The image scaled, antialiased (bilinear over the whole footprint, as torchvision's Resize).

    Raises:
        ValueError: the image is so narrow that it would grow beyond ``MAX_PIXELS``.
    """
    size = resized_size(image.width, image.height, short_side)
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{image.width} × {image.height} pixels would become {size[0]} × {size[1]}")
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def central_crop(image: Pixels, size: int) -> Pixels:
    """The middle of an image, size × size × 3 (as torchvision's CenterCrop)."""
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]
