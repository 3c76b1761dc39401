"""What the stage ``params`` refuses, before DVC removes anything."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torchvision import models

from cclnet.system.errors import CCLNetError, ParamsError
from stages import params as stage
from tests.campaigns.golden import small_params

PROJECT = Path(__file__).parents[2]
PIPELINE: dict[str, Any] = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
CHECKED = Path("data/params_checked.txt")

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a params.yaml of small values into an empty folder, which the stage then runs in."""
    monkeypatch.chdir(tmp_path)

    def write(block: dict[str, Any] | None = None, **changes: Any) -> None:
        values = small_params("native") | changes
        values["datasets"]["sample"] |= block or {}
        Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    return write


def test_what_is_written_is_always_the_same(write: Write):
    contents = set()
    for changes in ({}, {"lr_ccl": 0.1}, {"method": "baseline"}, {"dataset": "isic2018"}):
        write(**changes)
        stage.main()
        contents.add(CHECKED.read_bytes())
    assert len(contents) == 1


def refusal() -> list[str]:
    """The lines that the stage refuses with; it writes nothing."""
    with pytest.raises(ParamsError) as caught:
        stage.main()
    heading, *problems = str(caught.value).splitlines()
    assert heading == "params.yaml cannot be used:"
    assert not CHECKED.exists()
    return [problem.strip() for problem in problems]


def test_a_value_and_a_name_are_refused_together(write: Write):
    write(lr_ccl=-1, backbone="resnet81")
    assert refusal() == [
        "lr_ccl: input should be greater than 0, not -1",
        "backbone: torchvision has no 'resnet81'; did you mean resnet18?",
    ]


@pytest.mark.parametrize("source", ["data/raw", "./data/raw/", "data/../data", "."])
def test_a_source_that_dvc_would_remove(write: Write, source: str):
    Path("data/raw").mkdir(parents=True)
    write({"source": source})
    lines = refusal()
    assert any(
        line.startswith(f"source {source!r}: holds data/raw/ISIC2018_Task3_Training_Input.zip,") for line in lines
    )
    assert all("removes and writes anew: move your files to a folder of their own" in line for line in lines)


@pytest.mark.parametrize("source", ["drawn", "official", "images"])
def test_files_of_the_user_that_dvc_would_remove_whatever_the_source(write: Write, source: str):
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/ISIC2018_Task3_Training_Input.zip").write_text("the only copy")
    write({"source": source})
    assert refusal() == [
        "data/raw/ISIC2018_Task3_Training_Input.zip: was not written by this pipeline, which would remove it: move it "
        "to a folder of its own, and name that as the source"
    ]


def test_weights_and_soft_labels_that_dvc_would_remove(write: Write):
    write(weights="models/model.safetensors", method="ccl", soft_label_source="metrics/figures/votes.csv")
    lines = [line for line in refusal() if "removes and writes anew: copy it to a folder of its own" in line]
    assert [line.split(" is a file")[0] for line in lines] == [
        "weights: models/model.safetensors",
        "soft_label_source: metrics/figures/votes.csv",
    ]


@pytest.mark.parametrize(
    "source", ["data/mine", "data/raw/mine", "data/raw2", "raw", "official", "https://localhost/data/raw"]
)
def test_other_sources_are_the_download_s_affair(write: Write, source: str):
    write({"source": source})
    stage.main()


def test_a_sample_in_which_a_class_is_too_small(write: Write):
    sample = {"images": 100, "imbalance": 500.0, "separation": 1.0, "seed": 0}
    write(sample=sample)
    assert [line.split(" has ")[0] for line in refusal()] == ["a sample of 100 images at imbalance 500"]
    write(sample=sample, dataset="isic2018")
    stage.main()


@pytest.mark.parametrize(
    ("backbone", "crop", "problem"),
    [
        ("inception_v3", 16, "backbone: inception_v3 does not take images of 16 pixels"),
        ("vit_b_16", 17, "backbone: vit_b_16 does not take images of 17 pixels"),
    ],
)
def test_a_backbone_that_does_not_take_the_crop(write: Write, backbone: str, crop: int, problem: str):
    write({"crop": crop}, backbone=backbone)
    (line,) = refusal()
    assert line.startswith(problem)


@pytest.mark.parametrize("backbone", ["resnet18", "timm/test_vit"])
def test_a_file_of_weights_that_is_not_there_or_is_of_another_network(write: Write, backbone: str):
    write(backbone=backbone, weights="no.pt")
    (line,) = refusal()
    assert line.startswith("weights: there is no file no.pt")
    torch.save({"conv1.weight": torch.zeros(2)}, "bad.pt")
    write(backbone=backbone, weights="bad.pt")
    (line,) = refusal()
    assert line.startswith("weights: bad.pt does")


def test_a_file_of_weights_of_the_backbone(write: Write):
    torch.save(models.resnet18(num_classes=3).state_dict(), "good.pt")
    write(weights="good.pt")
    stage.main()
    assert CHECKED.exists()


def test_a_gpu_that_is_not_there_and_a_batch_too_small_for_the_processes(write: Write):
    write(device="cuda:77")
    (line,) = refusal()
    assert line.startswith("device: cuda:77 is asked for, and torch sees ")
    write({"batch_size": 5}, device="cpu", processes=3)
    (line,) = refusal()
    assert line.startswith("datasets.sample.batch_size: 5 images are too few for 3 processes, each of which needs 2")
    write({"batch_size": 6}, device="cpu", processes=3)
    stage.main()


def test_all_objections_come_together(write: Write, monkeypatch: pytest.MonkeyPatch):
    def no_compiler(*_: Any) -> None:
        raise CCLNetError("computation.compile: torch cannot compile here")

    monkeypatch.setattr("cclnet.networks.backbones.compile_backbone", no_compiler)
    computation = {"precision": "float32", "compile": True}
    Path("models").mkdir()
    write({"source": "models", "batch_size": 3}, device="cpu", processes=2, computation=computation)
    assert [line.split(":")[0] for line in refusal()] == [
        "source 'models'",
        "datasets.sample.batch_size",
        "computation.compile",
    ]


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    """A DVC project with the pipeline's code and a file at the place of every result, which no stage has made yet."""
    for name in ("cclnet", "stages"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(PROJECT / name, tmp_path / name)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\nno_scm = true\nanalytics = false\n", encoding="utf-8")
    stages = [described for name, described in PIPELINE.items() if name != "params"]
    items = [item for described in stages for kind in ("outs", "metrics", "plots") for item in described.get(kind, [])]
    paths = [tmp_path / (next(iter(item)) if isinstance(item, dict) else item) for item in items]
    files = [path if path.suffix else path / "figure.svg" for path in paths]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("hours of work", encoding="utf-8")
    return files


def test_dvc_removes_no_files_that_a_user_has_put_where_the_download_writes(tmp_path: Path, results: list[Path]):
    """Whatever the params: DVC takes them for outputs of a run before."""
    ended = dvc_repro(tmp_path)
    assert ended.returncode != 0
    assert "data/raw/ISIC2018_Task3_Training_Input.zip: was not written by this pipeline" in ended.stderr
    assert [file for file in results if not file.exists() or file.read_text(encoding="utf-8") != "hours of work"] == []


def dvc_repro(folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path}
    command = [sys.executable, "-m", "dvc", "repro"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("\nlr_ccl: 0.0005", "\nlr_ccl: -1", "lr_ccl: input should be greater than 0, not -1"),
        ("\nseed: 0", "\nseed: 0\nsede: 1", "sede: unknown key; did you mean seed?"),
    ],
)
def test_dvc_removes_nothing_for_params_that_are_refused(
    tmp_path: Path, results: list[Path], before: str, after: str, problem: str
):
    text = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace(before, after), encoding="utf-8")
    raw = [file for file in results if file.parent.name == "raw"]
    record = [{"name": file.name, "bytes": file.stat().st_size} for file in raw]
    (tmp_path / "data/provenance.json").write_text(json.dumps(record), encoding="utf-8")
    ended = dvc_repro(tmp_path)
    assert ended.returncode != 0
    assert f"params: params.yaml cannot be used:\n  {problem}\n" in ended.stderr
    kept = [file for file in results if file.name != "provenance.json"]
    assert [file for file in kept if not file.exists() or file.read_text(encoding="utf-8") != "hours of work"] == []
