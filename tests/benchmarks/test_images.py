"""What is measured on."""

from pathlib import Path

from benchmarks.images import drawn_files, photographs
from cclnet.dataset.isic import CLASSES
from cclnet.images.decoding import decode


def test_drawn_files_are_like_those_of_isic_2018():
    for data in drawn_files(7):
        assert decode(data).size == (600, 450)
        assert 240_000 < len(data) < 310_000


def test_images_of_one_s_own_are_repeated(tmp_path: Path):
    for number, data in enumerate(drawn_files(3)):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    shots = photographs(8, tmp_path)
    assert [shot.jpeg for shot in shots] == [drawn_files(3)[place % 3] for place in range(8)]
    assert [shot.label for shot in shots] == [*CLASSES, CLASSES[0]]
