"""What of CCL-Net's effect is CCL-Net's? Controls and other works' methods. The report of what the cells measured.

python -m studies controls
"""

from pathlib import Path
from typing import Any

from cclnet.metrics.likeness import share_explained_by_counts
from cclnet.system.files import write_csv
from cclnet.views.figures import save_figure
from studies.reporting.calibration import calibration_table
from studies.reporting.cells import Groups, load_cells
from studies.reporting.differences import METRICS, compare, comparison_csv, differences_figure
from studies.reporting.matrices import agreement, confusions
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
    "fast-current": "the same, frozen where it stands",
    "fast-never": "the same, never frozen",
    "confidence_penalty": "confidence penalty (Pereyra 2017)",
    "online_smoothing": "online label smoothing (Zhang 2021)",
    "margin_smoothing": "margin-based smoothing (Liu 2022)",
    "virtual_teacher": "teacher-free distillation (Yuan 2020)",
}
SHOWN = METRICS | {"balanced_accuracy": "balanced accuracy"}
LEARNED = ("ccl", "no_correlation_loss", "normal_start", "positive_start", "fast", "fast-current", "fast-never")
LEARNED_AND_ONLINE = (*LEARNED, "online_smoothing")


def write(folder: Path) -> None:
    """Write ``report.md``, ``table.csv`` and the figures beside the cells."""
    groups = load_cells(folder / "cells")
    sections = [
        "# Controls and peers",
        "Written by `python -m studies controls` from the cells in `cells/`; the same numbers unrounded are in "
        "`table.csv`. ResNet-18, split by image, one trainer for all. Mean ± standard deviation over n seeds; *Δ*: "
        "method − CCL-Net on the same validation images, averaged over the seeds, with the 95 % interval of a paired "
        "bootstrap by lesion and p after Holm over all methods of the table. What the controls are for: Eq. 3 has two "
        "losses, so twice the gradient (*twice the loss*); labels that are not learned may do as well (*Eq. 3 with "
        "LSR*, and the ε = .2614 that a collapsed CCL-Net amounts to); and each part of the head may be idle.",
    ]
    rows: list[dict[str, Any]] = []
    for dataset, title in dataset_titles().items():
        names = {method: f"{dataset}-{method}" for method in METHODS}
        runs = {METHODS[method]: groups[name] for method, name in names.items() if name in groups}
        if not runs:
            continue
        ccl = METHODS["ccl"]
        others = {method: cells for method, cells in runs.items() if method != ccl}
        comparisons = compare(runs.get(ccl, []), others, list(SHOWN))
        sections += [f"## {title[0].upper()}{title[1:]}", markdown_table(score_table(runs))]
        if comparisons:
            difference_rows = [
                {"method": each.name} | {f"Δ {name}": each.told(metric) for metric, name in SHOWN.items()}
                for each in comparisons
            ]
            figure = f"differences-{dataset}.png"
            save_figure(differences_figure({"": comparisons}, METRICS), folder / figure)
            sections += [markdown_table(difference_rows), f"![differences to CCL-Net, {title}]({figure})"]
        sections += [
            "**Calibration**, before → after temperature scaling (the temperature of each half of the lesions fitted "
            "on the other half)",
            markdown_table(calibration_table(runs)),
        ]
        learned = {METHODS[method]: groups[names[method]] for method in LEARNED_AND_ONLINE if names[method] in groups}
        if learned:
            baseline = confusions(groups, names["baseline"])
            sections += [
                "**The labels**, learned by the head or, online, counted from the network's own predictions. "
                "Spearman's correlation of the cells off the diagonal with the plain baseline's confusions (in "
                "brackets the largest exact two-sided Mantel p), the share of them that class counts explain, and on "
                "the sample the correlation with the similarity that it was drawn from.",
                markdown_table(label_table(learned, baseline)),
            ]
        rows += comparison_csv({"dataset": dataset}, runs, comparisons, {}, list(SHOWN))
    if rows:
        write_csv(folder / "table.csv", rows)
    write_report(folder, sections)


def score_table(runs: Groups) -> list[dict[str, str]]:
    """A row for each method."""
    return [
        {"method": method, "n": str(len(cells))}
        | {name: spread([cell.metrics[metric] for cell in cells]) for metric, name in SHOWN.items()}
        for method, cells in runs.items()
    ]


def label_table(learned: Groups, baseline: list[Any]) -> list[dict[str, str]]:
    """What the labels of each method that makes its own follow."""
    rows = []
    for method, cells in learned.items():
        shares = [share_explained_by_counts(cell.soft_labels, cell.class_counts) for cell in cells]
        rows.append(
            {
                "method": method,
                "n": str(len(cells)),
                "p̄": spread([cell.metrics["softness"] for cell in cells]),
                "rule fired in": ", ".join(str(cell.metrics["converged_epoch"] or "–") for cell in cells),
                "baseline's confusions": agreement([(cell.soft_labels, other) for cell in cells for other in baseline]),
                "counts explain": spread([share and share.explained for share in shares], 2),
                "planted similarity": spread([cell.metrics["planted_similarity"] for cell in cells], 2),
            }
        )
    return rows
