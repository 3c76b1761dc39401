"""``cclnet info``, ``cclnet matrix`` and ``cclnet export``."""

import json
import re
import sys
from dataclasses import asdict, replace
from math import prod
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from cclnet.cli.model import matrix_table, show_matrix, similar_classes
from cclnet.inference.onnx import to_onnx
from cclnet.networks.model import build_model, load_model
from cclnet.networks.model_description import ModelDescription
from cclnet.networks.model_file import save_model
from tests.cli.builders import BALANCED, BASELINE, MODEL, lines_of, words_of
from tests.networks.builders import BACKBONE, description

# info

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm counts, which is no parameter."""


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_model(Path("it.safetensors"), build_model(BACKBONE, None, 32, 3, with_head=True), description())
    return Path("it.safetensors")


def cells(out: str) -> dict[str, str]:
    """The values of the table by their names."""
    return dict(line.strip().split(maxsplit=1) for line in out.splitlines())


def test_info_shows_what_the_file_says(run, described: Path):
    status, out, err = run("info", described)
    assert (status, err) == (0, "")
    with safe_open(described, framework="pt") as file:
        sha256 = json.loads(file.metadata()["cclnet"])["sha256"]
        sizes = {name: prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
    learned = {name: size for name, size in sizes.items() if not name.endswith(STATISTICS)}
    of_head = sum(size for name, size in learned.items() if name.startswith("head."))
    expected = {
        "key": "value",
        "file": "it.safetensors",
        "bytes": f"{described.stat().st_size:,}",
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


def test_info_as_json_is_the_whole_description(run, described: Path):
    status, out, _ = run("info", described, "--json", "-")
    found = json.loads(out)
    assert status == 0
    assert {name: found[name] for name in asdict(description())} == asdict(description())
    assert run("info", described, "--json", "it.json").out == run("info", described).out
    assert json.loads(Path("it.json").read_text(encoding="utf-8")) == found


def test_a_model_without_head_has_no_parameters_of_one(run, described: Path):
    save_model(described, build_model(BACKBONE, None, 32, 3, with_head=False), description("baseline"))
    shown = cells(run("info", described).out)
    assert (shown["head_parameters"], shown["method"], shown["softness_epoch"]) == ("0", "baseline", "–")


def test_control_characters_of_a_file_do_not_reach_the_terminal(run, described: Path):
    odd = {"weights": "a\x1b[31mred", "of\nit": {"list": ["\u202e", None, True]}}
    changed = replace(description(), params=description().params | odd, ran_on={"\x07": {}})
    save_model(described, build_model(BACKBONE, None, 32, 3, with_head=True), changed)
    for out in (run("info", described).out, run("info", described, "--json", "-").out):
        assert not set(out) & set("\x1b\x07\u202e")
    lines = run("info", described).out.splitlines()
    assert ["params.weights", r"'a\x1b[31mred'"] in [line.split() for line in lines]
    assert [r"'params.of\nit.list'", r"'\u202e',", "–,", "true"] in [line.split() for line in lines]


def test_what_is_no_model_is_refused_in_one_line(run, described: Path, monkeypatch: pytest.MonkeyPatch):
    Path("text").write_text("no model", encoding="utf-8")
    status, out, err = run("info", "text")
    assert (status, out) == (1, "")
    assert err.startswith("cclnet: text is not a model of this package, or is damaged: ")
    assert err.count("\n") == 1
    assert run("info", described, "--json", described).err == (
        "cclnet: it.safetensors is also read: choose another file to write\n"
    )
    save_model(
        described, build_model("timm/test_vit", None, 32, 3, True), replace(description(), backbone="timm/test_vit")
    )
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "timm/test_vit needs timm, which is not installed" in run("info", described).err


# the matrix


def test_the_matrix_and_what_looks_most_like_each_class():
    assert words_of(lines_of(show_matrix, BALANCED)) == [
        ["MEL", "NV", "BCC", "looks most like"],
        ["MEL", "0.50", "0.25", "0.25", "NV"],
        ["NV", "0.25", "0.50", "0.25", "MEL"],
        ["BCC", "0.10", "0.30", "0.60", "NV"],
        ["p̄ = 0.5333, the mean of the diagonal; of hard labels it is 1"],
    ]


@pytest.mark.parametrize(
    ("model", "last"),
    [
        (BASELINE, "no CCL head learned these labels: the model was trained with method: baseline"),
        (
            replace(BALANCED, params={"head_balance": "none"}),
            "the head was not balanced over the classes: rare ones may come out alike, whatever they look like",
        ),
    ],
)
def test_what_a_matrix_does_not_show_is_said(model: ModelDescription, last: str):
    assert lines_of(show_matrix, model)[-1] == last


def test_the_table_of_the_matrix():
    table = matrix_table(BALANCED)
    assert list(table) == ["label", "MEL", "NV", "BCC"]
    assert table["label"].tolist() == BALANCED.classes
    np.testing.assert_array_equal(table[BALANCED.classes].to_numpy(), BALANCED.label_matrix)


def test_similar_classes_come_in_the_order_of_their_cells():
    assert similar_classes(BALANCED)[2] == [("NV", 0.3), ("MEL", 0.1)]
    assert similar_classes(BASELINE) == []


@pytest.mark.parametrize("figure", ["m.png", "m.svg"])
def test_the_matrix_on_the_screen_and_in_files(run, model: Path, figure: str):
    status, out, err = run("matrix", model, "--csv", "m.csv", "--figure", figure)
    assert (status, err) == (0, "")
    assert pd.read_csv("m.csv", index_col="label").to_numpy().tolist() == MODEL.label_matrix
    assert "looks most like" in out
    assert Path(figure).read_bytes().startswith(b"\x89PNG" if figure == "m.png" else b"<?xml")


def test_a_figure_is_png_or_svg(run, model: Path):
    status, out, err = run("matrix", model, "--figure", "m.pdf")
    assert (status, out) == (2, "")
    assert "m.pdf ends neither in .png nor in .svg" in err


# export


def test_help_of_export_says_what_stays_outside(run):
    status, out, _ = run("export", "--help")
    assert status == 0
    for words in ("resized to the metadata's `short_side`", "--with-preprocessing", "--onnx", "probabilities"):
        assert words in out


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    described = replace(description("baseline"), backbone="timm/test_vit")
    save_model(tmp_path / "model.safetensors", build_model("timm/test_vit", None, 32, 3, with_head=False), described)
    return tmp_path / "model.safetensors"


def test_export_writes_the_checked_file(run, trained: Path, tmp_path: Path):
    file = tmp_path / "new" / "model.onnx"
    status, out, err = run("export", trained, "--onnx", file, "--with-preprocessing")
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"{file}: timm/test_vit, differs from torch by \S+ at most\n", out)
    assert file.read_bytes() == to_onnx(*load_model(trained), with_preprocessing=True).content


def test_a_file_that_fails_the_check_is_not_written(
    run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cclnet.inference.onnx.TOLERANCE", -1.0)
    (tmp_path / "model.onnx").write_bytes(b"the one before")
    status, out, err = run("export", trained, "--onnx", tmp_path / "model.onnx")
    assert (status, out) == (1, "")
    assert err.startswith("cclnet: timm/test_vit as ONNX differs from torch by ")
    assert (tmp_path / "model.onnx").read_bytes() == b"the one before"


def test_export_of_what_is_no_model_ends_in_one_line(run, tmp_path: Path):
    missing = tmp_path / "model.safetensors"
    assert run("export", missing, "--onnx", tmp_path / "x") == (
        1,
        "",
        f"cclnet: there is no model {missing}; train one first\n",
    )
