"""Report of the study: do the features of a trained network show which classes are similar?

python -m studies similar
"""

from itertools import product
from pathlib import Path

from matplotlib.figure import Figure

from cclnet.metrics.resampling import mean_and_deviation
from cclnet.views.figures import in_house_style, save_figure
from studies.reporting.cells import Groups, load_cells
from studies.reporting.tables import markdown_table, spread, write_report

METHODS = {"none": "CCL-Net, the paper's head", "weights": "CCL-Net, balanced head", "baseline": "baseline, no head"}
LABELS = ("original", "shuffled")
IMBALANCES = (1, 10, 50)
COLUMNS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "planted_similarity": "soft labels",
    "planted_in_features": "features",
    "follows_features": "soft labels and features",
}
"""Score of a cell → column of the table."""


def write(folder: Path) -> None:
    """Write ``report.md`` and ``recovery.png`` beside the cells."""
    groups = load_cells(folder / "cells")
    save_figure(recovery_figure(groups), folder / "recovery.png")
    sections = [
        "# Similar classes: in the features or in the soft labels?",
        "Written by `python -m studies similar` from the cells in `cells/`: the embedded sample (1,200 generated "
        "images, 240 of them for validation, separation 1.3) with the largest class 1, 10 or 50 times as large as the "
        "smallest; every seed generates, splits and trains anew. n: seeds. Mean ± standard deviation over seeds.",
        "![agreement with the known similarity, by imbalance](recovery.png)",
        "*Soft labels* and *features*: Spearman's correlation with the similarity from which the sample was generated, "
        "of the off-diagonal soft labels and of the similarity that `ClassSimilarity` finds in the features of the "
        "validation images (estimator `predictions`). *Soft labels and features*: their correlation with each other. A "
        "dash: the method learns no soft labels, or a class has fewer than two lesions among the validation images.",
        markdown_table(table(groups)),
    ]
    write_report(folder, sections)


def table(groups: Groups) -> list[dict[str, str]]:
    """One row per kind of labels, imbalance and method that has been run."""
    rows = []
    for labels, imbalance, (method, title) in product(LABELS, IMBALANCES, METHODS.items()):
        if cells := groups.get(f"{method}-{labels}-{imbalance}"):
            row = {"labels": labels, "imbalance": str(imbalance), "method": title, "n": str(len(cells))}
            rows.append(
                row | {column: spread([cell.metrics.get(score) for cell in cells]) for score, column in COLUMNS.items()}
            )
    return rows


@in_house_style
def recovery_figure(groups: Groups) -> Figure:
    """Agreement with the known similarity by imbalance: features in one colour, soft labels of each head in another."""
    lines = {
        "features, CCL-Net": ("none", "original", "planted_in_features", "C0", "-"),
        "features, baseline": ("baseline", "original", "planted_in_features", "C2", "-"),
        "soft labels, balanced head": ("weights", "original", "planted_similarity", "C3", "-"),
        "soft labels, paper's head": ("none", "original", "planted_similarity", "C1", "-"),
        "features, shuffled labels": ("none", "shuffled", "planted_in_features", "C0", "--"),
        "soft labels, paper's head, shuffled labels": ("none", "shuffled", "planted_similarity", "C1", "--"),
    }
    figure = Figure(figsize=(8, 4))
    axes = figure.subplots()
    for label, (method, labels, score, colour, style) in lines.items():
        points = []
        for imbalance in IMBALANCES:
            cells = groups.get(f"{method}-{labels}-{imbalance}", [])
            known = [value for cell in cells if (value := cell.metrics.get(score)) is not None]
            axes.plot([imbalance] * len(known), known, ".", color=colour, alpha=0.4)
            if known:
                points.append((imbalance, mean_and_deviation(known)[0]))
        if points:
            axes.plot(*zip(*points, strict=True), style, marker="o", color=colour, label=label)
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks(IMBALANCES, [f"{imbalance} : 1" for imbalance in IMBALANCES], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="images of the largest class : of the smallest", ylabel="agreement with the known similarity")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
