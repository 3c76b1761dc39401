"""The reports of the studies, on made-up cells."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cclnet.dataset.isic import CLASSES
from cclnet.dataset.sample import PLANTED_SIMILARITY
from cclnet.metrics.likeness import confused_similarity, mantel_test, rank_correlation
from studies.controls import report as controls
from studies.imbalance import report as imbalance
from studies.looks import report as looks
from studies.pretrained import report as pretrained
from studies.reporting.cells import load_cells
from studies.similar import report as similar
from studies.table1 import report as table1
from studies.table2 import report as table2
from tests.studies.builders import make_cell, right_every


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
    assert [cell.resampled["accuracy"][0] for cell in groups["weights-original"]] == [1.0, 0.75]
    looks.write(tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| ResNet-18 | the paper's | original | 2 | 0.500 ± 0.000 |" in report
    assert "| ResNet-18 | weights | original | 2 | 0.875 ± 0.177 |" in report
    assert re.search(
        r"^\| the paper's \| original \| another seed \| 1\.00, p = 0\.\d+ \| 1\.00 \|", report, re.MULTILINE
    )
    fixed, other = r"\(\+0\.\d{3}, \+0\.\d{3}\), p ≤ 0\.0001", r"\(\+0\.\d{3}, \+0\.\d{3}\), p [=≤] 0\.\d+"
    assert re.search(rf"^\| weights \| 2 \| 0\.875 ± 0\.177 \| \+0\.375 \| {fixed} \| {other} \|", report, re.MULTILINE)


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

    def correlation(other: np.ndarray) -> float | None:
        return mantel_test(made["true"], other).correlation

    found = looks.what_matrices_follow(groups)
    means = {name: each.mean for (network, head, name), each in found.items() if each and network == "ResNet-18"}
    confused = groups["balanced_baseline-original"][0].confusion
    rates = confused / confused.sum(axis=1, keepdims=True)
    rarity = 1 / groups["weights-original"][0].class_counts
    assert means == {
        "shuffled labels": correlation(made["shuffled"]),
        "a network that never learns": correlation(made["random"]),
        "a balanced baseline's confusions": correlation(rates + rates.T),
        "the class counts": correlation(rarity[:, None] * rarity),
    }
    assert ("ResNet-18", "weights", "the plain baseline's confusions") in found  # and there are none
    alike = {labels: each for labels, each in looks.consistency(groups).items() if each}
    assert {labels: each.mean for labels, each in alike.items()} == {
        ("weights", "original", "another backbone"): correlation(made["other"])
    }


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
    interval = r"\(-0\.\d{3}, [-+]0\.\d{3}\), p = [01]\.\d{3}"
    baseline = (
        rf"^\| baseline \| 0\.8347 \| 2 \| 0\.707 ± 0\.061 \| -0\.093 \| {interval} \| {interval} \| reference \|"
    )
    assert len(re.findall(baseline, report, re.MULTILINE)) == 2  # one for each split
    assert "| ccl | 0.6986 | 2 | 0.500 ± 0.000 | reference | – | – | " in report
    claim = r"^\| image \| ResNet-18 \| ccl − baseline \| 2 \| \+1\.55 \| \+9\.29 \| "
    assert re.search(claim + r"\([-+]\d+\.\d\d, \+\d+\.\d\d\); the paper's is ", report, re.MULTILINE)
    assert "## Effect of the leakage: ISIC 2018, 224 pixels, 200 epochs" in report
    assert "MobileNetV2 on" not in report  # nothing to compare it with
    test = mantel_test(matrix, matrix.T)
    spans = f"{test.correlation:.2f} ({test.correlation:.2f} to {test.correlation:.2f})"
    assert f"| ResNet-18 | MobileNetV2 | {spans}, p = " in report
    table = pd.read_csv(made_up / "table.csv")
    table = table.query("method == 'baseline' and metric == 'accuracy' and split == 'image'").set_index("reference")
    assert np.isnan(table.loc["baseline", "difference"])
    row = table.loc["ccl"]
    assert (row["paper"], row["n"]) == (0.8347, 2)
    assert row["mean"] == pytest.approx((0.75 + 93 / 140) / 2)
    assert row["difference"] == pytest.approx(row["mean"] - 0.8)
    assert row["low"] < row["difference"] < row["high"]
    assert row["low_seeds"] <= row["low"] and row["high"] <= row["high_seeds"]
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
    assert re.search(r"^\| 0\.05 \| 0\.8417 \| 2 \| 0\.800 ± 0\.000 \| \+0\.050 \| \(", report, re.MULTILINE)
    assert "| 0.0005 | 0.8502 | 2 | 0.750 ± 0.000 | reference | – | – |" in report
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
    difference = r"-0\.050 \| \(-0\.\d{3}, [-+]0\.\d{3}\), p = [01]\.\d{3} \| – \|"
    assert re.search(rf"^\| hard labels, twice the loss \| 1 \| 0\.750 \| {difference}", report, re.MULTILINE)
    none = r"\+0\.000 \| \(\+0\.000, \+0\.000\), p = 1\.000 \| – \|"
    assert re.search(rf"^\| baseline: hard labels \| 1 \| 0\.800 \| {none}", report, re.MULTILINE)
    online = r"^\| online label smoothing \(Zhang 2021\) \| "
    assert re.search(online + r"1 \| 0\.500 \| – \|$", report, re.MULTILINE)  # its softness
    followed = re.findall(online + r"(-?\d\.\d\d), p = [01]\.\d+ \| -?\d\.\d\d \|", report, re.MULTILINE)
    labels = load_cells(made_up / "cells")["sample-online_smoothing"][0].soft_labels
    confused = confused_similarity(load_cells(made_up / "cells")["sample-baseline"][0].confusion)
    assert confused is not None
    assert [float(value) for value in followed] == [
        pytest.approx(rank_correlation(labels, other), abs=0.006) for other in (confused, PLANTED_SIMILARITY)
    ]
    p_values = pd.read_csv(made_up / "table.csv").query("metric == 'accuracy'").set_index("method")["p_holm"]
    assert p_values.isna().tolist() == [True, False, False, False]


def test_features_and_soft_labels_stand_beside_each_other(tmp_path: Path):
    cells, matrix = tmp_path / "cells", np.eye(len(CLASSES))
    measured = {"accuracy": 0.7, "balanced_accuracy": 0.6, "planted_in_features": 0.8}
    for seed, agreement in enumerate((0.2, 0.4)):
        scores = measured | {"planted_similarity": agreement, "follows_features": 0.5}
        make_cell(cells, f"none-original-50-{seed}", [True] * 70, matrix, metrics=scores)
    make_cell(cells, "baseline-original-50-0", [True] * 70, matrix, metrics=measured | {"planted_similarity": None})
    make_cell(cells, "none-shuffled-1-0", [True] * 70, matrix, metrics=measured | {"planted_in_features": None})
    similar.write(tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    row = "| 2 | 0.700 ± 0.000 | 0.600 ± 0.000 | 0.300 ± 0.141 | 0.800 ± 0.000 | 0.500 ± 0.000 |"
    assert f"| original | 50 | CCL-Net, the paper's head {row}" in report
    assert "| original | 50 | baseline, no head | 1 | 0.700 | 0.600 | – | 0.800 | – |" in report
    axes = similar.recovery_figure(load_cells(cells)).axes[0]
    means = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in axes.lines}
    assert means["soft labels, paper's head"] == [[50, pytest.approx(0.3)]]
    assert means["features, baseline"] == [[50, pytest.approx(0.8)]]
    assert "features, shuffled labels" not in means


def test_methods_with_pretrained_weights_are_compared_with_the_baseline_of_their_split(tmp_path: Path):
    cells, matrix = tmp_path / "cells", np.eye(len(CLASSES))
    for seed in range(2):
        make_cell(cells, f"unchanged-lesion-baseline-{seed}", right_every(4), matrix)
        make_cell(cells, f"unchanged-lesion-maxsup-{seed}", right_every(7), matrix)
    make_cell(cells, "jittered-image-ccl-0", right_every(2), matrix)
    pretrained.write(tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert re.search(r"^\| MaxSup \(Zhou 2025\) \| 2 \| 0\.857 ± 0\.000 \| \+0\.107 \|", report, re.MULTILINE)
    assert "| method | n | accuracy | macro F1 |" in report  # nothing to compare with
    assert "| CCL-Net, the paper's head | 1 | 0.500 |" in report
    # Every seventh image is of the first class and wrong, and no other one is.
    assert "| MaxSup (Zhou 2025) | 2 | 0.00 ± 0.00 | 1.00 ± 0.00 |" in report
    assert "| method | n | MEL (20) | NV (20) |" in report
    assert [path.name for path in tmp_path.glob("*.png")] == ["differences-unchanged-lesion.png"]
    table = pd.read_csv(tmp_path / "table.csv").query("metric == 'accuracy'").set_index(["colours", "split", "method"])
    found = table.loc[("unchanged", "lesion", "MaxSup (Zhou 2025)")]
    assert (found["mean"], found["difference"]) == (pytest.approx(6 / 7), pytest.approx(6 / 7 - 3 / 4))
    assert np.isnan(table.loc[("jittered", "image", "CCL-Net, the paper's head"), "difference"])


def test_recovery_is_the_correlation_with_what_was_planted(tmp_path: Path):
    cells = tmp_path / "cells"
    cells.mkdir()
    planted = np.array(PLANTED_SIMILARITY)
    make_cell(cells, "weights-50-original-0", [True] * 70, planted**2)
    make_cell(cells, "weights-50-original-1", [True] * 70, -planted)
    make_cell(cells, "none-1-shuffled-0", [True] * 70, np.random.default_rng(0).random(planted.shape))
    imbalance.write(tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| original | 50 | weights | 2 | 0.00 ± 1.41 | 1 of 2 | 1 of 2 |" in report
    assert "| original | 50 | weights | 0.00 | 0.00 |" in report  # without each class
    assert "| shuffled | 1 | the paper's | 1 |" in report
    axes = imbalance.recovery_figure(load_cells(cells)).axes[0]
    means = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in axes.lines}
    assert means["weights"] == [[50, pytest.approx(0)]]
    assert "the paper's, shuffled labels" in means
