import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    f1_score,
    jaccard_score,
    log_loss,
    recall_score,
    roc_auc_score,
)

from cclnet.cli.compare import show_comparison
from cclnet.cli.terminal import UNBOUNDED
from cclnet.experiments.comparison import Change, Comparison, compare_experiments, load_experiment
from cclnet.experiments.run import Run
from cclnet.metrics.likeness import MantelTest
from cclnet.metrics.names import title
from cclnet.metrics.resampling import McNemar
from cclnet.metrics.score_table import Score
from cclnet.system.errors import DataError

CLASSES = ["MEL", "NV", "BCC", "AKIEC"]


def write_split(path: Path, labels: list[str], lesions: list[str]) -> None:
    """Validation images i00, i01, … and one for training."""
    rows = [
        f"i{i:02},{label},{lesion},validation" for i, (label, lesion) in enumerate(zip(labels, lesions, strict=True))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["image,label,lesion,subset", *rows, "trained,MEL,L0,train"]))


def write_predictions(path: Path, probabilities: np.ndarray, classes: list[str] = CLASSES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pd.Index([f"i{i:02}" for i in range(len(probabilities))], name="image")
    pd.DataFrame(probabilities, index=images, columns=classes).to_csv(path)


def drawn(seed: int, skill: float, images: int = 60) -> tuple[list[str], list[str], np.ndarray]:
    """Labels, lesions (the same ones for every seed) and probabilities."""
    fixed = np.random.default_rng(0)
    labels = [CLASSES[i] for i in fixed.choice(4, images, p=[0.4, 0.3, 0.2, 0.1])]
    lesions = [f"L{i}" for i in fixed.integers(images // 2, size=images)]
    probabilities = np.random.default_rng(seed).dirichlet(np.full(4, 0.8), images)
    probabilities += skill * np.eye(4)[[CLASSES.index(label) for label in labels]]
    return labels, lesions, probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the process runs: a split, and the predictions a.csv and b.csv, b better than a."""
    monkeypatch.chdir(tmp_path)
    for name, seed, skill in (("a.csv", 1, 0.3), ("b.csv", 2, 0.9)):
        labels, lesions, probabilities = drawn(seed, skill)
        write_split(tmp_path / "data" / "split.csv", labels, lesions)
        write_predictions(tmp_path / name, probabilities)
    return tmp_path


def load(name: str) -> Run:
    return load_experiment(name, Path("data/split.csv"))


def compared(a: str, b: str) -> Comparison:
    return compare_experiments(load(a), load(b))


def change_of(comparison: Comparison, name: str) -> Change:
    [change] = [change for change in comparison.metrics if change.name == name]
    return change


# the numbers


def test_by_hand(folder: Path):
    # four images of MEL, two of NV; a recognises three and one, b two and two; one of them in common is i00, i01, i04
    write_split(folder / "data/split.csv", ["MEL"] * 4 + ["NV"] * 2, ["L1", "L1", "L2", "L3", "L4", "L5"])
    sure = {True: 0.75, False: 0.25}
    for name, right in (("a.csv", [1, 1, 1, 0, 1, 0]), ("b.csv", [1, 1, 0, 0, 1, 1])):
        mel = [sure[bool(hit) == (i < 4)] for i, hit in enumerate(right)]
        write_predictions(folder / name, np.column_stack([mel, 1 - np.array(mel)]), ["MEL", "NV"])
    found = compared("a.csv", "b.csv")
    assert (found.images, found.lesions) == (6, 5)
    assert change_of(found, "accuracy")[:4] == ("accuracy", pytest.approx(4 / 6), pytest.approx(4 / 6), 0)
    # recall: (3/4 + 1/2) / 2 and (2/4 + 2/2) / 2
    assert change_of(found, "balanced_accuracy")[1:4] == (0.625, 0.75, 0.125)
    # 2·3 / (4 + 4) and 2·1 / (2 + 2) of a; 2·2 / (4 + 2) and 2·2 / (2 + 4) of b
    assert change_of(found, "f1")[1:4] == pytest.approx((5 / 8, 2 / 3, 1 / 24))
    nll = -(4 * math.log(0.75) + 2 * math.log(0.25)) / 6
    assert change_of(found, "nll")[1:4] == pytest.approx((nll, nll, 0))
    assert found.mcnemar == (1, 1, 1)
    assert [tuple(row) for row in found.sensitivity] == [("MEL", 4, 0.75, 0.5, -0.25), ("NV", 2, 0.5, 1, 0.5)]
    assert found.soft_labels is None


def test_against_other_libraries_and_loops(folder: Path):
    found = compared("a.csv", "b.csv")
    labels, lesions, p_a = drawn(1, 0.3)
    p_b = drawn(2, 0.9)[2]
    true = np.array([CLASSES.index(label) for label in labels])
    macro = {"average": "macro", "labels": range(4)}
    figures: dict[str, Callable[[np.ndarray], float]] = {
        "accuracy": lambda p: accuracy_score(true, p.argmax(1)),
        "kappa": lambda p: cohen_kappa_score(true, p.argmax(1)),
        "f1": lambda p: f1_score(true, p.argmax(1), **macro),
        "jaccard": lambda p: jaccard_score(true, p.argmax(1), **macro),
        "balanced_accuracy": lambda p: recall_score(true, p.argmax(1), **macro),
        "auc": lambda p: roc_auc_score(true, p, multi_class="ovr"),
        "nll": lambda p: log_loss(true, p),
    }
    for name, figure in figures.items():
        change = change_of(found, name)
        assert change[1:4] == pytest.approx((figure(p_a), figure(p_b), figure(p_b) - figure(p_a)))
    names = list(dict.fromkeys(lesions))
    images_of = [[i for i, lesion in enumerate(lesions) if lesion == name] for name in names]
    generator = np.random.default_rng(0)
    draws = [generator.integers(len(names), size=len(names)) for _ in range(2000)]
    resamples = [[i for index in draw for i in images_of[index]] for draw in draws]
    gains = {
        "accuracy": (p_b.argmax(1) == true) * 1.0 - (p_a.argmax(1) == true),
        "nll": -np.log(p_b[range(60), true]) + np.log(p_a[range(60), true]),
    }
    for name, gain in gains.items():
        change, means = change_of(found, name), np.array([gain[resample].mean() for resample in resamples])
        assert (change.low, change.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
        rarer = min((means <= 1e-12).sum(), (means >= -1e-12).sum())
        assert change.p == pytest.approx(min(1, 2 * (1 + rarer) / 2001))
    hits_a, hits_b = (p.argmax(1) == true for p in (p_a, p_b))
    only_a, only_b = int((hits_a & ~hits_b).sum()), int((hits_b & ~hits_a).sum())
    assert found.mcnemar == (only_a, only_b, pytest.approx(binomtest(only_a, only_a + only_b).pvalue))
    for position, row in enumerate(found.sensitivity):
        own = true == position
        assert row[1:4] == (own.sum(), pytest.approx(hits_a[own].mean()), pytest.approx(hits_b[own].mean()))


def test_p_after_holm_is_over_the_tested_figures_alone(folder: Path):
    found = compared("a.csv", "b.csv")
    tested = [change for change in found.metrics if change.p is not None]
    assert {change.name for change in found.metrics} - {change.name for change in tested} == {"auc", "classwise_ece"}
    ordered = sorted(tested, key=lambda change: change.p or 0)
    adjusted = 0.0
    for position, change in enumerate(ordered):
        adjusted = max(adjusted, min(1, (len(tested) - position) * (change.p or 0)))
        assert change.p_holm == pytest.approx(adjusted)


def test_swapped_the_signs_change_and_nothing_else(folder: Path):
    forward, backward = compared("a.csv", "b.csv"), compared("b.csv", "a.csv")
    for there, back in zip(forward.metrics, backward.metrics, strict=True):
        assert (back.a, back.b) == (there.b, there.a)
        assert back.difference == -(there.difference or 0)
        if there.low is not None and there.high is not None:
            assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
            assert (back.p, back.p_holm) == (there.p, there.p_holm)
    assert backward.mcnemar == (forward.mcnemar.only_b, forward.mcnemar.only_a, forward.mcnemar.p)
    assert [row.difference for row in backward.sensitivity] == [-(row.difference or 0) for row in forward.sensitivity]


def test_an_experiment_does_not_differ_from_itself(folder: Path):
    same = compared("a.csv", "a.csv")
    for change in same.metrics:
        assert change.difference == 0
        if change.p is not None:
            assert change[4:] == (0, 0, 1, 1)
    assert same.mcnemar == (0, 0, 1)
    assert (
        "the data show no difference between a.csv and a.csv in accuracy, macro F1, Cohen's kappa" in same.conclusion()
    )


def test_the_order_of_the_rows_means_nothing(folder: Path):
    before = compared("a.csv", "b.csv").as_dict()
    for name in ("a.csv", "data/split.csv"):
        header, *rows = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join([header, *reversed(rows)]))
    assert compared("a.csv", "b.csv").as_dict() == before


def test_undefined_figures_are_not_tested(folder: Path):
    write_split(folder / "data/split.csv", ["NV"] * 6, ["L1", "L1", "L2", "L3", "L4", "L5"])
    for name, nv in (("a.csv", 0.8), ("b.csv", 0.7)):
        write_predictions(folder / name, np.tile([1 - nv, nv], (6, 1)), ["MEL", "NV"])
    found = compared("a.csv", "b.csv")
    assert change_of(found, "kappa") == ("kappa", None, None, None, None, None, None, None)
    assert change_of(found, "auc")[3] is None
    assert found.sensitivity[0] == ("MEL", 0, None, None, None)
    json.dumps(found.as_dict(), allow_nan=False)


# the soft labels


def with_soft_labels(run: Run, soft_labels: np.ndarray, epoch: int | None) -> Run:
    return replace(run, soft_labels=soft_labels, scores={"softness_epoch": Score(epoch)})


def test_learned_matrices_are_compared(folder: Path):
    matrices = np.random.default_rng(3).random((2, 4, 4))
    matrices[1] += matrices[0]
    runs = [with_soft_labels(load("a.csv"), matrix, epoch=5) for matrix in matrices]
    found = compare_experiments(*runs).soft_labels
    assert found is not None
    off_diagonal = ~np.eye(4, dtype=bool)

    def correlation(order: tuple[int, ...]) -> float:
        reordered = matrices[1][np.ix_(order, order)]
        return spearmanr(matrices[0][off_diagonal], reordered[off_diagonal])[0]  # pyright: ignore

    correlations = [correlation(order) for order in permutations(range(4))]
    assert found.correlation == pytest.approx(correlations[0])
    assert found.p_two_sided == np.mean([abs(value) > abs(correlations[0]) - 1e-9 for value in correlations])


def test_labels_that_no_head_learned_are_not_compared(folder: Path):
    learned, fixed = (with_soft_labels(load("a.csv"), np.eye(4), epoch) for epoch in (5, None))
    assert compare_experiments(learned, learned).soft_labels is not None
    assert compare_experiments(learned, fixed).soft_labels is None
    assert compare_experiments(learned, load("a.csv")).soft_labels is None


# what cannot be compared


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_experiments_on_other_images_are_not_compared(folder: Path):
    a = load("a.csv")
    edit(folder / "data/split.csv", "i00,", "j00,")
    edit(folder / "b.csv", "i00,", "j00,")
    split = (folder / "data/split.csv").read_text().splitlines()
    split[2] = ",".join(["i01", "AKIEC", *split[2].split(",")[2:]])
    for line in range(3, 8):
        split[line] = ",".join([*split[line].split(",")[:2], "other", "validation"])
    (folder / "data/split.csv").write_text("\n".join(split))
    with pytest.raises(DataError) as caught:
        compare_experiments(a, load("b.csv"))
    assert str(caught.value).splitlines() == [
        "a.csv and b.csv did not predict the same images: compare runs of one dataset, split and split_seed",
        "  only a.csv: has predicted 1 image (i00)",
        "  only b.csv: has predicted 1 image (j00)",
        "  label: differs for 1 image (i01)",
        "  lesion: differs for 5 images (i02, i03, i04, …)",
    ]


def test_experiments_with_other_classes_are_not_compared(folder: Path):
    edit(folder / "b.csv", "image,MEL,NV,BCC,AKIEC", "image,MEL,NV,AKIEC,BCC")
    with pytest.raises(DataError, match="classes: MEL, NV, BCC, AKIEC and MEL, NV, AKIEC, BCC"):
        compared("a.csv", "b.csv")


# what is said


def test_the_conclusion_says_what_is_better_worse_and_open(folder: Path):
    found = compared("a.csv", "b.csv")
    assert found.conclusion() == (
        "At p < 0.05 after Holm's correction for 8 tests, the data show that b.csv differs from a.csv: better in "
        "accuracy, macro F1, Cohen's kappa, macro Jaccard, balanced accuracy, NLL and Brier score; worse in ECE. A "
        "difference that is not shown may still be there, and one run each says nothing about other seeds."
    )
    assert (
        "differs from b.csv: better in ECE; worse in accuracy, macro F1, Cohen's kappa"
        in compared("b.csv", "a.csv").conclusion()
    )


def test_the_conclusion_says_what_is_open_beside_what_is_shown():
    changes = [Change(name, 0.5, 0.6, 0.1, 0, 0.2, p, p) for name, p in (("accuracy", 0.01), ("f1", 0.2), ("ece", 0.9))]
    found = Comparison("HEAD", "muggy-tuna", 10, 10, changes, McNemar(0, 0, 1), None, [])
    assert found.conclusion().startswith(
        "At p < 0.05 after Holm's correction for 3 tests, the data show that muggy-tuna differs from HEAD: better in "
        "accuracy; no difference shown in macro F1 and ECE. "
    )


@pytest.mark.parametrize(
    ("name", "difference", "p_holm", "verdict"),
    [
        ("accuracy", 0.1, 0.049, "better"),
        ("accuracy", 0.1, 0.05, ""),
        ("accuracy", -0.1, 0.01, "worse"),
        ("ece", 0.1, 0.01, "worse"),
        ("nll", -0.1, 0.01, "better"),
        ("auc", 0.1, None, ""),
    ],
)
def test_a_verdict_needs_a_test_that_rejects(name: str, difference: float, p_holm: float | None, verdict: str):
    assert Change(name, 0.5, 0.5 + difference, difference, None, None, p_holm, p_holm).verdict == verdict


def printed(comparison: Comparison, terminal: bool = False, width: int = 80) -> str:
    file = io.StringIO()
    width = width if terminal else UNBOUNDED
    show_comparison(Console(file=file, width=width, color_system=None, force_terminal=terminal), comparison)
    return file.getvalue()


def test_a_row_is_one_whole_line_where_there_is_no_terminal(folder: Path):
    found = compared("a.csv", "b.csv")
    lines = printed(found).splitlines()
    assert len(lines) == 1 + 11 + 5 + 2
    assert lines[0] == "A a.csv, B b.csv: 60 validation images of 24 lesions"
    accuracy = change_of(found, "accuracy")
    assert lines[2].split() == [
        *("accuracy", f"{accuracy.a:.4f}", f"{accuracy.b:.4f}", f"{accuracy.difference:+.4f}"),
        *(f"{accuracy.low:+.4f},", f"{accuracy.high:+.4f}", f"{accuracy.p:.4f}", f"{accuracy.p_holm:.4f}"),
    ]
    assert lines[7].split()[4:] == ["–", "–", "–"], "AUC is not tested"
    assert lines[-1] == found.conclusion()


def test_no_p_is_printed_as_0(folder: Path):
    found = replace(compared("a.csv", "b.csv"), mcnemar=McNemar(0, 40, 2**-39), soft_labels=MantelTest(0.5, 0.2, 0.4))
    lines = printed(found).splitlines()
    assert lines[-3] == "only one correct: a.csv 0, b.csv 40; exact McNemar p <0.0001 (by image, not by lesion)"
    assert lines[-2] == "soft labels of both: rank correlation +0.5000, Mantel p 0.4000"


def test_a_terminal_of_80_columns_gets_tables_that_cut_nothing(folder: Path):
    found = compared("a.csv", "b.csv")
    text = printed(found, terminal=True, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "───" in text
    words = [word.strip(",") for word in text.split()]
    for change in found.metrics:
        assert title(change.name) in " ".join(words)
        assert f"{change.difference:+.4f}" in words
        assert change.low is None or f"{change.low:+.4f}" in words
    assert " ".join(text.split()).endswith(found.conclusion())
