"""The images of two classes as a page shows them."""

import base64
import io

import numpy as np
from PIL import Image

from cclnet.views.image_pairs import image_pair, jpeg_source
from tests.images.builders import blobs, noise


def test_the_nearest_images_stand_on_their_classes_sides():
    pair = {
        "a": "MEL",
        "b": "NV",
        "nearest": [["m1", "n1"], ["m2", "n2"]],
        "typical_a": ["m3"],
        "typical_b": ["n3", "n4"],
    }
    asked: list[str] = []

    def source_of(name: str) -> str:
        asked.append(name)
        return f"data:{name}"

    found = image_pair(pair, source_of)
    assert (found.a, found.b) == ("MEL", "NV")
    strips = [found.nearest_a, found.nearest_b, found.typical_a, found.typical_b]
    assert [[shown.name for shown in strip] for strip in strips] == [["m1", "m2"], ["n1", "n2"], ["m3"], ["n3", "n4"]]
    assert all(shown.source == f"data:{shown.name}" for strip in strips for shown in strip)
    assert sorted(asked) == ["m1", "m2", "m3", "n1", "n2", "n3", "n4"]


def test_a_thumbnail_is_small_and_keeps_its_shape():
    image = Image.open(io.BytesIO(base64.b64decode(jpeg_source(noise(300, 600, 0)).split(",")[1])))
    assert image.size in ((160, 80), (80, 160)) and image.format == "JPEG"


def test_a_small_image_keeps_its_size_and_its_colours():
    pixels = np.asarray(blobs(0, 96, 72))
    source = jpeg_source(pixels)
    assert source.startswith("data:image/jpeg;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
    assert shown.shape == pixels.shape
    assert np.abs(shown.astype(int) - pixels).mean() < 3
