"""The resize stage compared with plain Pillow on the same files, and on more cores."""

import io
import os
import tempfile
import zipfile
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.catalogue import Settings
from benchmarks.images import photographs, write_dataset
from benchmarks.measure import Comparison, Target, in_turn, pinned
from benchmarks.training import speed
from cclnet.dataset.tables import image_members
from cclnet.images.cache import build_cache
from cclnet.images.decoding import resized_size

IMAGES, SHORT_SIDE = 210, 256


def run(settings: Settings) -> list[Comparison]:
    """Measure resizing to the paper's size, from files as in ISIC 2018."""
    number = 14 if settings.tiny else IMAGES
    cores = min(2, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        input_zip = write_dataset(folder, photographs(number, settings.images))
        contenders = {
            "resize stage, 1 core": partial(speed, number, lambda: resize_stage(folder, input_zip, 1)),
            "Pillow": partial(speed, number, lambda: pillow(input_zip)),
            "Pillow, decoding alone": partial(speed, number, lambda: pillow(input_zip, resized=False)),
            f"resize stage, {cores} cores": partial(speed, number, lambda: resize_stage(folder, input_zip, cores)),
        }
        one, plain, decoding, several = in_turn(contenders, settings.repetitions).values()
    case = f"to {SHORT_SIDE} px"
    return [
        Comparison(case, "images/s", one, plain, Target(low=1.4)),
        Comparison(case, "images/s", decoding, plain),
        Comparison(case, "images/s", several, one, Target(low=0.9 * cores)),
    ]


def resize_stage(folder: Path, input_zip: Path, cores: int) -> None:
    """The work of the stage on ``cores`` cores."""
    with pinned(cores):
        members = image_members(input_zip)
        build_cache(input_zip, members, SHORT_SIDE, folder / "images.npy", folder / "images.csv", threads=cores)


def pillow(input_zip: Path, resized: bool = True) -> None:
    """Decode every image on one core and optionally resize it, without keeping the result."""
    with pinned(1), zipfile.ZipFile(input_zip) as archive:
        for name in archive.namelist():
            with Image.open(io.BytesIO(archive.read(name))) as image:
                size = resized_size(image.width, image.height, SHORT_SIDE)
                decoded = image.convert("RGB")
                if resized:
                    decoded.resize(size, Image.Resampling.BILINEAR)
