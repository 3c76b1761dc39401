"""From JPEGs in a zip to one memory-mapped array of resized images, and crops out of it.

The array is flat: the images stand one after the other as height × width × 3 bytes, so that sizes and aspect ratios
may differ. A table beside it (image, height, width, offset, sha256 of the original file) says where each one is.
"""

import hashlib
import io
import lzma
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from cclnet.errors import DataError, Problem
from cclnet.files import read_csv, write_csv
from cclnet.progress import Report, silent

Item = TypeVar("Item")
Result = TypeVar("Result")

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


def build_cache(
    input_zip: Path,
    members: Mapping[str, str],
    short_side: int,
    pixels_file: Path,
    index_file: Path,
    threads: int,
    report: Report = silent,
) -> None:
    """Decode and resize every image once, straight out of the zip.

    Args:
        input_zip: the zip of the images.
        members: image id → the name of its member of the zip.
        short_side: pixels of the shorter side.
        pixels_file: where the array goes (npy).
        index_file: where the table goes (csv).
        threads: images decoded at the same time; Pillow works outside the interpreter's lock.
        report: told of the progress.

    Raises:
        DataError: images cannot be decoded; all of them are named, and neither file is left behind.
    """
    problems: list[Problem] = []
    rows = []

    def shrink(data: bytes) -> tuple[Pixels, str]:
        return resize(decode(data), short_side), hashlib.sha256(data).hexdigest()

    names = sorted(members)
    offset = 0
    partial = pixels_file.with_suffix(".partial")
    try:
        with partial.open("wb") as pixels:
            pixels.write(_header(0))
            results = map_members(input_zip, [members[name] for name in names], shrink, threads)
            for done, (name, loaded) in enumerate(zip(names, results, strict=True), start=1):
                report("images resized", done, len(names))
                if isinstance(loaded, ValueError):
                    problems.append(Problem(f"{name} in {input_zip.name}", str(loaded)))
                    continue
                resized, digest = loaded
                pixels.write(resized.data)
                rows.append((name, resized.shape[0], resized.shape[1], offset, digest))
                offset += resized.size
            pixels.seek(0)
            pixels.write(_header(offset))
        if problems:
            raise DataError(f"{len(problems)} of {len(names)} images cannot be used; replace or remove them:", problems)
        write_csv(index_file, pd.DataFrame(rows, columns=["image", "height", "width", "offset", "sha256"]))
        partial.replace(pixels_file)
    finally:
        partial.unlink(missing_ok=True)


def _header(length: int) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (length,)})
    return header.getvalue()


def map_members(
    input_zip: Path, members: Sequence[str], function: Callable[[bytes], Result], threads: int
) -> Iterator[Result | ValueError]:
    """Apply a function to the bytes of members of a zip, several at the same time.

    Args:
        input_zip: the zip.
        members: the names of those of its members that are wanted.
        function: what to do with a member's bytes; it may refuse them with a ValueError.
        threads: how many members are worked on at the same time.

    Yields:
        For each member, in their order, what the function returned, or the ValueError that says what is wrong.
    """
    with _ZipReader(input_zip) as reader:
        yield from _map(reader.read, members, function, threads)


def map_files(
    files: Sequence[Path], function: Callable[[bytes], Result], threads: int
) -> Iterator[Result | ValueError]:
    """``map_members`` of files that are in no zip."""
    yield from _map(_read_file, files, function, threads)


def _map(
    read: Callable[[Item], bytes], items: Sequence[Item], function: Callable[[bytes], Result], threads: int
) -> Iterator[Result | ValueError]:
    def load(item: Item) -> Result | ValueError:
        try:
            return function(read(item))
        except ValueError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        yield from _in_order(pool, load, items, 8 * threads)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item], ahead: int
) -> Iterator[Result]:
    """``pool.map`` that never holds more than ``ahead`` results, so that memory does not grow with the dataset."""
    pending = [pool.submit(function, item) for item in items[:ahead]]
    for item in [*items[ahead:], *[None] * min(ahead, len(items))]:
        yield pending.pop(0).result()
        if item is not None:
            pending.append(pool.submit(function, item))


class _ZipReader:
    """Members of one open zip, read from several threads."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """The contents of a member.

        Raises:
            ValueError: it does not unpack to its checksum.
        """
        try:
            with self._lock, self._zip.open(name) as stream:
                size_in_directory = self._zip.getinfo(name).file_size
                return stream.read(size_in_directory)  # and no more, whatever it would unpack to
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, OSError, EOFError) as error:
            raise ValueError("is damaged") from error


@dataclass(frozen=True)
class ImageCache:
    """The resized images, read from disk as they are used.

    Attributes:
        pixels: the flat array of all images' bytes.
        images: the image ids, sorted.
        heights, widths, offsets: pixels, pixels and bytes, one for each image.
    """

    pixels: Pixels
    images: list[str]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def open(cls, pixels_file: Path, index_file: Path) -> Self:
        """Open what ``build_cache`` wrote."""
        index = read_csv(index_file, ["image", "sha256"])
        columns = (index[name].to_numpy(np.int64) for name in ("height", "width", "offset"))
        pixels = np.asarray(np.load(pixels_file, mmap_mode="r"))  # a plain array of the same bytes: quicker to cut from
        return cls(pixels, index["image"].tolist(), *columns)

    @property
    def short_side(self) -> int:
        """Pixels of the shorter side, the same for all images."""
        return int(min(self.heights.min(), self.widths.min()))

    def __getitem__(self, row: int) -> Pixels:
        height, width, offset = self.heights[row], self.widths[row], self.offsets[row]
        return self.pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    def rows(self, images: Sequence[str]) -> NDArray[np.int64]:
        """Where the given images stand.

        Raises:
            DataError: some of them are not in the cache.
        """
        row_of = {image: row for row, image in enumerate(self.images)}
        missing = [Problem(image, "not in the resized images") for image in images if image not in row_of]
        if missing:
            raise DataError("the split names images that were not resized; run the resize stage again:", missing)
        return np.array([row_of[image] for image in images], dtype=np.int64)

    def crops(self, rows: NDArray[np.int64], size: int, tops: NDArray[np.int64], lefts: NDArray[np.int64]) -> Pixels:
        """Square crops, n × size × size × 3.

        Args:
            rows: the images.
            size: pixels of a side.
            tops, lefts: the first row and column of each crop, in pixels.
        """
        batch = np.empty((len(rows), size, size, 3), dtype=np.uint8)
        for crop, row, top, left in zip(batch, rows, tops, lefts, strict=True):
            crop[:] = self[row][top : top + size, left : left + size]
        return batch
