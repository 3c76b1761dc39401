"""Detection of copies: identical files, and nearly identical images, possibly rotated or mirrored.

An image is described by a thumbnail of 16 × 16 grey levels and its mean colour, similar to a perceptual hash. Two
images are alike if their thumbnails correlate by more than .99 and their colours agree; this tolerates recompression,
another size, another exposure or a blur. In the 10,015 images of ISIC 2018 one pair of different lesions is that
similar, and it is the same photograph.

Not all pairs are compared: the images are sorted several times by the signs of random projections of the thumbnail's
low frequencies, and each image is compared with the few that follow it (locality-sensitive hashing). The time grows
with n log n.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cclnet.images.decoding import Pixels
from cclnet.system.names import connected

SIDE = 16
"""Side length of a thumbnail in pixels."""
LEAST_CORRELATION = 0.99
LARGEST_COLOUR_DIFFERENCE = 0.05
"""Largest difference in the relative shares of red, green and blue in the mean colour."""
LEAST_CONTRAST = 2.0
"""Smallest standard deviation in grey levels: blank images cannot be compared."""
LOW_FREQUENCIES = 6
TABLES, NEIGHBOURS, BUCKET = 4, 8, 16
"""How often the images are sorted, the number of following images to compare, and the mean number of images per key."""
SEED = 0
NO_VARIATION = 1e-6
PAIRS_AT_ONCE = 2**14


@dataclass(frozen=True)
class Copies:
    """Groups of two or more copies, by name.

    Attributes:
        identical: groups of files with equal bytes.
        alike: groups of nearly identical images; they may include identical files, but not only those.
    """

    identical: list[list[str]]
    alike: list[list[str]]

    def groups(self) -> list[list[str]]:
        """The groups of copies of both kinds; each image is in at most one group."""
        least = connected([*self.identical, *self.alike])
        groups: dict[str, list[str]] = defaultdict(list)
        for image, first in least.items():
            groups[first].append(image)
        return [sorted(group) for _, group in sorted(groups.items())]

    @property
    def surplus(self) -> int:
        """The number of images that are a copy of an earlier one."""
        return sum(len(group) - 1 for group in self.groups())


def describe(pixels: Pixels | Image.Image) -> bytes:
    """The thumbnail and the mean colour of an image, in 259 bytes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    colour = small.resize((1, 1), Image.Resampling.BOX)
    return small.convert("L").tobytes() + colour.tobytes()


def find_copies(digests: Mapping[str, str], descriptions: Mapping[str, bytes]) -> Copies:
    """Find the copies among images.

    Args:
        digests: image → sha256 of its file.
        descriptions: image → ``describe`` of it, for the same images.
    """
    by_digest: dict[str, list[str]] = defaultdict(list)
    for image in sorted(digests):
        by_digest[digests[image]].append(image)
    identical = [images for images in by_digest.values() if len(images) > 1]
    firsts = [images[0] for images in by_digest.values()]
    pairs = [(firsts[one], firsts[other]) for one, other in _alike([descriptions[image] for image in firsts])]
    groups: dict[str, list[str]] = defaultdict(list)
    for image, first in connected(pairs).items():
        groups[first] += by_digest[digests[image]]
    return Copies(identical, [sorted(group) for _, group in sorted(groups.items())])


def _alike(descriptions: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """The indices of pairs that are alike; a pair that is connected through other pairs may be left out."""
    if len(descriptions) < 2:
        return
    described = np.frombuffer(b"".join(descriptions), np.uint8).reshape(len(descriptions), -1)
    thumbnails, colours = described[:, : SIDE * SIDE], described[:, SIDE * SIDE :]
    places = np.flatnonzero(thumbnails.std(axis=1, dtype=np.float32) >= LEAST_CONTRAST)
    if len(places) < 2:
        return
    thumbnails, colours = thumbnails[places], colours[places].astype(np.float32)
    colours /= np.maximum(colours.sum(axis=1, keepdims=True), 1)
    oriented = np.concatenate(_oriented(thumbnails))
    for shown, of_image in ((thumbnails, np.arange(len(places))), (oriented, np.tile(np.arange(len(places)), 2))):
        for one, other in _candidates(shown):
            first, second = of_image[one], of_image[other]
            close = np.abs(colours[first] - colours[second]).max(axis=1) <= LARGEST_COLOUR_DIFFERENCE
            close &= first != second
            close[close] = _correlation(shown[one[close]], shown[other[close]]) > LEAST_CORRELATION
            yield from zip(places[first[close]].tolist(), places[second[close]].tolist(), strict=True)


def _candidates(thumbnails: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of candidate pairs to compare."""
    features = _low_frequencies(thumbnails, LOW_FREQUENCIES)
    features /= np.maximum(features.std(axis=0), NO_VARIATION)
    bits = max(1, round(np.log2(len(thumbnails) / BUCKET)))
    random = np.random.default_rng(SEED)
    for _ in range(TABLES):
        signs = features @ random.standard_normal((features.shape[1], bits), np.float32) > 0
        keys = signs @ (1 << np.arange(bits))
        order = np.lexsort((features @ random.standard_normal(features.shape[1], np.float32), keys))
        for distance in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            one, other = order[:-distance], order[distance:]
            same = keys[one] == keys[other]
            one, other = one[same], other[same]
            for start in range(0, len(one), PAIRS_AT_ONCE):
                yield one[start : start + PAIRS_AT_ONCE], other[start : start + PAIRS_AT_ONCE]


def _correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pearson correlation of each row of one array with the same row of the other."""
    first, second = (_standardised(rows) for rows in (one, other))
    return (first * second).mean(axis=1)


def _standardised(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = rows.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    return values / values.std(axis=1, keepdims=True)


def _low_frequencies(thumbnails: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """The first count² − 1 coefficients of each thumbnail's cosine transform, without the mean."""
    angles = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    waves = np.cos(np.arange(count)[:, None] * angles)
    basis = np.einsum("ai,bj->abij", waves, waves).reshape(count * count, SIDE * SIDE)[1:]
    blocks = np.array_split(thumbnails, max(1, len(thumbnails) // PAIRS_AT_ONCE))
    return np.concatenate([_standardised(block) @ basis.T.astype(np.float32) for block in blocks])


def _oriented(thumbnails: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The thumbnails in a canonical orientation, and again with the least certain of the three decisions reversed.

    In the canonical orientation, the left and upper parts are brighter, and the horizontal gradient is the larger one.
    If a decision is uncertain, it may differ for a copy; then one of its two orientations still matches one of the
    other image's.
    """
    across, down, _ = _low_frequencies(thumbnails, 2).T
    decisions = np.stack([across < 0, down < 0, np.abs(down) > np.abs(across)])
    certainty = np.stack([np.abs(across), np.abs(down), np.abs(np.abs(down) - np.abs(across))])
    reversed_once = decisions ^ (np.arange(3)[:, None] == certainty.argmin(axis=0))
    return _turned(thumbnails, decisions), _turned(thumbnails, reversed_once)


def _turned(thumbnails: NDArray[np.uint8], decisions: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Flip the thumbnails horizontally, then vertically, then transpose them, each according to its decision."""
    mirrored, upside_down, transposed = decisions
    turned = thumbnails.reshape(-1, SIDE, SIDE).copy()
    turned[mirrored] = turned[mirrored][:, :, ::-1]
    turned[upside_down] = turned[upside_down][:, ::-1]
    turned[transposed] = turned[transposed].transpose(0, 2, 1)
    return turned.reshape(len(thumbnails), -1)
