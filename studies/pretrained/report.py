"""Report of the study with pretrained weights: does CCL-Net classify better when fine-tuned?

python -m studies pretrained
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from cclnet.views.figures import save_figure
from studies.reporting.calibration import calibration_table
from studies.reporting.cells import Cell, load_cells
from studies.reporting.differences import (
    EXPLANATION,
    METRICS,
    differences_figure,
    method_differences,
    metric_table,
)
from studies.reporting.tables import markdown_table, spread, write_report

METHODS = {
    "baseline": "baseline: hard labels",
    "lsr-u5": "LSR, ε = .5228",
    "ccl": "CCL-Net, the paper's head",
    "ccl_balanced": "CCL-Net, balanced head",
    "class_means": "Eq. 3 with labels from class means",
    "maxsup": "MaxSup (Zhou 2025)",
}
COLOURS = {
    "unchanged": "without colour jitter, 8 epochs",
    "jittered": "with colour jitter, 7 epochs",
}
SPLITS = {"lesion": "split by lesion", "image": "split by image, as in the paper"}
SHOWN = METRICS | {"balanced_accuracy": "balanced accuracy"}
COMPARED = [*METRICS, "balanced_accuracy"]


def write(folder: Path) -> None:
    """Write ``report.md`` and the figures beside the cells."""
    groups = load_cells(folder / "cells")
    sections = [
        "# Fine-tuning from pretrained weights",
        "Written by `python -m studies pretrained` from the cells in `cells/`: EfficientNet-Lite0 with weights from "
        "ImageNet, fine-tuned on ISIC 2018 at 128 pixels. Mean ± standard deviation over n seeds. " + EXPLANATION,
    ]
    for (colours, how), (split, title) in product(COLOURS.items(), SPLITS.items()):
        place = f"{colours}-{split}"
        runs = {name: groups[f"{place}-{method}"] for method, name in METHODS.items() if f"{place}-{method}" in groups}
        if runs:
            sections += [f"## {title[0].upper()}{title[1:]}, {how}", *comparison(runs, folder, place)]
    write_report(folder, sections)


def comparison(runs: Mapping[str, Sequence[Cell]], folder: Path, place: str) -> list[str]:
    """The tables of the methods on one split, and a figure of their differences from the baseline."""
    baseline = METHODS["baseline"]
    others = {method: cells for method, cells in runs.items() if method != baseline}
    differences = method_differences(runs.get(baseline, []), others, COMPARED)
    sections = []
    for metric in COMPARED:
        name = SHOWN[metric]
        table = metric_table(runs, metric, {baseline: differences})
        sections += [f"**{name[0].upper()}{name[1:]}**", markdown_table(table)]
    if differences:
        figure = f"differences-{place}.png"
        save_figure(differences_figure({"": differences}, METRICS, baseline), folder / figure)
        sections += [f"![differences to the baseline]({figure})"]
    return [
        *sections,
        "**Calibration**, before → after temperature scaling (the temperature of each half of the lesions fitted "
        "on the other half)",
        markdown_table(calibration_table(runs)),
        "**Recall of each class**, in brackets the validation images of the class",
        markdown_table(recall_table(runs)),
    ]


def recall_table(runs: Mapping[str, Sequence[Cell]]) -> list[dict[str, str]]:
    """The share of every class's validation images that each method recognises, over its seeds."""
    rows = []
    for method, cells in runs.items():
        counts = cells[0].confusion.sum(axis=1).astype(int)
        recalls = [cell.confusion.diagonal() / counts for cell in cells]
        names = [f"{name} ({count:,})" for name, count in zip(cells[0].classes, counts, strict=True)]
        rows.append(
            {"method": method, "n": str(len(cells))}
            | {name: spread(values, 2) for name, values in zip(names, zip(*recalls, strict=True), strict=True)}
        )
    return rows
