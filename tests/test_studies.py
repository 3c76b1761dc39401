"""The studies: their grids, their settings, their cells and reports."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cclnet.errors import CCLNetError
from cclnet.isic import CLASSES
from cclnet.metrics import evaluate
from cclnet.sample import PLANTED_SIMILARITY
from cclnet.statistics import mantel_test
from studies import cell, data
from studies.__main__ import run_all
from studies.grid import Command, commands, study_names
from studies.imbalance import report as imbalance
from studies.looks import report as looks
from studies.projects import ROOT, params_with, parsed_settings
from studies.results import load_cells, markdown_table, mean_scores, spread

LABELS = ("original", "shuffled")
VARIANTS = ("fast", "mobilenet_v2")
COMMITTED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


# settings


def test_settings_change_params_and_nothing_else():
    changed = params_with({"lr_ccl": "0.001", "dataset": "isic2018_64", "epochs": "3", "sample.seed": "7"})
    assert changed["lr_ccl"] == 0.001
    assert changed["datasets"]["isic2018_64"]["epochs"] == 3
    assert changed["sample"]["seed"] == 7
    changed |= {"lr_ccl": COMMITTED["lr_ccl"], "dataset": COMMITTED["dataset"]}
    changed["datasets"]["isic2018_64"]["epochs"] = COMMITTED["datasets"]["isic2018_64"]["epochs"]
    changed["sample"]["seed"] = COMMITTED["sample"]["seed"]
    assert changed == COMMITTED


def test_a_key_of_a_block_belongs_to_the_chosen_dataset():
    for dataset in COMMITTED["datasets"]:
        changed = params_with({"crop": "8", "dataset": dataset})
        assert {name for name, block in changed["datasets"].items() if block["crop"] == 8} == {dataset}


@pytest.mark.parametrize("path", ["lr_cll", "datasets.sample.epoch", "sample.images.many", "nothing.at.all"])
def test_a_key_that_does_not_exist_is_refused(path: str):
    with pytest.raises(CCLNetError, match=f"^{path}: params.yaml has no such key"):
        params_with({path: "1"})


def test_what_is_no_setting_is_refused():
    assert parsed_settings(["a=1", "b=x=y", "a=2"]) == {"a": "2", "b": "x=y"}
    with pytest.raises(CCLNetError, match=r"^seed, 3: write settings as key=value"):
        parsed_settings(["a=1", "seed", "3"])


# grids


@pytest.mark.parametrize("study", study_names())
def test_a_grid_s_commands_are_plain_and_name_their_outputs(study: str):
    planned = commands(study)
    names = [path for command in planned for path in command.outputs]
    assert len(set(names)) == len(names)
    for command in planned:
        assert not any("$" in argument for argument in command.arguments)
        if command.module == "studies.cell":
            arguments = cell.parser().parse_intermixed_args(command.arguments)
            assert command.outputs == [Path(f"{arguments.name}.{suffix}") for suffix in ("json", "csv")]
            params_with(parsed_settings(arguments.settings))
        else:
            assert command.module == "studies.data"
            arguments = data.parser().parse_args(command.arguments)
            assert command.outputs == [arguments.folder / "data"]
            params_with(parsed_settings(arguments.settings))


@pytest.mark.parametrize("study", study_names())
def test_a_study_that_was_not_run_is_missed_by_no_pull_and_no_checkout(study: str):
    stages = yaml.safe_load((ROOT / "studies" / study / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outs = [out for stage in stages.values() for out in stage["outs"]]
    assert all(isinstance(out, dict) and options["cache"] is False for out in outs for options in out.values())


def cells_of(study: str) -> list[str]:
    return [command.outputs[0].stem for command in commands(study) if command.module == "studies.cell"]


def test_the_grid_of_looks_is_the_product_of_its_matrices():
    groups = [f"{head}-{kind}" for head, kind in product(("none", "weights", "logits", "sampling"), LABELS)]
    groups += ["baseline-original", "balanced_baseline-original"]
    single = ["none-random", "weights-random"]
    single += [f"{variant}-{head}-{kind}" for variant, head, kind in product(VARIANTS, ("none", "weights"), LABELS)]
    expected = [f"{group}-{seed}" for group, seed in product(groups, range(3))] + [f"{group}-0" for group in single]
    assert sorted(cells_of("looks")) == sorted(expected)


def test_the_grid_of_imbalance_is_the_product_of_its_matrices():
    runs = [(head, "original") for head in ("none", "weights", "logits", "sampling")]
    runs += [(head, "shuffled") for head in ("none", "weights")]
    expected = [
        f"{head}-{imbalance}-{kind}-{seed}" for (head, kind), imbalance, seed in product(runs, (1, 5, 50), range(5))
    ]
    assert sorted(cells_of("imbalance")) == sorted(expected)
    data = {command.outputs[0].parent for command in commands("imbalance") if command.module == "studies.data"}
    for command in commands("imbalance"):
        if command.module == "studies.cell":
            assert cell.parser().parse_intermixed_args(command.arguments).data in data


def test_the_reports_know_every_group_of_their_grids():
    heads = [*looks.HEADS, *looks.BASELINES]
    known = {f"{start}{head}-{kind}" for start, head, kind in product(looks.VARIANTS, heads, looks.LABELS)}
    assert {name.rpartition("-")[0] for name in cells_of("looks")} <= known
    known = {f"{head}-{step}-{kind}" for head, step, kind in product(looks.HEADS, imbalance.IMBALANCES, LABELS)}
    assert {name.rpartition("-")[0] for name in cells_of("imbalance")} <= known


# a cell, from its stages to the report


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn sample and two cells of it, as small as they can be."""
    folder = tmp_path_factory.mktemp("study")
    settings = {"dataset": "sample", "sample.images": "100", "sample.imbalance": "3", "short_side": "18", "crop": "16"}
    settings |= {"epochs": "1", "milestones": "[]", "batch_size": "80", "backbone": "shufflenet_v2_x0_5"}
    data.prepare_data(folder / "data", settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for head, labels in (("none", "original"), ("weights", "shuffled")):
            changes = {"head_balance": head, "training_labels": labels, "seed": "0"}
            cell.run_cell(folder / f"cells/{head}-{labels}-0", folder / "data", settings | changes)
    return folder


def test_a_cell_leaves_two_files_and_nothing_else(study: Path):
    names = [f"{group}-0.{suffix}" for group in ("none-original", "weights-shuffled") for suffix in ("csv", "json")]
    assert sorted(path.name for path in (study / "cells").iterdir()) == names
    assert not [path for path in (study / ".cclnet").rglob("*") if path.is_file()]


def test_a_cell_s_predictions_give_its_metrics(study: Path):
    (one,) = load_cells(study / "cells")["none-original"]
    truth = one.predictions["label"].map(CLASSES.index).to_numpy()
    probabilities = one.predictions[list(CLASSES)].to_numpy()
    assert len(truth) == 20
    again = evaluate(truth, probabilities / probabilities.sum(axis=1, keepdims=True))
    for name in ("accuracy", "kappa", "f1", "nll", "ece"):
        assert again[name] == pytest.approx(one.metrics[name], abs=1e-4)
    assert one.confusion.sum() == 20
    assert one.class_counts.sum() == 80
    assert one.soft_labels.sum(axis=1) == pytest.approx(np.ones(len(CLASSES)))
    assert one.results["settings"]["head_balance"] == "none"


def test_a_cell_without_data_says_how_to_prepare_them(tmp_path: Path):
    with pytest.raises(CCLNetError, match=r"prepare them with: python -m studies.data"):
        cell.run_cell(tmp_path / "cell", tmp_path / "nowhere", {})


def test_the_report_has_a_row_for_every_group(study: Path):
    looks.write(study)
    report = (study / "report.md").read_text(encoding="utf-8")
    assert (
        len(
            re.findall(
                r"^\| ResNet-18 \| (?:the paper's \| original|weights \| shuffled) \| 1 \|", report, re.MULTILINE
            )
        )
        == 2
    )
    assert "There are no two cells to compare yet." in report
    assert (study / "matrices.png").stat().st_size > 10_000


# the statistics of a report, on made-up cells


def make_cell(folder: Path, name: str, right: list[bool], matrix: np.ndarray) -> None:
    """A cell whose predictions are certain, and right or not."""
    truth = np.arange(len(right)) % len(CLASSES)
    chosen = np.where(right, truth, (truth + 1) % len(CLASSES))
    table = pd.DataFrame(np.eye(len(CLASSES))[chosen], columns=list(CLASSES))
    table.insert(0, "image", [f"image{row}" for row in range(len(right))])
    table.insert(1, "label", [CLASSES[label] for label in truth])
    table.insert(2, "lesion", [f"lesion{row}" for row in range(len(right))])
    table.to_csv(folder / f"{name}.csv", index=False)
    confusion = np.zeros((len(CLASSES), len(CLASSES)))
    np.add.at(confusion, (truth, chosen), 1)
    scores = {"accuracy": float(np.mean(right)), "kappa": 0.5, "f1": 0.5, "balanced_accuracy": 0.5, "ece": 0.1}
    results = {
        "settings": {},
        "ran_on": {},
        "metrics": scores | {"softness": 0.5},
        "training_images": [10, 70, 20, 30, 40, 50, 60],
        "soft_labels": matrix.tolist(),
        "confusion": confusion.tolist(),
        "history": {},
    }
    (folder / f"{name}.json").write_text(json.dumps(results))


def test_differences_and_agreements_are_those_of_the_cells(tmp_path: Path):
    cells = tmp_path / "cells"
    cells.mkdir()
    random = np.random.default_rng(0)
    matrix = random.random((len(CLASSES), len(CLASSES)))
    for seed in range(2):
        make_cell(cells, f"none-original-{seed}", [row % 2 == 0 for row in range(140)], matrix)
        make_cell(cells, f"weights-original-{seed}", [row % 4 != 0 or seed == 0 for row in range(140)], matrix.T)
    groups = load_cells(cells)
    assert {name: len(group) for name, group in groups.items()} == {"none-original": 2, "weights-original": 2}
    assert mean_scores(groups["weights-original"])(np.ones((1, 140)))["accuracy"] == pytest.approx([0.875])
    looks.write(tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| ResNet-18 | the paper's | original | 2 | 0.500 ± 0.000 |" in report
    assert "| ResNet-18 | weights | original | 2 | 0.875 ± 0.177 |" in report
    assert re.search(r"^\| the paper's \| original \| 1\.00 \(0\.0002\) \| – \|", report, re.MULTILINE)
    assert re.search(r"^\| weights \| 2 \| \+0\.375 \(\+0\.\d{3}, \+0\.\d{3}\), p = 0\.\d{3} \|", report, re.MULTILINE)


def test_what_a_matrix_follows_is_looked_up_in_the_cells_of_its_own_head(tmp_path: Path):
    random = np.random.default_rng(1)
    made = {name: random.random((len(CLASSES), len(CLASSES))) for name in ("true", "shuffled", "random", "other")}
    make_cell(tmp_path, "weights-original-0", [True] * 70, made["true"])
    make_cell(tmp_path, "weights-shuffled-0", [True] * 70, made["shuffled"])
    make_cell(tmp_path, "weights-random-0", [True] * 70, made["random"])
    make_cell(tmp_path, "none-shuffled-0", [True] * 70, made["true"])
    make_cell(tmp_path, "mobilenet_v2-weights-original-0", [True] * 70, made["other"])
    make_cell(tmp_path, "balanced_baseline-original-0", [row % 3 > 0 for row in range(70)], made["other"])
    groups = load_cells(tmp_path)

    def told(other: np.ndarray) -> str:
        test = mantel_test(made["true"], other)
        return f"{test.correlation:.2f} ({test.p_two_sided:.4f})"

    first, _ = looks.what_matrices_follow(groups)
    assert first["shuffled labels"] == told(made["shuffled"])
    assert first["a network that never learns"] == told(made["random"])
    assert first["the plain baseline's confusions"] == "–"
    confused = groups["balanced_baseline-original"][0].confusion
    rates = confused / confused.sum(axis=1, keepdims=True)
    assert first["a balanced baseline's confusions"] == told(rates + rates.T)
    rarity = 1 / groups["weights-original"][0].class_counts
    assert first["the class counts"] == told(rarity[:, None] * rarity)
    (true,) = [row for row in looks.consistency_table(groups) if row["labels"] == "original"]
    assert true == {
        "head": "weights",
        "labels": "original",
        "another seed": "–",
        "another backbone": told(made["other"]),
    }


def test_recovery_is_the_correlation_with_what_was_planted(tmp_path: Path):
    cells = tmp_path / "cells"
    cells.mkdir()
    planted = np.array(PLANTED_SIMILARITY)
    make_cell(cells, "weights-50-original-0", [True] * 70, planted**2)
    make_cell(cells, "weights-50-original-1", [True] * 70, -planted)
    make_cell(cells, "none-1-shuffled-0", [True] * 70, np.random.default_rng(0).random(planted.shape))
    imbalance.write(tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| original | 50 | weights | 2 | 0.00 ± 1.41 | 1 of 2 |" in report
    assert "| shuffled | 1 | the paper's | 1 |" in report
    axes = imbalance.recovery_figure(load_cells(cells)).axes[0]
    means = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in axes.lines}
    assert means["weights"] == [[50, pytest.approx(0)]]
    assert "the paper's, shuffled labels" in means


# running


def test_commands_run_at_the_same_time_and_one_that_fails_ends_the_study(tmp_path: Path, capfd):
    settings = ["dataset=sample", "no_such_key=1"]
    failing = [Command("studies.data", [str(tmp_path / name), *settings], []) for name in ("a", "b")]
    with pytest.raises(CCLNetError, match=r"a ended with exit status 1$|b ended with exit status 1$"):
        run_all("looks", failing, jobs=2)
    assert "no_such_key: params.yaml has no such key" in capfd.readouterr().err


def test_spread_is_mean_and_sample_deviation():
    assert spread([1.0, 2.0, None, 3.0]) == "2.000 ± 1.000"
    assert spread([0.25], digits=1) == "0.2"
    assert spread([None]) == "–"


def test_a_table_in_markdown():
    assert markdown_table([{"a": "1", "b": "2"}]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
