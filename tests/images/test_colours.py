"""Mean colours, against slow loops and hand-computed values."""

import numpy as np
import pytest

from cclnet.images.colours import Colours, colours_of, mean_colour, unlike


def test_the_mean_colour_is_that_of_a_slow_loop():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    sums = [0, 0, 0]
    for row in image.tolist():
        for pixel in row:
            for channel, level in enumerate(pixel):
                sums[channel] += level
    assert mean_colour(image).tolist() == [total / 35 for total in sums]


def test_the_colours_of_two_grey_images_worked_out_by_hand():
    """Means 100 and 120: the mean is 110, the standard deviation 10."""
    images = [np.full((2, 3, 3), level, dtype=np.uint8) for level in (100, 120)]
    assert colours_of(images) == Colours([110.0] * 3, [10.0] * 3)


def test_many_bright_pixels_do_not_overflow():
    assert mean_colour(np.full((400, 300, 3), 255, dtype=np.uint8)).tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("colour", "expected"),
    [([100, 100, 100], False), ([140, 100, 100], False), ([141, 100, 100], True), ([100, 100, 59], True)],
)
def test_an_image_is_unlike_beyond_four_deviations_in_one_channel(colour: list[int], expected: bool):
    assert unlike(Colours([100.0] * 3, [10.0] * 3), [colour]).tolist() == [expected]


def test_training_images_of_one_colour_allow_for_some_levels():
    assert unlike(Colours([100.0] * 3, [0.0] * 3), [[104, 100, 100], [105, 100, 100]]).tolist() == [False, True]
