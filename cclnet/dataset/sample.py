"""The embedded dataset: generated dermoscopic images in the official ISIC 2018 layout, with a known class similarity.

A lesion is a point in a space of five visual attributes. Each class has a point there (``CLASS_POINTS``, their
distances multiplied by the sample's separation). A lesion is its class's point plus standard normal noise in every
attribute, and an image is one view of a lesion with random rotation, flip, scale, position, lighting and hairs. Classes
whose points are close overlap, by ``planted_similarity``; a learned soft-label matrix should recover this similarity.

Pixels are computed only with additions, products, divisions and square roots, for which IEEE 754 defines the rounding.
NumPy's exponentials, sines and matrix products differ between processors.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cclnet.dataset.archives import write_zip
from cclnet.dataset.isic import CLASSES, GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from cclnet.dataset.tables import one_hot_table
from cclnet.system.errors import CCLNetError, DataError
from cclnet.system.files import read_json, write_bytes
from cclnet.system.progress import Report, silent

DRAWN = "drawn"
"""The name of the source in params and provenance for the images that this module draws."""
ATTRIBUTES = ("pigment", "size", "irregularity", "globules", "veil")

CLASS_POINTS = {
    "MEL": (1.7, 0.5, 0.5, 1.0, 0.4),
    "NV": (1.4, -0.6, -0.5, 1.2, -1.3),
    "BCC": (-1.2, 0.2, 1.0, 0.0, 1.1),
    "AKIEC": (-1.6, -0.1, 1.9, -1.9, 1.5),
    "BKL": (0.2, 1.7, -0.5, -0.1, -0.7),
    "DF": (0.2, -1.5, -0.6, -0.3, 0.2),
    "VASC": (-0.7, -0.2, -1.7, 0.0, -1.2),
}
"""The position of each class in the space of ``ATTRIBUTES`` at separation 1, in standard deviations of its lesions."""

PLANTED_SIMILARITY = (
    (1.00, 0.52, 0.28, 0.06, 0.41, 0.32, 0.16),
    (0.52, 1.00, 0.12, 0.02, 0.33, 0.43, 0.39),
    (0.28, 0.12, 1.00, 0.55, 0.30, 0.35, 0.20),
    (0.06, 0.02, 0.55, 1.00, 0.08, 0.14, 0.05),
    (0.41, 0.33, 0.30, 0.08, 1.00, 0.25, 0.47),
    (0.32, 0.43, 0.35, 0.14, 0.25, 1.00, 0.49),
    (0.16, 0.39, 0.20, 0.05, 0.47, 0.49, 1.00),
)
"""The overlap of two classes (rows and columns in ISIC order) at separation 1: the Bhattacharyya coefficient of their
Gaussians, exp(−d²/8) for points at distance d. It was chosen so that it does not follow the class sizes. The ranking of
the pairs is the same at every separation above 0."""

SIZE_ORDER = ("NV", "MEL", "BKL", "BCC", "AKIEC", "VASC", "DF")
"""The classes from the most to the least frequent, as in ISIC 2018."""

SMALLEST_CLASS = 5
WIDTH, HEIGHT = 128, 96
JPEG_QUALITY = 90
LESION_SIZES = (0.745, 0.185, 0.06, 0.01)
"""The shares of lesions with one, two, three and four images, similar to HAM10000."""
CONFIRMATION = "histopathology"

Pixels = NDArray[np.floating]


def was_drawn(provenance_file: Path) -> bool:
    """Whether the data of a provenance record were drawn by this module, so that ``PLANTED_SIMILARITY`` applies.

    Raises:
        DataError: the record is missing or damaged.
    """
    try:
        return {file["source"] for file in read_json(provenance_file)} == {DRAWN}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{provenance_file} is not what the download stage wrote: run it again") from None


class Photograph(NamedTuple):
    """One image of the sample: its class and lesion in the tables, and the JPEG file."""

    label: str
    lesion: int
    jpeg: bytes


def planted_similarity(separation: float) -> NDArray[np.floating]:
    """The overlap of each pair of classes at separation s, exp(−s²d²/8), K×K; ``PLANTED_SIMILARITY`` for s = 1."""
    points = separation * np.array([CLASS_POINTS[label] for label in CLASSES])
    return np.exp(-np.square(points[:, None] - points).sum(axis=2) / 8)


def draw_sample(
    folder: Path, images: int, imbalance: float, separation: float, seed: int, report: Report = silent
) -> None:
    """Draw a dataset and write its two zips and lesion table, with the names and layout of the official files.

    Args:
        folder: the target folder of the three files; created if necessary.
        images: number of images to draw.
        imbalance: ratio of the sizes of the largest and the smallest class.
        separation: factor of the distances between the classes' points; at 1 they overlap considerably.
        seed: the same seed gives the same bytes.
        report: called with the number of images drawn.

    Raises:
        CCLNetError: the smallest class would have fewer than five images, or the imbalance is below 1.
    """
    random = np.random.default_rng(seed)
    photographs: list[Photograph] = []
    lesions = 0
    for label, count in class_counts(images, imbalance).items():
        for views in lesion_sizes(random, count):
            lesions += 1
            center = separation * np.array(CLASS_POINTS[label])
            lesion = draw_lesion(random, center + random.standard_normal(len(ATTRIBUTES)))
            for _ in range(views):
                photographs.append(Photograph(label, lesions, encode(photograph(random, lesion))))
            report("drawing the sample", len(photographs), images)
    write_files(folder, [photographs[index] for index in random.permutation(images)])


def class_counts(images: int, imbalance: float) -> dict[str, int]:
    """Number of images of each class: geometrically decreasing in ``SIZE_ORDER`` (largest remainder method).

    Raises:
        CCLNetError: the smallest class would have fewer than five images, or the imbalance is below 1.
    """
    if imbalance < 1:
        raise CCLNetError(f"the sample's imbalance is {imbalance:g}: give largest : smallest class, 1 or more")
    weights = [imbalance ** (-place / (len(SIZE_ORDER) - 1)) for place in range(len(SIZE_ORDER))]
    shares = [images * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    if min(counts) < SMALLEST_CLASS:
        raise CCLNetError(
            f"a sample of {images} images at imbalance {imbalance:g} has a class of fewer than {SMALLEST_CLASS}: "
            "ask for more images or less imbalance"
        )
    by_remainder = sorted(range(len(shares)), key=lambda place: counts[place] - shares[place])
    for place in by_remainder[: images - sum(counts)]:
        counts[place] += 1
    return {label: counts[SIZE_ORDER.index(label)] for label in CLASSES}


def lesion_sizes(random: np.random.Generator, images: int) -> list[int]:
    """Divide a class's images among its lesions: one to four images each, and at least three lesions."""
    most = min(len(LESION_SIZES), images // 3)
    sizes: list[int] = []
    while (left := images - sum(sizes)) > 0:
        size = 1 + int(np.searchsorted(np.cumsum(LESION_SIZES)[:-1], random.random(), side="right"))
        sizes.append(min(size, most, left))
    return sizes


def draw_lesion(random: np.random.Generator, attributes: Sequence[float] | NDArray[np.float64]) -> Image.Image:
    """Draw a lesion without skin, in frontal view.

    Args:
        random: generates the details: the outline, the positions of the globules, the mottling.
        attributes: one value for each of ``ATTRIBUTES``, about −3.5 to 3.5.

    Returns:
        A square RGBA image of 128 pixels, transparent where the skin shows.
    """
    pigment, size, irregularity, globules, veil = (float(min(max((value + 3.5) / 7, 0), 1)) for value in attributes)
    y, x = np.mgrid[0:WIDTH, 0:WIDTH].astype(np.float32) - (WIDTH - 1) / 2
    distance = np.sqrt(x * x + y * y) + np.float32(1e-3)

    blotches, grain = noise(random, WIDTH, WIDTH, 10), noise(random, WIDTH, WIDTH, 36)
    radius = (13 + 26 * size) * outline(random, x / distance, y / distance, 0.32 * irregularity)
    radius *= 1 + 0.08 * blotches + 0.04 * grain
    inside = smooth_step((radius - distance) / 2)
    mottling = 1 + 0.14 * blotches + 0.12 * grain - 0.2 * smooth_step((distance / radius - 0.75) * 5)
    colour = blend((0.84, 0.53, 0.46), (0.36, 0.21, 0.15), pigment) * mottling[..., None]

    white = 0.9 * veil * smooth_step(((0.15 + 0.65 * veil) * radius - distance) / 4)
    colour += white[..., None] * (np.array([0.86, 0.80, 0.82], np.float32) - colour)
    dark = (0.1 + 0.9 * globules) * dots(random, x, y, 0.3 + 0.5 * globules)
    colour *= 1 - dark[..., None] * np.array([0.6, 0.68, 0.66], np.float32)
    return Image.fromarray(bytes_of(np.concatenate([colour, 0.93 * inside[..., None]], axis=2)))


def outline(random: np.random.Generator, cosine: Pixels, sine: Pixels, irregularity: float) -> Pixels:
    """The radius in every direction, 1 on average: an ellipse-like bulge and lobes of the given root mean square."""
    weights = random.standard_normal((5, 2)) / np.array([[1.0], [1.5], [2.0], [2.5], [3.0]])
    weights *= irregularity / np.sqrt((weights * weights).sum() / 2)
    radius, lower, wave = np.ones_like(cosine), (np.ones_like(cosine), np.zeros_like(sine)), (cosine, sine)
    for weight in weights:
        lower, wave = wave, (2 * cosine * wave[0] - lower[0], 2 * cosine * wave[1] - lower[1])
        radius += np.float32(weight[0]) * wave[0] + np.float32(weight[1]) * wave[1]
    return np.maximum(radius, np.float32(0.3))


def dots(random: np.random.Generator, x: Pixels, y: Pixels, density: float) -> Pixels:
    """Round globules, 0 to 1, each at a random place in its grid cell; ``density`` is the share of cells with one."""
    spacing, cells = 11, WIDTH // 11 + 2
    row, column = ((axis / spacing + cells / 2).astype(np.int64) for axis in (y, x))
    place = random.uniform(-1.6, 1.6, (2, cells, cells)).astype(np.float32)
    broad = random.uniform(2.8, 4, (cells, cells)).astype(np.float32)
    present = (random.random((cells, cells)) < density).astype(np.float32)
    across = x - (column + 0.5 - cells / 2).astype(np.float32) * spacing - place[0][row, column]
    down = y - (row + 0.5 - cells / 2).astype(np.float32) * spacing - place[1][row, column]
    return present[row, column] * smooth_step((broad[row, column] - np.sqrt(across * across + down * down)) / 1.2)


def photograph(random: np.random.Generator, lesion: Image.Image) -> Image.Image:
    """One view of a lesion on skin: rotated, mirrored, scaled and shifted, with random lighting and sometimes hairs."""
    turn = random.standard_normal(2)
    cosine, sine = turn / np.sqrt(turn[0] * turn[0] + turn[1] * turn[1]) / random.uniform(0.93, 1.08)
    mirror = 1 - 2 * int(random.integers(2))
    shift_x, shift_y = random.uniform(-6, 6, 2)
    middle = (WIDTH - 1) / 2
    centre_x, centre_y = WIDTH / 2 + shift_x, HEIGHT / 2 + shift_y
    affine = (
        cosine, -sine, middle - cosine * centre_x + sine * centre_y,
        mirror * sine, mirror * cosine, middle - mirror * (sine * centre_x + cosine * centre_y),
    )  # fmt: skip
    view = lesion.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)

    skin = blend((0.93, 0.74, 0.64), (0.78, 0.57, 0.47), random.random())
    skin = skin * (1 + 0.05 * noise(random, WIDTH, HEIGHT, 6) + 0.025 * noise(random, WIDTH, HEIGHT, 40))[..., None]
    layer = np.asarray(view, np.float32) / 255
    scene = skin + layer[..., 3:] * (layer[..., :3] - skin)
    if random.random() < 0.3:
        scene *= 1 - hairs(random)[..., None] * np.array([0.6, 0.68, 0.72], np.float32)
    speckle = 0.015 * random.standard_normal(scene.shape, np.float32)
    return Image.fromarray(bytes_of(scene * light(random)[..., None] + speckle))


def light(random: np.random.Generator) -> Pixels:
    """Brightness of every pixel: a gradient across the image, and the dark corners of some dermatoscopes."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) - np.array([[[HEIGHT]], [[WIDTH]]], np.float32) / 2
    tilt = random.uniform(-0.1, 0.1, 2).astype(np.float32)
    brightness = np.float32(random.uniform(0.9, 1.08)) * (1 + tilt[0] * x / WIDTH + tilt[1] * y / HEIGHT)
    if random.random() < 0.3:
        brightness *= smooth_step((np.float32(random.uniform(60, 74)) - np.sqrt(x * x + y * y)) / 5)
    return brightness


def hairs(random: np.random.Generator) -> Pixels:
    """Dark curved hairs across the image, 0 to 1."""
    canvas = Image.new("L", (2 * WIDTH, 2 * HEIGHT))
    pencil = ImageDraw.Draw(canvas)
    for _ in range(int(random.integers(2, 8))):
        start, middle, end = random.uniform(-0.1, 1.1, (3, 2)) * (2 * WIDTH, 2 * HEIGHT)
        middle = (start + end + middle) / 3
        steps = [step / 16 for step in range(17)]
        curve = [(1 - t) * (1 - t) * start + 2 * t * (1 - t) * middle + t * t * end for t in steps]
        pencil.line([(float(point[0]), float(point[1])) for point in curve], fill=255, width=2)
    return np.asarray(canvas.reduce(2), np.float32) / 255


def noise(random: np.random.Generator, width: int, height: int, cells: int) -> Pixels:
    """Smooth noise with a standard deviation of about one half and about ``cells`` bumps along each side."""
    coarse = Image.fromarray(random.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def smooth_step(value: Pixels) -> Pixels:
    """A smooth step from 0 to 1, with 0.5 at 0: a sigmoid without an exponential."""
    return 0.5 + 0.5 * value / np.sqrt(1 + value * value)


def blend(first: Sequence[float], second: Sequence[float], share: float) -> Pixels:
    """Interpolate linearly between two colours."""
    start, end = np.array(first, np.float32), np.array(second, np.float32)
    return start + np.float32(share) * (end - start)


def bytes_of(brightness: Pixels) -> NDArray[np.uint8]:
    """Convert values of 0 to 1 to bytes of 0 to 255."""
    return (np.clip(brightness, 0, 1) * 255 + 0.5).astype(np.uint8)


def encode(image: Image.Image) -> bytes:
    """The image as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def write_files(folder: Path, photographs: Sequence[Photograph]) -> None:
    """Write the three files of the official layout; the photographs are numbered in the given order."""
    names = [f"ISIC_{number:07d}" for number in range(1, len(photographs) + 1)]
    numbered = dict(zip(names, photographs, strict=True))
    write_zip(folder / INPUT_ZIP, ((f"{name}.jpg", shot.jpeg) for name, shot in numbered.items()))
    labels = one_hot_table(CLASSES, {name: shot.label for name, shot in numbered.items()})
    write_zip(folder / GROUND_TRUTH_ZIP, [(Path(GROUND_TRUTH_ZIP).with_suffix(".csv").name, labels)])
    lesions = ["image,lesion_id,diagnosis_confirm_type"]
    lesions += [f"{name},HAM_{shot.lesion:07d},{CONFIRMATION}" for name, shot in numbered.items()]
    write_bytes(folder / LESION_TABLE, "".join(f"{line}\r\n" for line in lesions).encode())
