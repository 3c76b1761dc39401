"""From the bytes of an image file to pixels: decoding, resizing, central crop."""

import io
import re
import threading
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

Pixels = NDArray[np.uint8]
"""height × width × 3, RGB."""

MAX_PIXELS = 64_000_000
"""Larger images are refused: they do not occur in dermoscopy, but in decompression bombs."""

REDUCTIONS = (8, 4, 2)
"""Fractions of its size at which a JPEG can be decoded, without computing the pixels between."""
LEAST_REDUCED = 1.5
"""Smallest ratio of a reduced image's shorter side to that of the resized image. In originals of ISIC 2018 it changes a
resized image by 0.4 of 255 levels on average, and 999 of 1,000 values by at most 3."""

_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")
"""Pillow reads more formats; some hide more than 8 bits per channel (PPM, JPEG 2000) or start a program (EPS)."""
_OPAQUE_MODES = {"1", "L", "P", "RGB", "CMYK", "YCbCr"}
_ALPHA_MODES = {"LA", "PA", "RGBA"}
_WIDE_SAMPLES = re.compile(r";(12|16|32|64)")
"""Matches Pillow's name of a sample layout. Pillow calls 16-bit colours RGB and reduces them to 8 bits on loading."""
_SUBFILE_TYPE, _BITS_PER_SAMPLE, _ORIENTATION, _SAMPLE_FORMAT = 254, 258, 274, 339
_UNSIGNED = 1
_REDUCED_OR_MASK = 0b101
"""Bits of the subfile type of a TIFF page: a reduced version of another page, or a transparency mask."""
_MOST_TIFF_PAGES = 100
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES, _ENDS_LEFT, _ENDS_AT_TOP = {5, 6, 7, 8}, {2, 3, 6, 7}, {3, 4, 7, 8}
"""Orientations that exchange width and height, and that move the stored right or lower edge to the left or the top; all
refer to the upright image."""
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
"""The colour space that a profile must have for each image mode."""
_SRGB_GAMMA = 1 / 2.2
_SRGB_CHROMATICITY = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_NEARLY_SRGB = 2
"""In levels: a profile that changes no colour by more than this is treated as sRGB, and the stored values are kept."""
_LATTICES: dict[str, NDArray[np.uint8]] = {
    "RGB": (np.indices((9, 9, 9)).T.reshape(27, 27, 3) * 255 // 8).astype(np.uint8),
    "L": np.arange(256, dtype=np.uint8).reshape(16, 16),
}
"""Sample colours to measure the effect of a profile."""


def decode(data: bytes) -> Image.Image:
    """Decode a file's bytes to upright RGB, as an image viewer shows them.

    Grey, palette and CMYK images are converted, an opaque alpha channel is dropped, the EXIF orientation and an
    embedded ICC profile are applied. A damaged EXIF block or profile is ignored, as in viewers. From a JPEG with
    several pictures (MPO) the first one is used, and from a TIFF with reduced versions of its page the full page.

    Raises:
        ValueError: the bytes are not an image, are truncated, contain several frames or pages, more than
            ``MAX_PIXELS``, transparent pixels, signed samples, or more than 8 bits per channel, which a conversion
            would silently truncate. The contents of a file cause no other exception.
    """
    return _decode(data, None).image


def decode_resized(data: bytes, short_side: int) -> "Resized":
    """Decode a file's bytes as ``decode`` does, and resize the image to this shorter side as ``resize`` does.

    A JPEG whose shorter side is more than ``LEAST_REDUCED`` times twice, four or eight times as long is decoded at a
    half, a quarter or an eighth of its size first, which takes less time. This depends on the sizes alone. The resize
    stage and every prediction call this function, so that they see the same pixels.

    Raises:
        ValueError: as ``decode`` and ``resize``.
    """
    decoded = _decode(data, short_side)
    return Resized(_resized(decoded, short_side), decoded.size)


@dataclass(frozen=True)
class Resized:
    """A resized image, RGB.

    Attributes:
        image: the resized image.
        original_size: width and height of the whole image, upright.
    """

    image: Image.Image
    original_size: tuple[int, int]

    @property
    def pixels(self) -> Pixels:
        """The pixels of the resized image."""
        return np.asarray(self.image)


@dataclass(frozen=True)
class _Decoded:
    """An upright image, decoded at full size or less.

    Attributes:
        image: the image.
        size: width and height at full size.
        box: left, top, right and bottom of the part of ``image`` that the full image covers; the last pixels of a
            reduced image may reach beyond its edge.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float]


def _decode(data: bytes, short_side: int | None) -> _Decoded:
    try:
        with _QUIET:
            return _decoded(Image.open(io.BytesIO(data), formats=_FORMATS), short_side)
    except UnidentifiedImageError:
        raise ValueError("cannot be decoded: not in any known image format") from None
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise almost any exception for damaged files
        raise ValueError(f"cannot be decoded: {_words(error)}") from error


class _RefusedError(Exception):
    """A readable image whose pixels cannot be converted faithfully."""


def _decoded(image: ImageFile.ImageFile, short_side: int | None) -> _Decoded:
    if image.width * image.height > MAX_PIXELS:
        raise _RefusedError(f"{image.width} × {image.height} pixels are more than {MAX_PIXELS:,}")
    _require_one_frame(image)
    _require_8_bits(image)
    _require_all_strips(image)
    size, reduction = image.size, 1 if short_side is None else _reduce(image, short_side)
    image.load()
    _require_opaque(image)
    _require_srgb_chunks(image)
    orientation = _orientation(image)
    upright = image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
    width, height = size[::-1] if orientation in _SWAPS_SIDES else size
    left = upright.width - width / reduction if orientation in _ENDS_LEFT else 0
    top = upright.height - height / reduction if orientation in _ENDS_AT_TOP else 0
    box = (left, top, left + width / reduction, top + height / reduction)
    return _Decoded(_in_srgb(upright, image.info.get("icc_profile")), (width, height), box)


def _reduce(image: ImageFile.ImageFile, short_side: int) -> int:
    """Have a JPEG decoded at the smallest size that suffices for this shorter side; return the divisor of its size."""
    if image.format not in ("JPEG", "MPO"):
        return 1
    for reduction in REDUCTIONS:
        if min(image.size) >= LEAST_REDUCED * reduction * short_side:
            image.draft(None, (image.width // reduction, image.height // reduction))  # pyright: ignore[reportArgumentType]
            return reduction
    return 1


def _require_one_frame(image: ImageFile.ImageFile) -> None:
    if image.format == "TIFF" and getattr(image, "is_animated", False):
        if not _later_pages_are_reduced(image):
            raise _RefusedError("has several pages: store the page to use in a file of its own")
    elif image.format != "MPO" and getattr(image, "is_animated", False):
        raise _RefusedError("is an animation: store the frame to use in a file of its own")


def _later_pages_are_reduced(image: Any) -> bool:
    """Whether the later pages of a TIFF are reduced versions or masks of the first; if so, seek back to the first."""
    for page in range(1, _MOST_TIFF_PAGES):
        try:
            image.seek(page)
        except EOFError:
            image.seek(0)
            return True
        subfile = image.tag_v2.get(_SUBFILE_TYPE, 0)
        if not (isinstance(subfile, int) and subfile & _REDUCED_OR_MASK):
            return False
    return False


def _require_8_bits(image: ImageFile.ImageFile) -> None:
    layouts = [str(tile.args if isinstance(tile.args, str) else tile.args[0]) for tile in image.tile if tile.args]
    packed = image.format == "BMP"  # 5 or 6 bits per channel, 16 per pixel
    wide = [layout for layout in layouts if _WIDE_SAMPLES.search(layout) and not packed]
    mode = wide[0] if wide and image.mode in _OPAQUE_MODES | _ALPHA_MODES else image.mode
    if image.format == "TIFF" and max(_tag(image, _BITS_PER_SAMPLE)) > 8:
        mode = f"{image.mode} of {max(_tag(image, _BITS_PER_SAMPLE))} bits"  # separate planes have no layout
    if image.format == "TIFF" and set(_tag(image, _SAMPLE_FORMAT)) != {_UNSIGNED}:
        mode = f"{image.mode} of signed or floating-point samples"
    if mode not in _OPAQUE_MODES | _ALPHA_MODES:
        raise _RefusedError(f"mode {mode}: only grey and colour images of 8 unsigned bits a channel can be used")


def _require_all_strips(image: ImageFile.ImageFile) -> None:
    """Refuse a TIFF whose strips or tiles do not cover it: Pillow would leave the rest black without a word."""
    boxes = {tile.extents for tile in image.tile if tile.extents}
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if image.format == "TIFF" and covered < image.width * image.height:
        raise _RefusedError(f"cannot be decoded: it holds {covered:,} of its {image.width} × {image.height} pixels")


def _tag(image: Any, tag: int) -> tuple[Any, ...]:
    """The values of a TIFF tag; the default is 1, the standard's default of the two tags that are read here."""
    values = image.tag_v2.get(tag, (1,))
    return values if isinstance(values, tuple) else (values,)


def _require_opaque(image: Image.Image) -> None:
    """Refuse transparent pixels, which viewers display differently."""
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return
    alpha = (image if image.mode in _ALPHA_MODES - {"PA"} else image.convert("RGBA")).getchannel("A")
    lowest, _ = alpha.getextrema()
    if lowest != 255:
        raise _RefusedError(f"mode {image.mode} with transparent pixels: put it on the background that it needs")
    image.info.pop("transparency", None)


def _require_srgb_chunks(image: Image.Image) -> None:
    """Refuse a PNG without a profile whose chunks specify colours other than sRGB, because viewers differ."""
    if image.format != "PNG" or "icc_profile" in image.info or "srgb" in image.info:
        return
    gamma = image.info.get("gamma", _SRGB_GAMMA)
    if abs(gamma / _SRGB_GAMMA - 1) > 0.05:
        raise _RefusedError(f"has a gamma of {gamma:g} instead of {_SRGB_GAMMA:.5f}: convert it to sRGB")
    chromaticity = image.info.get("chromaticity", _SRGB_CHROMATICITY)
    if np.abs(np.subtract(chromaticity, _SRGB_CHROMATICITY)).max() > 0.01:
        raise _RefusedError("has other primary colours than sRGB, and no profile: convert it to sRGB")


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation; None if the tag or the block is invalid."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:
        return None
    return orientation if isinstance(orientation, int) else None


def _in_srgb(image: Image.Image, profile: Any) -> Image.Image:
    if image.mode not in _SPACES:
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    transform = _to_srgb(profile, image.mode) if isinstance(profile, bytes) else None
    if transform:
        return transform.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would make another copy


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB; None if it changes almost nothing or the profile does not fit."""
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    if mode in _LATTICES and _changes_little(transform, _LATTICES[mode]):
        return None
    return transform  # pyright: ignore[reportReturnType] - it is typed as its base class


def _changes_little(transform: Any, colours: NDArray[np.uint8]) -> bool:
    changed = np.asarray(transform.apply(Image.fromarray(colours))).astype(int)
    return int(np.abs(changed - colours.reshape(*colours.shape[:2], -1)).max()) <= _NEARLY_SRGB


def _words(error: Exception) -> str:
    """The message of an exception as one printable line."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in str(error)).split())
    if isinstance(error, (OSError, SyntaxError, ValueError, Image.DecompressionBombError)) and words:
        return words
    return f"{type(error).__name__} {words}".strip()


class _Quiet:
    """Ignores Pillow's warnings while any thread decodes.

    ``warnings.catch_warnings`` saves and restores a list of the whole process, so overlapping threads could restore the
    wrong one. Here the first thread to enter saves it and the last one to leave restores it.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._saved.__exit__(None, None, None)


_QUIET = _Quiet()


def resized_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the given short side and the aspect ratio preserved to the nearest pixel."""
    scale = short_side / min(width, height)
    return max(short_side, round(width * scale)), max(short_side, round(height * scale))


def resize(image: Image.Image, short_side: int) -> Pixels:
    """Resize an image with antialiasing (bilinear, as torchvision's Resize).

    Raises:
        ValueError: the image is so narrow that it would grow beyond ``MAX_PIXELS``.
    """
    return np.asarray(_resized(_Decoded(image, image.size, (0, 0, *image.size)), short_side))


def _resized(decoded: _Decoded, short_side: int) -> Image.Image:
    size = resized_size(*decoded.size, short_side)
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{decoded.size[0]} × {decoded.size[1]} pixels would become {size[0]} × {size[1]}")
    return decoded.image.resize(size, Image.Resampling.BILINEAR, box=decoded.box)


def central_crop(image: Pixels, size: int) -> Pixels:
    """The central crop of an image, size × size × 3 (as torchvision's CenterCrop)."""
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]
