"""``cclnet info``; the other commands about a model file are tested in ``test_program`` and ``test_terminal``."""

import json
import sys
from dataclasses import asdict, replace
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from cclnet.networks.model import build_model
from cclnet.networks.model_file import save_model
from tests.networks.builders import BACKBONE, description

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm counts, which is no parameter."""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_model(Path("it.safetensors"), build_model(BACKBONE, None, 32, 3, with_head=True), description())
    return Path("it.safetensors")


def cells(out: str) -> dict[str, str]:
    """The values of the table by their names."""
    return dict(line.strip().split(maxsplit=1) for line in out.splitlines())


def test_info_shows_what_the_file_says(run, model: Path):
    status, out, err = run("info", model)
    assert (status, err) == (0, "")
    with safe_open(model, framework="pt") as file:
        sha256 = json.loads(file.metadata()["cclnet"])["sha256"]
        sizes = {name: prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
    learned = {name: size for name, size in sizes.items() if not name.endswith(STATISTICS)}
    of_head = sum(size for name, size in learned.items() if name.startswith("head."))
    expected = {
        "key": "value",
        "file": "it.safetensors",
        "bytes": f"{model.stat().st_size:,}",
        "sha256": sha256,
        "parameters": f"{sum(learned.values()) - of_head:,}",
        "head_parameters": f"{of_head:,}",
        "classes": "MEL, NV, BCC",
        "backbone": BACKBONE,
        "crop": "32",
        "short_side": "48",
        "mean": "0.485, 0.456, 0.406",
        "converged_epoch": "–",
        "params.lr_ccl": "0.0005",
        "params.milestones": "0.7, 0.9",
        "params.head.margin": "2.0",
        "ran_on.threads": "2",
        "version": "0.1.0",
    }
    shown = cells(out)
    assert {name: shown[name] for name in expected} == expected
    assert "label_matrix" not in shown


def test_info_as_json_is_the_whole_description(run, model: Path):
    status, out, _ = run("info", model, "--json", "-")
    found = json.loads(out)
    assert status == 0
    assert {name: found[name] for name in asdict(description())} == asdict(description())
    assert run("info", model, "--json", "it.json").out == run("info", model).out
    assert json.loads(Path("it.json").read_text(encoding="utf-8")) == found


def test_a_model_without_head_has_no_parameters_of_one(run, model: Path):
    save_model(model, build_model(BACKBONE, None, 32, 3, with_head=False), description("baseline"))
    shown = cells(run("info", model).out)
    assert (shown["head_parameters"], shown["method"], shown["softness_epoch"]) == ("0", "baseline", "–")


def test_control_characters_of_a_file_do_not_reach_the_terminal(run, model: Path):
    odd = {"weights": "a\x1b[31mred", "of\nit": {"list": ["\u202e", None, True]}}
    changed = replace(description(), params=description().params | odd, ran_on={"\x07": {}})
    save_model(model, build_model(BACKBONE, None, 32, 3, with_head=True), changed)
    for out in (run("info", model).out, run("info", model, "--json", "-").out):
        assert not set(out) & set("\x1b\x07\u202e")
    lines = run("info", model).out.splitlines()
    assert ["params.weights", r"'a\x1b[31mred'"] in [line.split() for line in lines]
    assert [r"'params.of\nit.list'", r"'\u202e',", "–,", "true"] in [line.split() for line in lines]


def test_what_is_no_model_is_refused_in_one_line(run, model: Path, monkeypatch: pytest.MonkeyPatch):
    Path("text").write_text("no model", encoding="utf-8")
    status, out, err = run("info", "text")
    assert (status, out) == (1, "")
    assert err.startswith("cclnet: text is not a model of this package, or is damaged: ")
    assert err.count("\n") == 1
    assert run("info", model, "--json", model).err == (
        "cclnet: it.safetensors is also read: choose another file to write\n"
    )
    save_model(model, build_model("timm/test_vit", None, 32, 3, True), replace(description(), backbone="timm/test_vit"))
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "timm/test_vit needs timm, which is not installed" in run("info", model).err
