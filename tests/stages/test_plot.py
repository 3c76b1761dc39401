"""The publication figures."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from cclnet.metrics.matrices import read_confusion, read_soft_labels
from stages import plot
from tests.stages.builders import Copied

FIGURES = ("confusion", "history", "reliability", "soft_labels")
NAMES = [f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")]


def test_every_figure_is_there_in_both_formats(finished: Path):
    folder = finished / "metrics/figures"
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    for name in FIGURES:
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 300
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("}svg")  # noqa: S314 - our own file


def test_the_matrices_drawn_are_those_written(finished: Path, copied: Copied, monkeypatch: pytest.MonkeyPatch):
    copied("metrics", dataset="isic2018")
    drawn = {}
    for name in ("soft_label_figure", "confusion_figure", "history_figure", "reliability_figure"):
        monkeypatch.setattr(plot.figures, name, lambda *given, name=name: drawn.setdefault(name, given))
    monkeypatch.setattr(plot.figures, "save_figure", lambda figure, path: None)
    plot.main()
    classes, soft_labels = read_soft_labels(finished / "metrics/soft_labels.json")
    matrix, named, title = drawn["soft_label_figure"]
    assert (matrix.tolist(), named, title) == (soft_labels.tolist(), classes, "Soft labels, isic2018")
    matrix, named = drawn["confusion_figure"]
    assert (matrix.tolist(), named) == (read_confusion(finished / "metrics/confusion.json")[1].tolist(), classes)
    history, num_classes = drawn["history_figure"]
    assert (history["epoch"].tolist(), num_classes) == ([1], 7)


def test_results_that_are_missing_are_named(copied: Copied):
    copied()
    with pytest.raises(FileNotFoundError, match=r"metrics/soft_labels\.json"):
        plot.main()
