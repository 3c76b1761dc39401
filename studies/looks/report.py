"""Do the soft labels follow looks or counts? The report of what the cells measured.

python -m studies looks
"""

from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path

import numpy as np

from cclnet.dataset.isic import CLASSES
from cclnet.metrics.likeness import count_pattern, share_explained_by_counts
from cclnet.views.figures import rank_figure, save_figure
from studies.reporting.cells import Groups, load_cells
from studies.reporting.differences import compare
from studies.reporting.matrices import Matrix, agreement, confusions, matrices
from studies.reporting.tables import markdown_table, spread, write_report

HEADS = {"none": "the paper's", "weights": "weights", "logits": "logits", "sampling": "sampling"}
BASELINES = {"baseline": "no head", "balanced_baseline": "no head, balanced sampling"}
LABELS = ("original", "shuffled", "random")
VARIANTS = {"": "ResNet-18", "fast-": "ResNet-18, lr_CCL × 10", "mobilenet_v2-": "MobileNetV2"}
"""What stands before a cell's head in its name → what it is."""
SCORES = ("accuracy", "kappa", "f1", "balanced_accuracy", "ece")
COMPARED = ("accuracy", "kappa", "f1", "balanced_accuracy")


def write(folder: Path) -> None:
    """Write ``report.md`` and ``matrices.png`` beside the cells."""
    groups = load_cells(folder / "cells")
    sections = [
        "# Looks or counts?",
        "Written by `python -m studies looks` from the cells in `cells/`: ISIC 2018 at 64 pixels, 16 epochs, split by "
        "image. Heads: the head's loss as in the paper, or balanced over the classes by weights, logits or sampling. "
        "Labels: the images' own (original), shuffled among the training images, or their own under a network that "
        "never learns (random). n: seeds. Mean ± standard deviation over seeds. p̄: softness; *counts explain*: R² of "
        "the ranks of the off-diagonal cells on the class counts.",
        "## What each head gives",
        markdown_table(scores_table(groups)),
        "## What the matrices follow",
        "Spearman's correlation of the off-diagonal cells with those of another matrix, over all pairs of runs; in "
        "brackets the largest p of the exact two-sided Mantel test among the pairs (all 5,040 orders of the classes). "
        "*Confusions*: how often a classifier without a head takes two classes for one another on the validation "
        "images, mean of both directions. Those of the plain baseline follow the class counts themselves, since it "
        "takes what is rare for what is frequent; those of a baseline with balanced sampling do not.",
        markdown_table(what_matrices_follow(groups)),
        "## How alike the matrices of different runs are",
        "The same correlations between runs. If shuffled labels give the consistency that true labels give, then the "
        "consistency says nothing about looks.",
        *(markdown_table(rows) for rows in [consistency_table(groups)] if rows),
        "## Does a balanced head classify better?",
        "Difference to the paper's head on the same validation images, averaged over the seeds that both have, with "
        "95 % intervals of a paired bootstrap by lesion and p after Holm over all rows of a column. The intervals know "
        "the images' chance; that of the seeds is in the first table.",
        *comparison(groups),
    ]
    figure = matrices_of_figure(groups)
    if figure:
        save_figure(rank_figure(figure, CLASSES), folder / "matrices.png")
        sections += ["## The matrices", "Averaged over the seeds.", "![matrices of classes](matrices.png)"]
    write_report(folder, sections)


def scores_table(groups: Groups) -> list[dict[str, str]]:
    """A row for each network, head and kind of labels that has been run, and for the baselines."""
    names = {f"{head}-original": ("ResNet-18", title, "original") for head, title in BASELINES.items()}
    for (variant, network), labels, (head, title) in product(VARIANTS.items(), LABELS, HEADS.items()):
        names[f"{variant}{head}-{labels}"] = (network, title, labels)
    rows = []
    for group, (network, head, labels) in names.items():
        cells = groups.get(group)
        if not cells:
            continue
        row = {"network": network, "head": head, "labels": labels, "n": str(len(cells))}
        row |= {name: spread([cell.metrics[name] for cell in cells]) for name in SCORES}
        row |= {"p̄": spread([cell.metrics["softness"] for cell in cells])}
        shares = [share_explained_by_counts(cell.soft_labels, cell.class_counts) for cell in cells]
        row |= {"counts explain": spread([share and share.explained for share in shares], 2)}
        rows.append(row)
    return rows


def heads_that_ran(groups: Groups) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The start of the cells' names, the head, and the first columns of its row, for each head with true labels."""
    for (variant, network), (head, title) in product(VARIANTS.items(), HEADS.items()):
        if f"{variant}{head}-original" in groups:
            yield variant, head, {"network": network, "head": title}


def what_matrices_follow(groups: Groups) -> list[dict[str, str]]:
    """How alike the matrices of each head are to what might explain them."""
    references = {
        "the plain baseline's confusions": confusions(groups, "baseline-original"),
        "a balanced baseline's confusions": confusions(groups, "balanced_baseline-original"),
    }
    rows = []
    for variant, head, row in heads_that_ran(groups):
        own = groups[f"{variant}{head}-original"]
        references["the class counts"] = [count_pattern(own[0].class_counts)]
        explanations = {"shuffled labels": matrices(groups, f"{variant}{head}-shuffled")}
        explanations |= {"a network that never learns": matrices(groups, f"{variant}{head}-random")} | references
        for name, others in explanations.items():
            row[name] = agreement(list(product([cell.soft_labels for cell in own], others)))
        rows.append(row)
    return rows


def consistency_table(groups: Groups) -> list[dict[str, str]]:
    """How alike the matrices of one head are between seeds and between networks, for true labels and for shuffled."""
    rows = []
    for head, title in HEADS.items():
        for labels in LABELS[:2]:
            by_network = [matrices(groups, f"{variant}{head}-{labels}") for variant in VARIANTS]
            seeds = [pair for runs in by_network for pair in combinations(runs, 2)]
            networks = list(product(by_network[0], by_network[2]))
            if seeds or networks:
                row = {"head": title, "labels": labels, "another seed": agreement(seeds)}
                rows.append(row | {"another backbone": agreement(networks)})
    return rows


def comparison(groups: Groups) -> list[str]:
    """The table of differences to the paper's head, or why there is none."""
    titles = {f"{head}-original": title for head, title in {**BASELINES, **HEADS}.items() if head != "none"}
    others = {title: groups[group] for group, title in titles.items() if group in groups}
    found = compare(groups.get("none-original", []), others, COMPARED)
    if not found:
        return ["There are no two cells to compare yet."]
    rows = [{"head": each.name, "n": str(each.seeds)} | {name: each.told(name) for name in COMPARED} for each in found]
    return [markdown_table(rows)]


def matrices_of_figure(groups: Groups) -> dict[str, Matrix]:
    """The matrices to show side by side, title → the mean over the seeds: above the paper's head, below a balanced."""
    shown = {
        "Paper's head, true labels": matrices(groups, "none-original"),
        "Paper's head, shuffled": matrices(groups, "none-shuffled"),
        "Baseline's confusions": confusions(groups, "baseline-original"),
        "Balanced head, true labels": matrices(groups, "weights-original"),
        "Balanced head, shuffled": matrices(groups, "weights-shuffled"),
        "Balanced baseline's": confusions(groups, "balanced_baseline-original"),
    }
    return {title: np.mean(runs, axis=0) for title, runs in shown.items() if runs}
