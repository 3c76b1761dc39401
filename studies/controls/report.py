"""Report of the study of controls and related methods: which part of CCL-Net's effect is due to its own parts?

python -m studies controls
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from cclnet.dataset.sample import PLANTED_SIMILARITY
from cclnet.system.files import write_csv
from studies.reporting.cells import Groups, load_cells
from studies.reporting.differences import EXPLANATION, csv_rows
from studies.reporting.matrices import EXPLANATION as AGREEMENT
from studies.reporting.matrices import agreement, agreement_table, confusions, counts_table
from studies.reporting.methods import SCORES, differences_from, method_sections
from studies.reporting.tables import markdown_table, spread, write_report
from studies.running.grid import dataset_titles

METHODS = {
    "ccl": "CCL-Net",
    "baseline": "baseline: hard labels",
    "doubled": "hard labels, twice the loss",
    "lsr-u26": "LSR, ε = .2614",
    "lsr-u5": "LSR, ε = .5228",
    "lsr_kl": "Eq. 3 with LSR, ε = .5228",
    "no_correlation_loss": "CCL-Net, α_CC = 0",
    "normal_start": "CCL-Net, dictionary from N(0, 1)",
    "positive_start": "CCL-Net, dictionary all positive",
    "fast": "CCL-Net, lr_CCL = .01",
    "fast-current": "the same, frozen in its present state",
    "fast-never": "the same, never frozen",
    "confidence_penalty": "confidence penalty (Pereyra 2017)",
    "online_smoothing": "online label smoothing (Zhang 2021)",
    "margin_smoothing": "margin-based smoothing (Liu 2022)",
    "virtual_teacher": "teacher-free distillation (Yuan 2020)",
}
LEARNED = ("ccl", "no_correlation_loss", "normal_start", "positive_start", "fast", "fast-current", "fast-never")
LEARNED_AND_ONLINE = (*LEARNED, "online_smoothing")


def write(folder: Path) -> None:
    """Write ``report.md``, ``table.csv`` and the figures beside the cells."""
    groups = load_cells(folder / "cells")
    sections = [
        "# Controls and related methods",
        "Written by `python -m studies controls` from the cells in `cells/`; the same numbers unrounded are in "
        "`table.csv`. ResNet-18, split by image, one trainer for all. Mean ± standard deviation over n seeds. "
        + EXPLANATION
        + " What the controls are for: Eq. 3 has two losses, so twice the gradient (*twice the loss*); labels that are "
        "not learned may do as well (*Eq. 3 with LSR*, and the ε = .2614 that a collapsed CCL-Net amounts to); and "
        "each part of the head may have no effect.",
    ]
    rows: list[dict[str, Any]] = []
    for dataset, title in dataset_titles().items():
        names = {method: f"{dataset}-{method}" for method in METHODS}
        runs = {METHODS[method]: groups[name] for method, name in names.items() if name in groups}
        if not runs:
            continue
        differences = differences_from(runs, METHODS["ccl"])
        figure = folder / f"differences-{dataset}.png"
        sections += [
            f"## {title[0].upper()}{title[1:]}",
            *method_sections(runs, METHODS["ccl"], differences, figure),
        ]
        learned = {METHODS[method]: groups[names[method]] for method in LEARNED_AND_ONLINE if names[method] in groups}
        if learned:
            baseline = confusions(groups, names["baseline"])
            sections += [
                "**The labels**, learned by the head or, online, counted from the network's own predictions.",
                markdown_table(label_table(learned)),
                f"Their agreement with the plain baseline's confusions. {AGREEMENT}",
                markdown_table(confusions_table(learned, baseline)),
                "The share of the ranks of the entries (R²) that class counts explain:",
                markdown_table(
                    counts_table({(method,): cells for method, cells in learned.items()}, ("method",), classes(learned))
                ),
            ]
            if dataset == "sample":
                sections += [
                    "Their agreement with the similarity from which the sample was generated, as in the table "
                    "before last:",
                    markdown_table(planted_table(learned)),
                ]
        rows += csv_rows({"dataset": dataset}, runs, {METHODS["ccl"]: differences}, list(SCORES))
    if rows:
        write_csv(folder / "table.csv", rows)
    write_report(folder, sections)


def classes(runs: Groups) -> list[str]:
    """The classes of all runs."""
    return next(iter(runs.values()))[0].classes


def label_table(learned: Groups) -> list[dict[str, str]]:
    """For each method that learns labels, their softness and the epoch of the freeze."""
    return [
        {
            "method": method,
            "n": str(len(cells)),
            "p̄": spread([cell.metrics["softness"] for cell in cells]),
            "rule fired in": ", ".join(str(cell.metrics["converged_epoch"] or "–") for cell in cells),
        }
        for method, cells in learned.items()
    ]


def confusions_table(learned: Groups, baseline: Sequence[Any]) -> list[dict[str, str]]:
    """The agreement of each method's labels with the plain baseline's confusions."""
    found = {
        (method,): agreement(list(product([cell.soft_labels for cell in cells], baseline)))
        for method, cells in learned.items()
    }
    return agreement_table(found, ("method",), classes(learned))


def planted_table(learned: Groups) -> list[dict[str, str]]:
    """The agreement of each method's labels with the similarity from which the sample was generated."""
    found = {
        (method,): agreement([(cell.soft_labels, PLANTED_SIMILARITY) for cell in cells])
        for method, cells in learned.items()
    }
    return agreement_table(found, ("method",), classes(learned))
