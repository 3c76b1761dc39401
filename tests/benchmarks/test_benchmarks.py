"""The benchmarks: every one in small, and the arithmetic of their tables."""

import math
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch
from torchvision.models import get_model

from benchmarks import __main__ as program
from benchmarks.catalogue import QUESTIONS, Settings
from benchmarks.images import drawn_files, photographs
from benchmarks.measure import Comparison, Series, Target, figure, in_turn
from benchmarks.questions import processes
from benchmarks.report import read, report, row_of, table_of
from cclnet.dataset.isic import CLASSES
from cclnet.images.decoding import decode
from cclnet.networks.backbones import build_backbone
from cclnet.networks.model import CCLNet
from studies.running.settings import ROOT

IN_SMALL = Settings(tiny=True, repetitions=1, images=None, device="cpu")


# in small


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_is_answered(question: str):
    comparisons = import_module(f"benchmarks.questions.{question}").run(IN_SMALL)
    assert comparisons
    for comparison in comparisons:
        values = [*comparison.measured.values, *comparison.reference.values]
        assert all(0 <= value < math.inf for value in values)
        assert math.isfinite(comparison.ratio)


def test_every_module_that_runs_is_in_the_catalogue():
    modules = {path.stem for path in (Path(program.__file__).parent / "questions").glob("*.py")} - {"__init__"}
    assert modules == set(QUESTIONS)
    assert all(hasattr(import_module(f"benchmarks.questions.{name}"), "run") for name in modules)


# the arithmetic


def comparison(target: Target | None = None) -> Comparison:
    return Comparison("a case", "s", Series("this", [3.0, 1.0, 2.5]), Series("that", [2.0, 0.5, 1.0]), target)


def test_a_ratio_is_of_medians_and_its_spread_of_each_repetition():
    row = row_of(comparison(Target(low=2)))
    assert (row["measured_median"], row["measured_low"], row["measured_high"]) == (2.5, 1.0, 3.0)
    assert (row["reference_median"], row["reference_low"], row["reference_high"]) == (1.0, 0.5, 2.0)
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == (2.5, 1.5, 2.5)
    assert (row["target"], row["met"], row["repetitions"]) == ("≥ 2", "yes", 3)


@pytest.mark.parametrize(
    ("target", "text", "met"),
    [
        (Target(low=2.5), "≥ 2.5", True),
        (Target(low=2.6), "≥ 2.6", False),
        (Target(high=2.5), "≤ 2.5", True),
        (Target(high=2.4), "≤ 2.4", False),
        (Target(2.4, 2.6), "2.4 to 2.6", True),
        (Target(2.6, 3), "2.6 to 3", False),
        (Target(2, 2.4), "2 to 2.4", False),
        (None, "None", None),
    ],
)
def test_a_target_is_met_with_both_ends(target: Target | None, text: str, met: bool | None):
    assert str(target) == text
    assert comparison(target).met is met


def test_things_are_measured_in_turn_and_the_first_round_is_not_counted():
    calls: list[str] = []

    def measuring(name: str):
        def measure() -> float:
            calls.append(name)
            return float(len(calls))

        return measure

    series = in_turn({"a": measuring("a"), "b": measuring("b")}, repetitions=2)
    assert "".join(calls) == "ababab"
    assert {name: one.values for name, one in series.items()} == {"a": [3, 5], "b": [4, 6]}
    calls.clear()
    assert in_turn({"a": measuring("a")}, 3, warm_up=False)["a"].values == [1, 2, 3]


def test_figures_have_three_digits():
    assert [figure(value) for value in (0.012345, 1.0, 12.345, 123.45, 12345.6)] == [
        "0.0123",
        "1",
        "12.3",
        "123",
        "12,346",
    ]


def test_processes_stand_beside_what_one_would_do_as_often(monkeypatch: pytest.MonkeyPatch):
    speeds = {"one": [10.0, 12.0, 11.0], "together": [18.0, 19.0, 20.0], "apart": [21.0, 22.0, 20.0]}
    monkeypatch.setattr(processes, "in_processes", lambda folder, case, repetitions: speeds)
    exchange, together, apart = processes.run(IN_SMALL)
    assert (together.ratio, apart.ratio, exchange.ratio) == (19 / 22, 21 / 22, 19 / 21)
    assert (exchange.met, together.met, apart.met) == (False, None, None)


# tables and the report


def test_what_is_measured_becomes_a_table_a_page_and_a_figure(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks", "departures", "--tiny", "--results", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "the augmentation is from torchvision" in finished.stdout
    table = pd.read_csv(tmp_path / "departures.csv")
    for row in table.to_dict("records"):
        assert row["ratio"] == pytest.approx(row["measured_median"] / row["reference_median"])
        assert "1 threads" in row["machine"]
        assert f"torch {version('torch')}" in row["versions"]
        assert 0 <= row["other_work"] <= 1

    rows = [
        row_of(comparison(target)) | {"machine": "a machine", "images": "a few", "versions": "some", "other_work": 0.25}
        for target in (Target(2.6), None)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "resize.csv", index=False)
    assert list(read(tmp_path)) == ["departures", "resize"]
    page = report(tmp_path)
    assert page == (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| a case | this: 2.5 (1 … 3) | that: 1 (0.5 … 2) | s | 2.5 (1.5 … 2.5) | ≥ 2.6 | no | 3 |" in page
    assert "| a case | this: 2.5 (1 … 3) | that: 1 (0.5 … 2) | s | 2.5 (1.5 … 2.5) | – | – | 3 |" in page
    assert "on a machine; a few; some; other programs had 25% of the machine meanwhile." in page
    assert (tmp_path / "ratios.png").stat().st_size > 5_000
    assert [line["met"] for line in table_of(read(tmp_path)["resize"])] == ["no", "–"]


# what is measured on


@pytest.mark.parametrize(("question", "said"), [("departures", "images of one's own"), ("memory", "drawn images")])
def test_what_was_measured_on_is_said(question: str, said: str, tmp_path: Path):
    (tmp_path / "own.jpg").write_bytes(drawn_files(1)[0])
    arguments = [question, "--tiny", "--images", str(tmp_path), "--results", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, check=True)
    assert set(pd.read_csv(tmp_path / f"{question}.csv")["images"]) == {said}


def test_drawn_files_are_like_those_of_isic_2018():
    for data in drawn_files(7):
        assert decode(data).size == (600, 450)
        assert 240_000 < len(data) < 310_000


def test_images_of_one_s_own_are_repeated(tmp_path: Path):
    for number, data in enumerate(drawn_files(3)):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    shots = photographs(8, tmp_path)
    assert [shot.jpeg for shot in shots] == [drawn_files(3)[place % 3] for place in range(8)]
    assert [shot.label for shot in shots] == [*CLASSES, CLASSES[0]]


def test_the_peers_train_the_same_network():
    def parameters(model: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    ours = CCLNet(*build_backbone("resnet18"), num_classes=len(CLASSES))
    assert parameters(ours) == parameters(get_model("resnet18", num_classes=len(CLASSES)))
