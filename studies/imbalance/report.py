"""Report of the study: does a head recover the similarity from which the sample was generated?

python -m studies imbalance
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from matplotlib.figure import Figure

from cclnet.dataset.isic import CLASSES
from cclnet.dataset.sample import PLANTED_SIMILARITY
from cclnet.metrics.likeness import mantel_test
from cclnet.metrics.resampling import holm, mean_and_deviation
from cclnet.views.figures import in_house_style, save_figure
from studies.reporting.cells import Cell, Groups, load_cells
from studies.reporting.matrices import agreement, counts_table, without_columns
from studies.reporting.tables import markdown_table, spread, write_report

HEADS = {"none": "the paper's", "weights": "weights", "logits": "logits", "sampling": "sampling"}
LABELS = ("original", "shuffled")
IMBALANCES = (1, 5, 50)
TITLES = ("labels", "imbalance", "head")
SCORES = ("accuracy", "kappa", "f1", "balanced_accuracy", "ece")


def write(folder: Path) -> None:
    """Write ``report.md`` and ``recovery.png`` beside the cells."""
    groups = load_cells(folder / "cells")
    save_figure(recovery_figure(groups), folder / "recovery.png")
    sections = [
        "# Is a known similarity recovered?",
        "Written by `python -m studies imbalance` from the cells in `cells/`: the embedded sample (1,200 drawn images, "
        "36 pixels, 16 epochs) with the largest class 1, 5 or 50 times as large as the smallest; every seed draws, "
        "splits and trains anew. Heads: the head's loss as in the paper, or balanced over the classes by weights, "
        "logits or sampling. n: seeds. Mean ± standard deviation over seeds.",
        "![recovery of the planted similarity, by imbalance](recovery.png)",
        "*Recovered*: Spearman's correlation of the off-diagonal soft labels with the similarity that the sample was "
        "drawn from; *p < .05*: in how many of the seeds the exact Mantel test (one-sided, all 5,040 orders of the "
        "classes) finds it; *after Holm*: the same with p corrected for all tests of the table.",
        markdown_table(recovery_table(groups)),
        "What is recovered when a class is left out of both matrices, means over the seeds:",
        markdown_table(without_table(groups)),
        "The share of the ranks of the entries (R²) that class counts explain:",
        markdown_table(counts_table(measured(groups), TITLES, CLASSES)),
    ]
    write_report(folder, sections)


def measured(groups: Groups) -> dict[tuple[str, ...], list[Cell]]:
    """Labels, imbalance and head → the finished cells."""
    return {
        (labels, str(imbalance), title): groups[f"{head}-{imbalance}-{labels}"]
        for labels, imbalance, (head, title) in product(LABELS, IMBALANCES, HEADS.items())
        if f"{head}-{imbalance}-{labels}" in groups
    }


def recovery_table(groups: Groups) -> list[dict[str, str]]:
    """One row per imbalance, head and kind of labels that has been run."""
    tests = {
        place: [mantel_test(cell.soft_labels, PLANTED_SIMILARITY) for cell in cells]
        for place, cells in measured(groups).items()
    }
    corrected = iter(holm([test.p_greater for each in tests.values() for test in each]).tolist())
    rows = []
    for place, cells in measured(groups).items():
        row = dict(zip(TITLES, place, strict=True)) | {"n": str(len(cells))}
        row |= {"recovered": spread([test.correlation for test in tests[place]], 2)}
        row |= {"p < .05": found([test.p_greater for test in tests[place]])}
        row |= {"after Holm": found([next(corrected) for _ in cells])}
        rows.append(row | {name: spread([cell.metrics[name] for cell in cells]) for name in SCORES})
    return rows


def found(p_values: Sequence[float]) -> str:
    """The number of tests that find the similarity."""
    return f"{sum(p < 0.05 for p in p_values)} of {len(p_values)}"


def without_table(groups: Groups) -> list[dict[str, str]]:
    """The recovered similarity without each of the classes."""
    rows = []
    for place, cells in measured(groups).items():
        agreed = agreement([(cell.soft_labels, PLANTED_SIMILARITY) for cell in cells])
        columns = without_columns(agreed.left_out, CLASSES) if agreed else {}
        rows.append(dict(zip(TITLES, place, strict=True)) | columns)
    return rows


@in_house_style
def recovery_figure(groups: Groups) -> Figure:
    """Recovery by imbalance: one line per head, seeds as dots; dashed lines for shuffled labels."""
    figure = Figure(figsize=(8, 4))
    axes = figure.subplots()
    colours = {head: f"C{number}" for number, head in enumerate(HEADS)}
    for labels, (head, title) in product(LABELS, HEADS.items()):
        points = []
        for imbalance in IMBALANCES:
            cells = groups.get(f"{head}-{imbalance}-{labels}", [])
            found = [mantel_test(cell.soft_labels, PLANTED_SIMILARITY).correlation for cell in cells]
            known = [value for value in found if value is not None]
            axes.plot([imbalance] * len(known), known, ".", color=colours[head], alpha=0.4)
            if known:
                points.append((imbalance, mean_and_deviation(known)[0]))
        if points:
            style = "--" if labels == "shuffled" else "-"
            label = f"{title}, shuffled labels" if labels == "shuffled" else title
            axes.plot(*zip(*points, strict=True), style, marker="o", color=colours[head], label=label)
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks(IMBALANCES, [f"{imbalance} : 1" for imbalance in IMBALANCES], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="images of the largest class : of the smallest", ylabel="planted similarity recovered (Spearman)")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="head")
    return figure
