"""All resized images in one memory-mapped array.

The array is flat: the images lie one after the other as height × width × 3 bytes, so that sizes and aspect ratios may
differ. A table beside it (image, height, width, offset, sha256 of the original file) says where each one is.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.images.decoding import Pixels, decode, resize
from cclnet.images.reading import map_members
from cclnet.system.errors import DataError, Problem
from cclnet.system.files import read_csv, write_csv
from cclnet.system.progress import Report, silent
from cclnet.system.writing import whole_file


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
    with whole_file(pixels_file) as pixels:
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


def _header(length: int) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (length,)})
    return header.getvalue()


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
