import io
import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from cclnet.images.copies import Copies, describe, find_copies
from tests.images.builders import blobs

Change = Callable[[Image.Image], Image.Image]


def found(pictures: dict[str, Image.Image]) -> Copies:
    """The copies among pictures, each of which is taken for a file of its own."""
    return find_copies({name: name for name in pictures}, {name: describe(image) for name, image in pictures.items()})


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")


CHANGES: dict[str, Change] = {
    "compressed": compressed,
    "smaller": lambda image: image.resize((40, 30), Image.Resampling.BICUBIC),
    "square": lambda image: image.resize((64, 64)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "without its edge": lambda image: image.crop((1, 1, image.width - 1, image.height - 1)),
    "mirrored": ImageOps.mirror,
    "upside down and compressed": lambda image: compressed(ImageOps.flip(image)),
    "a quarter turned": lambda image: image.rotate(90, expand=True),
    "turned and smaller": lambda image: image.rotate(180).resize((48, 36)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_copies_are_found_among_others(change: Change):
    pictures = {f"{seed:03d}": blobs(seed) for seed in range(200)}
    changed = {f"{seed:03d} changed": change(blobs(seed)) for seed in range(0, 200, 10)}
    expected = [[f"{seed:03d}", f"{seed:03d} changed"] for seed in range(0, 200, 10)]
    copies = found(pictures | changed).alike
    assert [group for group in copies if group not in expected] == []
    assert len(copies) >= 0.9 * len(expected)


def test_different_pictures_are_no_copies():
    assert found({str(seed): blobs(seed) for seed in range(500)}) == Copies([], [])


def test_the_same_shape_in_another_colour_is_no_copy():
    grey = blobs(0).convert("L")
    red, green = (ImageOps.colorize(grey, "black", colour) for colour in ("#ff8080", "#80ff80"))
    assert found({"red": red, "green": green}).alike == []


def test_blank_pictures_are_not_alike():
    assert found({str(level): Image.new("RGB", (9, 9), (level,) * 3) for level in range(50)}).alike == []


def test_equal_files_are_found_whatever_they_show():
    blank = describe(Image.new("RGB", (9, 9)))
    digests = {"d": "1", "b": "2", "a": "1", "c": "3", "e": "2"}
    copies = find_copies(digests, dict.fromkeys(digests, blank))
    assert copies == Copies([["a", "d"], ["b", "e"]], [])
    assert copies.surplus == 2


def test_equal_files_join_those_that_are_alike():
    picture = blobs(0)
    digests = {"a": "1", "b": "1", "c": "2", "d": "3", "e": "3"}
    descriptions = {"a": picture, "b": picture, "c": compressed(picture), "d": blobs(1), "e": blobs(1)}
    copies = find_copies(digests, {name: describe(image) for name, image in descriptions.items()})
    assert copies == Copies([["a", "b"], ["d", "e"]], [["a", "b", "c"]])
    assert copies.groups() == [["a", "b", "c"], ["d", "e"]]
    assert copies.surplus == 3


def test_many_copies_of_one_picture_are_one_group():
    pictures = {f"{number:04d}": compressed(blobs(7)) for number in range(300)}
    assert found(pictures).alike == [sorted(pictures)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_pictures(count: int):
    assert found({str(seed): blobs(seed) for seed in range(count)}) == Copies([], [])


def test_the_order_does_not_matter():
    pictures = {str(seed): blobs(seed) for seed in range(40)} | {"copy": ImageOps.mirror(blobs(3))}
    assert found(dict(reversed(pictures.items()))) == found(pictures) == Copies([], [["3", "copy"]])


def test_time_grows_with_the_number_of_images():
    """Twice as many may take three times as long; every pair would take four times."""
    random = np.random.default_rng(0)
    descriptions = {f"{n:05d}": random.bytes(259) for n in range(16_000)}

    def seconds(count: int) -> float:
        some = dict(itertools.islice(descriptions.items(), count))
        begun = time.process_time()
        assert find_copies({name: name for name in some}, some) == Copies([], [])
        return time.process_time() - begun

    seconds(1000)
    assert seconds(16_000) < 3 * seconds(8000) + 0.5
