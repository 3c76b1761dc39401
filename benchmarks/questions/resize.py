"""The resize stage compared with plain Pillow on the same files, and on more cores."""

import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.catalogue import Settings
from benchmarks.images import photographs, write_dataset
from benchmarks.measure import Comparison, Target, in_turn, pinned
from benchmarks.training import speed
from cclnet.dataset.sample import Photograph
from cclnet.dataset.tables import image_members
from cclnet.images.cache import build_cache
from cclnet.images.decoding import resized_size

IMAGES = 210
TARGETS = {256: Target(low=1), 64: Target(low=3)}
"""Shorter side in pixels → the target of the stage's speed divided by Pillow's."""
CAMERA_SIZE, CAMERA_IMAGES = (3000, 2250), 14


def run(settings: Settings) -> list[Comparison]:
    """Measure resizing to the paper's size and to 64 pixels, from files as in ISIC 2018 and from a camera's."""
    shots = photographs(14 if settings.tiny else IMAGES, settings.images)
    from_camera = [
        shot._replace(jpeg=as_of_camera(shot.jpeg)) for shot in shots[: 2 if settings.tiny else CAMERA_IMAGES]
    ]
    comparisons = [row for side, target in TARGETS.items() for row in compare(shots, side, target, settings)]
    width, height = CAMERA_SIZE
    first, *_ = compare(from_camera, 64, None, settings)
    return [*comparisons, replace(first, case=f"{width} × {height} {first.case}")]


def compare(
    shots: Sequence[Photograph], short_side: int, target: Target | None, settings: Settings
) -> list[Comparison]:
    """Compare the stage with Pillow for one size, and on more cores."""
    cores = min(2, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        input_zip = write_dataset(folder, shots)
        works: dict[str, Callable[[], None]] = {
            "resize stage, 1 core": lambda: resize_stage(folder, input_zip, short_side, 1),
            "Pillow": lambda: pillow(input_zip, short_side),
            "Pillow, decoding alone": lambda: pillow(input_zip, None),
            f"resize stage, {cores} cores": lambda: resize_stage(folder, input_zip, short_side, cores),
        }
        contenders = {name: partial(speed, len(shots), work) for name, work in works.items()}
        one, plain, decoding, several = in_turn(contenders, settings.repetitions).values()
    case = f"to {short_side} px"
    return [
        Comparison(case, "images/s", one, plain, target),
        Comparison(case, "images/s", decoding, plain),
        Comparison(case, "images/s", several, one, Target(low=0.9 * cores)),
    ]


def as_of_camera(data: bytes) -> bytes:
    """The same picture in the size and the quality of a camera's file."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").resize(CAMERA_SIZE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def resize_stage(folder: Path, input_zip: Path, short_side: int, cores: int) -> None:
    """The work of the stage on ``cores`` cores."""
    with pinned(cores):
        members = image_members(input_zip)
        build_cache(input_zip, members, short_side, folder / "images.npy", folder / "images.csv", threads=cores)


def pillow(input_zip: Path, short_side: int | None) -> None:
    """Decode every image on one core and resize it, if there is a size, without keeping the result."""
    with pinned(1), zipfile.ZipFile(input_zip) as archive:
        for name in archive.namelist():
            with Image.open(io.BytesIO(archive.read(name))) as image:
                decoded = image.convert("RGB")
                if short_side:
                    size = resized_size(image.width, image.height, short_side)
                    decoded.resize(size, Image.Resampling.BILINEAR)
