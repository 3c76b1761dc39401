"""The figure of all trainings: its numbers are those of the studies' tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from studies.overview import COMPARED, Gain, from_table, main, on_fixed_features, overview_figure, published, trainings
from studies.running.settings import ROOT


def test_the_paper_s_gains_are_differences_of_its_table_1():
    """0.8437 − 0.8347 and 0.8502 − 0.8347."""
    gains = {place: gain.estimate for place, gain in published().items()}
    assert gains == {("lsr-u5", "accuracy"): pytest.approx(0.0090), ("ccl", "accuracy"): pytest.approx(0.0155)}


def test_a_gain_has_the_intervals_of_its_row():
    row = {"method": "b", "metric": "accuracy", "reference": "a", "difference": 0.01, "low": -0.01, "high": 0.03}
    seeds = {"low_seeds": -0.02, "high_seeds": 0.04}
    unknown = dict.fromkeys(seeds)
    table = pd.DataFrame(
        [
            row | seeds,
            row | unknown | {"metric": "balanced_accuracy", "difference": 0.5},
            row | seeds | {"reference": "c"},
            row | seeds | {"metric": "kappa"},
            row | seeds | {"method": "not compared"},
        ]
    )
    assert from_table(table, "a", {"b": "ccl"}) == {
        ("ccl", "accuracy"): Gain(0.01, (-0.01, 0.03), (-0.02, 0.04)),
        ("ccl", "balanced_accuracy"): Gain(0.5, (-0.01, 0.03)),
    }


def test_every_training_on_real_images_is_found():
    """The estimates are differences of the means in the same table, because all methods have the same seeds."""
    found = trainings(ROOT / "studies")
    assert len(found) == 7
    table = pd.read_csv(ROOT / "studies" / "table1" / "table.csv")
    table = table.query("dataset == 'isic2018_64' and split == 'image' and backbone == 'resnet18'")
    means = table.query("metric == 'accuracy'").drop_duplicates("method").set_index("method")["mean"]
    gain = found["from scratch,\n64 pixels, by image"]["ccl", "accuracy"]
    assert gain.estimate == pytest.approx(means["ccl"] - means["baseline"])
    assert gain.runs and gain.seeds and gain.seeds[0] < gain.runs[0] < gain.estimate < gain.runs[1] < gain.seeds[1]
    tuned = pd.read_csv(ROOT / "studies" / "pretrained" / "table.csv")
    tuned = tuned.query("split == 'image' and colours == 'unchanged' and metric == 'accuracy'").set_index("method")
    by_image = found["fine-tuned, 128 pixels, by image,\nwithout colour jitter, 8 epochs"]
    assert {method for method, _ in by_image} == {"lsr-u5", "ccl"}
    gain = by_image["lsr-u5", "accuracy"]
    assert gain.estimate == pytest.approx(tuned["mean"]["LSR, ε = .5228"] - tuned["mean"]["baseline: hard labels"])
    assert gain.runs and not gain.seeds  # one seed
    assert not any("by image,\nwith colour jitter" in title for title in found)  # hard labels alone
    fixed = on_fixed_features()
    assert {method for method, _ in fixed} == set(COMPARED)
    assert all(gain.runs and not gain.seeds for gain in fixed.values())


def test_points_and_intervals_stand_in_the_row_of_their_method():
    method, other, *_ = COMPARED
    first = {(other, "accuracy"): Gain(0.02)}
    second = {
        (method, "accuracy"): Gain(0.01, (-0.01, 0.03), (-0.02, 0.04)),
        (other, "balanced_accuracy"): Gain(-0.1, (-0.2, 0.0)),
    }
    figure = overview_figure({"first": first, "second": second})
    accuracy, balanced = figure.axes
    drawn = [[np.asarray(line.get_xydata()).tolist() for line in axes.lines] for axes in (accuracy, balanced)]
    row = 2.0  # one of the first training, then a gap
    for points in (
        [[2.0, 0.0]],
        [[-1.0, row], [3.0, row]],
        [[-2.0, row], [4.0, row]],
        [[1.0, row]],
    ):
        assert any(np.allclose(line, points) for line in drawn[0] if len(line) == len(points)), points
    assert any(np.allclose(line, [[-10.0, row + 1]]) for line in drawn[1] if len(line) == 1)
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["first", "second"]
    assert accuracy.get_yticks().tolist() == [0.0, 2.5]
    hollow = [line.get_markerfacecolor() for line in accuracy.lines if line.get_marker() == "o"]
    assert hollow == ["white", "C0"]


def test_the_figure_is_written_beside_the_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("studies.overview.ROOT", tmp_path)
    for study in ("table1", "pretrained"):
        (tmp_path / "studies" / study).mkdir(parents=True)
        table = (ROOT / "studies" / study / "table.csv").read_bytes()
        (tmp_path / "studies" / study / "table.csv").write_bytes(table)
    (tmp_path / "docs" / "evidence").mkdir(parents=True)
    main()
    with Image.open(tmp_path / "docs" / "evidence" / "overview.png") as image:
        assert image.width == 2000
