"""The images for the measurements: generated in the size of ISIC 2018, or the user's own."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cclnet.dataset.isic import CLASSES, INPUT_ZIP
from cclnet.dataset.sample import CLASS_POINTS, Photograph, draw_lesion, photograph, write_files
from cclnet.dataset.tables import image_members
from cclnet.images.cache import ImageCache, build_cache
from cclnet.inference.pictures import map_pictures, pictures_in
from cclnet.system.errors import DataError

WIDTH, HEIGHT = 600, 450
GRAIN = 2.0
"""Standard deviation of the noise in 8-bit levels, which gives files of 270 KB as in ISIC 2018."""
DISTINCT = 70
"""Number of generated images; larger sets repeat them."""


def photographs(number: int, own: Path | None) -> list[Photograph]:
    """JPEG files, each with a class and a lesion.

    Args:
        number: number of files; they are repeated if there are fewer different ones.
        own: a folder or a zip of images, None for generated images.

    Raises:
        DataError: ``own`` contains no image.
    """
    files = drawn_files(min(number, DISTINCT)) if own is None else own_files(own, number)
    return [Photograph(CLASSES[place % len(CLASSES)], place, files[place % len(files)]) for place in range(number)]


def drawn_files(number: int) -> list[bytes]:
    """Images of the sample's generator, enlarged and with noise, in the quality of ISIC 2018's files."""
    random = np.random.default_rng(0)
    points = list(CLASS_POINTS.values())
    files = []
    for place in range(number):
        small = photograph(random, draw_lesion(random, points[place % len(points)]))
        large = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        grainy = large + GRAIN * random.standard_normal((HEIGHT, WIDTH, 1), np.float32)
        files.append(jpeg(Image.fromarray(grainy.round().clip(0, 255).astype(np.uint8))))
    return files


def own_files(source: Path, number: int) -> list[bytes]:
    """The first files of a folder or a zip."""
    pictures, problems = pictures_in([source])
    if not pictures:
        raise DataError(f"--images {source} cannot be used:", problems)
    return [data for data in map_pictures(pictures[:number], bytes, threads=1) if isinstance(data, bytes)]


def jpeg(image: Image.Image) -> bytes:
    """A JPEG file of the highest quality."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=100, subsampling=0)
    return file.getvalue()


def write_dataset(folder: Path, shots: Sequence[Photograph]) -> Path:
    """Write the three files of the official layout; return the path of the zip of images."""
    write_files(folder, shots)
    return folder / INPUT_ZIP


def open_cache(folder: Path, shots: Sequence[Photograph], short_side: int) -> ImageCache:
    """Resize the photographs as in the resize stage, to ``images.npy`` and ``images.csv`` in a folder."""
    input_zip = write_dataset(folder, shots)
    pixels, index = folder / "images.npy", folder / "images.csv"
    build_cache(input_zip, image_members(input_zip), short_side, pixels, index, threads=os.cpu_count() or 1)
    return ImageCache.open(pixels, index)


def write_image_folder(folder: Path, cache: ImageCache, shots: Sequence[Photograph]) -> None:
    """Write the same resized images as JPEG files in one sub-folder per class, the format of other programs."""
    for row, shot in enumerate(shots):
        path = folder / shot.label / f"{row:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cache[row]).save(path, quality=95)
