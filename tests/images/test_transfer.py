from pathlib import Path

import numpy as np
import pytest
import torch

from cclnet.images import transfer
from cclnet.images.cache import ImageCache
from cclnet.images.transfer import copied_pixels, gathered, resident_pixels, sent

CPU = torch.device("cpu")


def cache_of(sizes: list[tuple[int, int]]) -> ImageCache:
    heights, widths = np.array(sizes).T
    lengths = heights * widths * 3
    pixels = np.random.default_rng(0).integers(0, 256, lengths.sum(), dtype=np.uint8)
    return ImageCache(pixels, [str(row) for row in range(len(sizes))], heights, widths, np.cumsum(lengths) - lengths)


CACHE = cache_of([(12, 16), (20, 12), (13, 13), (12, 40)])


@pytest.mark.parametrize("portion", [1, 7, 1000, 10**9])
def test_all_pixels_are_copied(portion: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transfer, "PORTION", portion)
    np.save(tmp_path / "pixels.npy", CACHE.pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    copied = copied_pixels(ImageCache(mapped, CACHE.images, CACHE.heights, CACHE.widths, CACHE.offsets), CPU)
    assert copied.dtype == torch.uint8
    assert np.array_equal(copied.numpy(), CACHE.pixels)


def test_what_is_gathered_equals_a_slow_loop() -> None:
    random = np.random.default_rng(1)
    rows = np.array([3, 0, 0, 2, 1])
    ys, xs = random.integers(0, 12, (5, 4)), random.integers(0, 12, (5, 6))
    found = gathered(copied_pixels(CACHE, CPU), CACHE, rows, ys, xs).numpy()
    assert found.shape == (5, 4, 6, 3)
    for place, row in enumerate(rows):
        image = CACHE[row]
        for down, y in enumerate(ys[place]):
            for right, x in enumerate(xs[place]):
                assert np.array_equal(found[place, down, right], image[y, x])


def test_on_a_processor_nothing_is_sent_or_copied() -> None:
    tensor = torch.arange(3)
    assert sent(tensor, CPU) is tensor
    assert resident_pixels(CACHE, CPU) is None


@pytest.mark.parametrize(("missing", "there"), [(0, True), (4, False)])
def test_images_lie_on_a_card_that_has_room_for_four_times_as_many(
    missing: int, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 4 * CACHE.pixels.nbytes - missing
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    monkeypatch.setattr(transfer, "copied_pixels", lambda cache, device: copied_pixels(cache, CPU))
    assert (resident_pixels(CACHE, torch.device("cuda")) is not None) is there
