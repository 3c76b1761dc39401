"""Folders in which the stages run with other params."""

from pathlib import Path

import pytest
import yaml

from cclnet.system.errors import CCLNetError
from studies.running.projects import run_stage, start_project
from studies.running.settings import ROOT


def test_only_the_settings_differ_from_the_committed_params(tmp_path: Path):
    start_project(tmp_path, {"dataset": "isic2018_64", "epochs": 3, "lr_ccl": "0.01"})
    params = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    committed = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    committed["dataset"], committed["lr_ccl"] = "isic2018_64", 0.01
    committed["datasets"]["isic2018_64"]["epochs"] = 3
    assert params == committed


@pytest.mark.parametrize(("weights", "written"), [("a/b.safetensors", str(ROOT / "a/b.safetensors")), ("DEFAULT",) * 2])
def test_weights_of_the_project_are_found_from_another_folder(tmp_path: Path, weights: str, written: str):
    start_project(tmp_path, {"weights": weights})
    assert yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))["weights"] == written


def test_a_stage_that_fails_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    start_project(tmp_path, {"dataset": "sample", "sample.images": 1})
    with pytest.raises(CCLNetError, match=r"the stage download ended with exit status 1 in .*"):
        run_stage("download", tmp_path)
    assert "images" in capfd.readouterr().err
