"""Report of the study with pretrained weights: does CCL-Net classify better when fine-tuned?

python -m studies pretrained
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from cclnet.system.files import write_csv
from studies.reporting.cells import Cell, load_cells
from studies.reporting.differences import EXPLANATION, csv_rows
from studies.reporting.methods import SCORES, differences_from, method_sections
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
BASELINE = METHODS["baseline"]


def write(folder: Path) -> None:
    """Write ``report.md``, ``table.csv`` and the figures beside the cells."""
    groups = load_cells(folder / "cells")
    sections = [
        "# Fine-tuning from pretrained weights",
        "Written by `python -m studies pretrained` from the cells in `cells/`; the same numbers unrounded are in "
        "`table.csv`. EfficientNet-Lite0 with weights from ImageNet, fine-tuned on ISIC 2018 at 128 pixels. Mean ± "
        "standard deviation over n seeds. " + EXPLANATION,
    ]
    rows: list[dict[str, Any]] = []
    for (colours, how), (split, title) in product(COLOURS.items(), SPLITS.items()):
        names = {f"{colours}-{split}-{method}": name for method, name in METHODS.items()}
        runs = {name: groups[group] for group, name in names.items() if group in groups}
        if not runs:
            continue
        differences = differences_from(runs, BASELINE)
        sections += [
            f"## {title[0].upper()}{title[1:]}, {how}",
            *method_sections(runs, BASELINE, differences, folder / f"differences-{colours}-{split}.png"),
            "**Recall of each class**, in brackets the validation images of the class",
            markdown_table(recall_table(runs)),
        ]
        rows += csv_rows({"colours": colours, "split": split}, runs, {BASELINE: differences}, list(SCORES))
    if rows:
        write_csv(folder / "table.csv", rows)
    write_report(folder, sections)


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
