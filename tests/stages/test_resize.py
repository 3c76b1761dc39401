"""The array of the resized images, beside each image decoded alone."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cclnet.dataset.isic import INPUT_ZIP
from cclnet.images.cache import ImageCache
from cclnet.images.decoding import decode_resized
from stages import resize
from tests.images.builders import blobs, encoded
from tests.stages.builders import Copied


def cache_in(folder: Path) -> ImageCache:
    return ImageCache.open(folder / "data/images.npy", folder / "data/images.csv")


def test_every_image_of_the_zip_is_there_at_the_size_asked_for(finished: Path):
    cache = cache_in(finished)
    with zipfile.ZipFile(finished / "data/raw" / INPUT_ZIP) as archive:
        members = {Path(name).stem: name for name in archive.namelist() if name.endswith(".jpg")}
        assert sorted(members) == list(cache.images)
        for row, image in enumerate(cache.images):
            np.testing.assert_array_equal(cache[row], decode_resized(archive.read(members[image]), 18).image)
    assert set(np.minimum(cache.heights, cache.widths)) == {18}


@pytest.mark.parametrize("repeated", [False, True])
def test_copies_are_counted(copied: Copied, repeated: bool, capsys: pytest.CaptureFixture[str]):
    folder = copied(block={"threads": None})
    (folder / "data/raw").mkdir(parents=True)
    pictures = [encoded(blobs(seed)) for seed in (0, 1, 0 if repeated else 2)]
    with zipfile.ZipFile(folder / "data/raw" / INPUT_ZIP, "w") as archive:
        for number, picture in enumerate(pictures):
            archive.writestr(f"ISIC_{number}.png", picture)
    resize.main()
    assert list(cache_in(folder).images) == ["ISIC_0", "ISIC_1", "ISIC_2"]
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("images resized: ")]
    expected = ["1 images show what another one shows, byte for byte or nearly"] if repeated else []
    assert [line.split(":")[0] for line in said] == expected


@pytest.mark.parametrize(("asked_for", "used"), [(3, 3), (None, os.cpu_count())])
def test_as_many_threads_decode_as_are_asked_for(
    copied: Copied, asked_for: int | None, used: int, monkeypatch: pytest.MonkeyPatch
):
    copied("data/raw", block={"threads": asked_for})
    threads = []

    def build_cache(*arguments: Any) -> Any:
        threads.append(arguments[5])
        return resize_cache(*arguments)

    resize_cache = resize.build_cache
    monkeypatch.setattr(resize, "build_cache", build_cache)
    resize.main()
    assert threads == [used]
