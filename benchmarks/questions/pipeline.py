"""`dvc repro` on the embedded sample, compared with its bare training, and with nothing to do."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml

from benchmarks.catalogue import Settings
from benchmarks.measure import Comparison, Series, Target, seconds
from cclnet.dataset.splits import read_split
from cclnet.images.cache import ImageCache
from cclnet.images.subset import Subset
from cclnet.params import Params, TrainParams
from cclnet.system.errors import CCLNetError
from cclnet.system.files import read_json, write_bytes
from cclnet.training.trainer import Trainer
from studies.running.settings import ROOT, params_with

NOTHING_TO_DO = 3.0
"""Seconds."""
TINY = {"sample.images": "100", "sample.imbalance": "3", "epochs": "1", "milestones": "[]"}


def run(settings: Settings) -> list[Comparison]:
    """Measure in fresh copies of this checkout with an empty DVC cache."""
    whole, training, nothing, starts = [], [], [], []
    for _ in range(settings.repetitions):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy_checkout(folder, TINY if settings.tiny else {})
            stages = ["resize", "split"] if settings.tiny else []
            whole.append(seconds(lambda: repro(folder, stages)))  # noqa: B023 - called at once
            nothing.append(seconds(lambda: repro(folder, stages)))  # noqa: B023
            training.append(bare_training(folder))
            starts.append(seconds(lambda: start_stages(folder, stages)))  # noqa: B023
    allowed = Series("allowed", [NOTHING_TO_DO] * settings.repetitions)
    return [
        Comparison("sample", "s", Series("dvc repro", whole), Series("bare training", training), Target(high=1.2)),
        Comparison("sample", "s", Series("loading what the stages import", starts), Series("dvc repro", whole)),
        Comparison("nothing to do", "s", Series("dvc repro", nothing), allowed, Target(high=1.0)),
    ]


def copy_checkout(folder: Path, changes: dict[str, str]) -> None:
    """Copy all files that git tracks or would add to a new repository, with some params changed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for path in filter(None, listed.stdout.split("\0")):
        if (ROOT / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, folder / path)
    write_bytes(folder / "params.yaml", yaml.safe_dump(params_with(changes), sort_keys=False).encode())
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)  # noqa: S607


def repro(folder: Path, stages: list[str]) -> None:
    """Run ``dvc repro``, as a user would.

    Raises:
        CCLNetError: it failed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "dvc", "repro", *stages]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if finished.returncode:
        raise CCLNetError(f"dvc repro failed: {finished.stderr}")


def start_stages(folder: Path, stages: list[str]) -> None:
    """Start Python for these stages (or all) and only load the imports of each."""
    for stage in stages or yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]:
        subprocess.run([sys.executable, "-c", f"import stages.{stage}"], cwd=folder, check=True)  # noqa: S603


def bare_training(folder: Path) -> float:
    """The time in seconds of all training epochs alone, with nothing before, between or after them."""
    params = Params.load(folder / "params.yaml").stage(TrainParams)
    cache = ImageCache.open(folder / "data" / "images.npy", folder / "data" / "images.csv")
    classes, split = read_json(folder / "data" / "classes.json"), read_split(folder / "data" / "split.csv")
    images = Subset.of_split(cache, split, "train", classes)
    trainer = Trainer(params, images.class_counts(len(classes)), torch.device("cpu"))
    return seconds(lambda: [trainer.train_epoch(images) for _ in range(params.epochs)])
