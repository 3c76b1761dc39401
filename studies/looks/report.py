"""Do the soft labels follow looks or counts? The report of what the cells measured.

python -m studies looks
"""

from itertools import combinations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cclnet.figures import save_figure, soft_label_figures
from cclnet.files import write_bytes
from cclnet.isic import CLASSES
from cclnet.statistics import (
    confused_similarity,
    count_pattern,
    holm,
    mantel_test,
    paired_bootstrap,
    share_explained_by_counts,
)
from studies.results import Cell, load_cells, markdown_table, mean_scores, spread

HEADS = {"none": "the paper's", "weights": "weights", "logits": "logits", "sampling": "sampling"}
LABELS = ("original", "shuffled", "random")
SCORES = ("accuracy", "kappa", "f1", "balanced_accuracy", "ece")
COMPARED = ("accuracy", "kappa", "f1", "balanced_accuracy")

Groups = dict[str, list[Cell]]
Matrix = NDArray[np.float64]


def write(folder: Path) -> None:
    """Write ``report.md`` and ``matrices.png`` beside the cells."""
    groups = load_cells(folder / "cells")
    sections = [
        "# Looks or counts?",
        "Written by `python -m studies looks` from the cells in `cells/`. Heads: the head's loss as in the paper, or "
        "balanced over the classes by weights, logits or sampling. Labels: the images' own, shuffled among the "
        "training images, or their own under a network that never learns (random). n: seeds. Mean ± standard deviation "
        "over seeds. p̄: softness; *counts explain*: R² of the ranks of the off-diagonal cells on the class counts.",
        "## What each head gives",
        markdown_table(scores_table(groups)),
        "## Which matrices are alike",
        "Spearman's correlation of the off-diagonal cells, over all pairs of runs; in brackets the largest p of the "
        "exact Mantel test among the pairs (every order of the classes).",
        markdown_table(agreement_table(groups)),
        "## Does a balanced head classify better?",
        "Difference to the paper's head on the same validation images, averaged over the seeds that both have, with "
        "95 % intervals of a paired bootstrap by lesion and p after Holm over all rows of a column. The intervals know "
        "the images' chance; that of the seeds is in the first table.",
        *comparison(groups),
    ]
    figure = matrices_figure(groups)
    if figure:
        save_figure(soft_label_figures(figure, CLASSES), folder / "matrices.png")
        sections += ["## The matrices", "Averaged over the seeds.", "![soft-label matrices](matrices.png)"]
    write_bytes(folder / "report.md", ("\n\n".join(sections) + "\n").encode())


def scores_table(groups: Groups) -> list[dict[str, str]]:
    """A row for each head and kind of labels that has been run, and one for the baseline."""
    rows = []
    names = {f"{head}-{labels}": (title, labels) for labels in LABELS for head, title in HEADS.items()}
    names = {"baseline-original": ("no head (baseline)", "original")} | names
    for group, (head, labels) in names.items():
        cells = groups.get(group)
        if not cells:
            continue
        row = {"head": head, "labels": labels, "n": str(len(cells))}
        row |= {name: spread([cell.metrics[name] for cell in cells]) for name in SCORES}
        row |= {"p̄": spread([cell.metrics["softness"] for cell in cells])}
        shares = [share_explained_by_counts(cell.soft_labels, cell.class_counts) for cell in cells]
        row |= {"counts explain": spread([share and share.explained for share in shares], 2)}
        rows.append(row)
    return rows


def agreement_table(groups: Groups) -> list[dict[str, str]]:
    """How alike the matrices of each head are to each other and to what might explain them."""
    confusions = [confused_similarity(cell.confusion) for cell in groups.get("baseline-original", [])]
    rows = []
    for head, title in HEADS.items():
        own = groups.get(f"{head}-original")
        if not own:
            continue
        matrices = [cell.soft_labels for cell in own]
        shuffled = [cell.soft_labels for cell in groups.get(f"{head}-shuffled", [])]
        random = [cell.soft_labels for cell in groups.get(f"{head}-random", [])]
        counts = [count_pattern(own[0].class_counts)]
        rows.append(
            {
                "head": title,
                "with another seed": agreement(list(combinations(matrices, 2))),
                "with shuffled labels": agreement(list(product(matrices, shuffled))),
                "with a random network": agreement(list(product(matrices, random))),
                "with the counts": agreement(list(product(matrices, counts))),
                "with the baseline's confusions": agreement(
                    [(matrix, other) for matrix, other in product(matrices, confusions) if other is not None]
                ),
                "shuffled, with another seed": agreement(list(combinations(shuffled, 2))),
            }
        )
    return rows


def agreement(pairs: list[tuple[Matrix, Matrix]]) -> str:
    """The correlations of all pairs as mean ± standard deviation, and the largest p."""
    if not pairs:
        return "–"
    tests = [mantel_test(a, b) for a, b in pairs]
    return f"{spread([test.correlation for test in tests], 2)} ({max(test.p_two_sided for test in tests):.3f})"


def comparison(groups: Groups) -> list[str]:
    """The table of differences, or why there is none."""
    paper = {cell.name.rpartition("-")[2]: cell for cell in groups.get("none-original", [])}
    rows, p_values = [], []
    for group, title in [("baseline-original", "no head"), *((f"{head}-original", head) for head in list(HEADS)[1:])]:
        others = {cell.name.rpartition("-")[2]: cell for cell in groups.get(group, [])}
        seeds = sorted(paper.keys() & others.keys())
        if not seeds:
            continue
        lesions = paper[seeds[0]].predictions["lesion"]
        a, b = (mean_scores([cells[seed] for seed in seeds]) for cells in (others, paper))
        differences = paired_bootstrap(a, b, lesions)
        rows.append((title, len(seeds), [differences[name] for name in COMPARED]))
        p_values.append([difference.p if difference else np.nan for difference in rows[-1][2]])
    if not rows:
        return ["There are no two cells to compare yet."]
    adjusted = np.column_stack([holm(column) for column in np.array(p_values).T])
    table = []
    for (title, seeds, differences), p_row in zip(rows, adjusted, strict=True):
        row = {"head": title, "n": str(seeds)}
        for name, difference, p in zip(COMPARED, differences, p_row, strict=True):
            row[name] = f"{difference.estimate:+.3f} ({difference.low:+.3f}, {difference.high:+.3f}), p = {p:.3f}"
        table.append(row)
    return [markdown_table(table)]


def matrices_figure(groups: Groups) -> dict[str, Matrix]:
    """The matrices to show side by side: title → the mean over the seeds."""
    shown = {
        "none-original": "Paper's, true labels",
        "none-shuffled": "Paper's, shuffled",
        "weights-original": "Balanced, true labels",
        "weights-shuffled": "Balanced, shuffled",
    }
    return {
        title: np.mean([cell.soft_labels for cell in groups[group]], axis=0)
        for group, title in shown.items()
        if group in groups
    }
