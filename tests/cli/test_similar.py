"""``cclnet similar`` on each kind of input."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cclnet.networks.model import build_model
from cclnet.networks.model_file import save_model
from tests.images.builders import encoded, noise
from tests.networks.builders import BACKBONE, description

NAMES = ["MEL", "NV", "BCC"]


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """MEL and NV are alike."""
    generator = np.random.default_rng(0)
    labels = np.repeat(NAMES, [60, 100, 40])
    centres = {"MEL": [0, 0, 0], "NV": [0.7, 0, 0], "BCC": [0, 4, 0]}
    values = np.array([centres[name] for name in labels]) + generator.normal(size=(200, 3))
    np.savez(tmp_path / "it.npz", features=values, labels=labels, groups=np.arange(200) // 2)
    return tmp_path / "it.npz"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images of each class; those of BCC are dark."""
    for place, name in enumerate(NAMES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = noise(50, 60, 12 * place + number) // (4 if name == "BCC" else 1)
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    return tmp_path / "photos"


def test_features_give_a_table_of_pairs(run, features: Path):
    status, out, err = run("similar", features)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == ["class", "like", "similarity", "95", "%", "interval", "labels", "shuffled", "verdict"]
    assert lines[1].split()[:2] == ["MEL", "NV"] and lines[1].rstrip().endswith("alike")
    assert "200 images of 100 groups" in out and "Class counts" in out
    assert "resamples" in err


def test_every_output_is_written(run, features: Path, tmp_path: Path):
    files = {name: tmp_path / name for name in ("it.csv", "it.json", "soft.csv", "it.html", "copy.npz")}
    status, *_ = run(
        *("similar", features, "--csv", files["it.csv"], "--json", files["it.json"], "--softness", "0.6"),
        *("--soft-labels", files["soft.csv"], "--page", files["it.html"], "--features", files["copy.npz"]),
    )
    assert status == 0
    found = json.loads(files["it.json"].read_text())
    assert [pair["similarity"] for pair in found["pairs"]] == sorted(
        (pair["similarity"] for pair in found["pairs"]), reverse=True
    )
    assert {"a", "b", "similarity", "low", "high", "shuffled", "verdict"} == set(found["pairs"][0])
    assert found["images"] == 200 and found["groups"] == 100
    table = pd.read_csv(files["it.csv"])
    assert table["similarity"].tolist() == pytest.approx([pair["similarity"] for pair in found["pairs"]])
    soft = pd.read_csv(files["soft.csv"], index_col="label")
    assert list(soft.columns) == list(soft.index) == found["classes"]
    np.testing.assert_allclose(np.diag(soft), np.diag(found["soft_labels"]))
    assert np.diag(soft).mean() == pytest.approx(0.6)
    assert "<h1>Similar classes in it.npz</h1>" in files["it.html"].read_text(encoding="utf-8")
    again = run("similar", files["copy.npz"], "--json", "-")
    assert json.loads(again.out)["pairs"] == found["pairs"]


def test_a_folder_is_read_with_a_named_backbone(run, photos: Path, tmp_path: Path):
    outputs = "--page", tmp_path / "it.html", "--features", tmp_path / "it.npz"
    status, out, err = run("similar", photos, "--backbone", BACKBONE, "--size", "32", *outputs)
    assert status == 0 and "36 images." in out and "features: 36 of 36" in err
    with np.load(tmp_path / "it.npz") as file:
        kept = dict(file)
    assert kept["features"].shape == (36, 1024) and len(set(kept["images"].tolist())) == 36
    assert (tmp_path / "it.html").read_text(encoding="utf-8").count("<img") >= 36


def test_a_model_is_asked_about_its_images(run, photos: Path, tmp_path: Path):
    torch.manual_seed(0)
    model = build_model(BACKBONE, None, 32, 3, True)
    save_model(tmp_path / "it.safetensors", model, description())
    arguments = "similar", tmp_path / "it.safetensors", "--images", photos, "--labels", photos
    status, out, _ = run(*arguments, "--json", "-", "--estimator", "class_means")
    assert status == 0
    found = json.loads(out)
    assert found["classes"] == NAMES and found["images"] == 36 and found["estimator"] == "class_means"


def test_images_that_cannot_be_read_are_named_at_the_end(run, photos: Path):
    (photos / "NV" / "broken.png").write_bytes(b"no image")
    status, out, err = run("similar", photos, "--backbone", BACKBONE, "--size", "32")
    assert status == 1 and "36 images." in out
    assert "broken.png" in err and "these images could not be used" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos"], "photos is a folder of images, which needs --backbone"),
        (["it.npz", "--backbone", "resnet18"], "it.npz is a file of features, which takes no --backbone"),
        (
            ["it.safetensors", "--labels", "it.csv", "--weights", "DEFAULT"],
            "it.safetensors is a model, which needs --images and takes no --weights",
        ),
        (["photos", "--backbone", "resnet81"], "resnet81"),
        (["missing.npz"], "missing.npz cannot be read: it is missing"),
        (["it.npz", "--softness", "0.1"], "softness must lie between 1/K = 0.3333 and 1, not be 0.1"),
        (["it.npz", "--csv", "it.npz"], "it.npz is also read: choose another file to write"),
        (["it.npz", "--csv", "a.csv", "--json", "a.csv"], "are the same file"),
    ],
)
def test_input_that_does_not_fit_is_refused_in_one_line(
    run, features: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.chdir(features.parent)
    status, out, err = run("similar", *arguments)
    assert (status, out) == (1, "")
    last = err.strip().splitlines()[-1]
    assert message in last and "Traceback" not in err


def test_features_are_kept_in_npz_files_alone(run, features: Path):
    status, _, err = run("similar", features, "--features", "it.csv")
    assert status == 2 and "does not end in .npz" in err
