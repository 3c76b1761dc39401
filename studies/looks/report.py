"""Report of the study: do the soft labels follow visual similarity or class counts?

python -m studies looks
"""

from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path

import numpy as np

from cclnet.dataset.isic import CLASSES
from cclnet.metrics.likeness import count_pattern
from cclnet.views.figures import rank_figure, save_figure
from studies.reporting.cells import Cell, Groups, load_cells
from studies.reporting.differences import EXPLANATION, method_differences, metric_table
from studies.reporting.matrices import EXPLANATION as AGREEMENT
from studies.reporting.matrices import (
    Agreement,
    Matrix,
    agreement,
    agreement_table,
    confusions,
    counts_table,
    matrices,
)
from studies.reporting.tables import markdown_table, spread, write_report

HEADS = {"none": "the paper's", "weights": "weights", "logits": "logits", "sampling": "sampling"}
BASELINES = {"baseline": "no head", "balanced_baseline": "no head, balanced sampling"}
LABELS = ("original", "shuffled", "random")
VARIANTS = {"": "ResNet-18", "fast-": "ResNet-18, lr_CCL × 10", "mobilenet_v2-": "MobileNetV2"}
"""Prefix of a cell's name before the head → its meaning."""
SCORES = ("accuracy", "kappa", "f1", "balanced_accuracy", "ece")
COMPARED = ("accuracy", "kappa", "f1", "balanced_accuracy")


def write(folder: Path) -> None:
    """Write ``report.md`` and ``matrices.png`` beside the cells."""
    groups = load_cells(folder / "cells")
    sections = [
        "# Visual similarity or class counts?",
        "Written by `python -m studies looks` from the cells in `cells/`: ISIC 2018 at 64 pixels, 16 epochs, split by "
        "image. Heads: the head's loss as in the paper, or balanced over the classes by weights, logits or sampling. "
        "Labels: the images' own (original), shuffled among the training images, or their own under a network that "
        "never learns (random). n: seeds. Mean ± standard deviation over seeds. p̄: softness.",
        "## Scores of each head",
        markdown_table(scores_table(groups)),
        "## What the matrices agree with",
        f"{AGREEMENT} *Confusions*: how often a classifier without a head confuses two classes on the "
        "validation images, mean of both directions. Those of the plain baseline follow the class counts themselves, "
        "because it predicts frequent classes for images of rare ones; those of a baseline with balanced sampling do "
        "not.",
        *tables_of(agreement_table(what_matrices_follow(groups), ("network", "head", "compared with"), CLASSES)),
        "The share of the ranks of the entries (R²) that class counts explain; about .14 would be expected by chance:",
        *tables_of(counts_table(learned_matrices(groups), ("network", "head", "labels"), CLASSES)),
        "## Agreement between runs",
        "The same correlations between runs. If shuffled labels give the consistency that true labels give, then the "
        "consistency is no evidence of visual similarity.",
        *tables_of(agreement_table(consistency(groups), ("head", "labels", "compared with"), CLASSES)),
        "## Does a balanced head classify better?",
        "Differences from the paper's head. " + EXPLANATION,
        *comparison(groups),
    ]
    figure = matrices_of_figure(groups)
    if figure:
        save_figure(rank_figure(figure, CLASSES), folder / "matrices.png")
        sections += ["## The matrices", "Averaged over the seeds.", "![matrices of classes](matrices.png)"]
    write_report(folder, sections)


def tables_of(rows: list[dict[str, str]]) -> list[str]:
    """A table, or nothing if there are no rows."""
    return [markdown_table(rows)] if rows else []


def scores_table(groups: Groups) -> list[dict[str, str]]:
    """One row per network, head and kind of labels that has been run, and per baseline."""
    names = {f"{head}-original": ("ResNet-18", title, "original") for head, title in BASELINES.items()}
    names |= names_of_matrices()
    rows = []
    for group, (network, head, labels) in names.items():
        if cells := groups.get(group):
            row = {"network": network, "head": head, "labels": labels, "n": str(len(cells))}
            row |= {name: spread([cell.metrics[name] for cell in cells]) for name in SCORES}
            rows.append(row | {"p̄": spread([cell.metrics["softness"] for cell in cells])})
    return rows


def names_of_matrices() -> dict[str, tuple[str, str, str]]:
    """Group of cells → network, head and labels, for all groups that learn a matrix."""
    return {
        f"{variant}{head}-{labels}": (network, title, labels)
        for (variant, network), labels, (head, title) in product(VARIANTS.items(), LABELS, HEADS.items())
    }


def learned_matrices(groups: Groups) -> dict[tuple[str, ...], list[Cell]]:
    """Network, head and labels → the finished cells."""
    return {labels: groups[group] for group, labels in names_of_matrices().items() if group in groups}


def what_matrices_follow(groups: Groups) -> dict[tuple[str, ...], Agreement | None]:
    """Network, head and possible explanation of the matrices from true labels → their agreement with it."""
    references = {
        "the plain baseline's confusions": confusions(groups, "baseline-original"),
        "a balanced baseline's confusions": confusions(groups, "balanced_baseline-original"),
    }
    found: dict[tuple[str, ...], Agreement | None] = {}
    for (variant, network), (head, title) in product(VARIANTS.items(), HEADS.items()):
        own = groups.get(f"{variant}{head}-original", [])
        explanations = {
            "shuffled labels": matrices(groups, f"{variant}{head}-shuffled"),
            "a network that never learns": matrices(groups, f"{variant}{head}-random"),
            **references,
            "the class counts": [count_pattern(cell.class_counts) for cell in own[:1]],
        }
        for name, others in explanations.items():
            pairs = list(product([cell.soft_labels for cell in own], others))
            found[network, title, name] = agreement(pairs)
    return found


def consistency(groups: Groups) -> dict[tuple[str, ...], Agreement | None]:
    """Head, labels and kind of other run → agreement of the matrices, for true and for shuffled labels."""
    found: dict[tuple[str, ...], Agreement | None] = {}
    for (head, title), labels in product(HEADS.items(), LABELS[:2]):
        by_network = [matrices(groups, f"{variant}{head}-{labels}") for variant in VARIANTS]
        seeds = [pair for runs in by_network for pair in combinations(runs, 2)]
        found[title, labels, "another seed"] = agreement(seeds)
        found[title, labels, "another backbone"] = agreement(list(product(by_network[0], by_network[2])))
    return found


def comparison(groups: Groups) -> Iterator[str]:
    """The tables of differences from the paper's head, or a sentence why there are none."""
    titles = {f"{head}-original": title for head, title in {**BASELINES, **HEADS}.items()}
    runs = {title: groups[group] for group, title in titles.items() if group in groups}
    reference = HEADS["none"]
    others = {title: cells for title, cells in runs.items() if title != reference}
    differences = method_differences(runs.get(reference, []), others, COMPARED)
    if not differences:
        yield "There are no two cells to compare yet."
        return
    for metric in COMPARED:
        yield f"**{metric.replace('_', ' ').capitalize()}**"
        rows = metric_table(runs, metric, {reference: differences})
        yield markdown_table([{"head": row.pop("method")} | row for row in rows])


def matrices_of_figure(groups: Groups) -> dict[str, Matrix]:
    """The matrices of the figure, title → mean over the seeds: the paper's head above, a balanced head below."""
    shown = {
        "Paper's head, true labels": matrices(groups, "none-original"),
        "Paper's head, shuffled": matrices(groups, "none-shuffled"),
        "Baseline's confusions": confusions(groups, "baseline-original"),
        "Balanced head, true labels": matrices(groups, "weights-original"),
        "Balanced head, shuffled": matrices(groups, "weights-shuffled"),
        "Balanced baseline's": confusions(groups, "balanced_baseline-original"),
    }
    return {title: np.mean(runs, axis=0) for title, runs in shown.items() if runs}
