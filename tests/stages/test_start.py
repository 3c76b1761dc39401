"""A stage's process: what it explains, what it refuses, and what it loads."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.campaigns.golden import small_params

PROJECT = Path(__file__).parents[2]
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
WITHOUT_TORCH = ("params", "download", "split", "resize", "plot")

NO_TORCH = """
import runpy, sys

class NoTorch:
    @staticmethod
    def find_spec(name, *_):
        if name.split(".")[0] in ("torch", "torchvision", "timm"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, NoTorch)
for stage in sys.argv.pop(1).split(","):
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in a folder without the project's files."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("stage", STAGES)
def test_help_explains_a_stage_and_does_nothing(tmp_path: Path, stage: str):
    ended = run(tmp_path, "-c", NO_TORCH, stage, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"usage: python -m stages.{stage} [-h]\n")
    words = ended.stdout.replace(",", " ").split()
    assert " ".join(STAGES[stage]["desc"].split()) in " ".join(ended.stdout.split())
    for kind in ("deps", "params", "outs", "metrics", "plots"):
        for item in STAGES[stage].get(kind, []):
            name = next(iter(item)) if isinstance(item, dict) else item
            assert (name in words) == (name.split("/")[0] not in ("cclnet", "stages")), name
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["now"], ["--epochs=3"]])
def test_a_stage_takes_no_arguments(tmp_path: Path, arguments: list[str]):
    ended = run(tmp_path, "-m", "stages.train", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"unrecognized arguments: {arguments[0]}" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_importing_a_stage_has_no_effect(tmp_path: Path):
    code = "import os; before = {*os.environ}; import stages, stages.split; print(*{*os.environ} - before)"
    ended = run(tmp_path, "-c", code)  # there is no params.yaml
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not {"ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "MKL_CBWR"} & {*ended.stdout.split()}


def test_wrong_params_are_refused_before_torch_is_loaded(tmp_path: Path):
    (tmp_path / "params.yaml").write_text("lr_cll: 1\n", encoding="utf-8")
    ended = run(tmp_path, "-c", NO_TORCH, "train")
    assert ended.returncode == 1
    assert ended.stderr.startswith("params: params.yaml cannot be used:\n")
    assert "  lr_cll: unknown key; did you mean lr_ccl?\n" in ended.stderr


def test_the_stages_that_train_and_infer_nothing_do_without_torch(tmp_path: Path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(small_params("native")), encoding="utf-8")
    shutil.copytree(PROJECT / "metrics", tmp_path / "metrics")
    ended = run(tmp_path, "-c", NO_TORCH, ",".join(WITHOUT_TORCH))
    assert ended.returncode == 0, ended.stderr
    written = [path for stage in WITHOUT_TORCH for path in STAGES[stage].get("outs", [])]
    assert [path for path in written if not (tmp_path / path).exists()] == []
