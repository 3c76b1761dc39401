"""Report of the study on Table 2 and Fig. 3 of the paper: the effect of the CCL head's learning rate.

python -m studies table2
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cclnet.system.files import write_csv
from cclnet.views.figures import in_house_style, save_figure, soft_label_figures
from studies.reporting.cells import Cell, Groups, load_cells
from studies.reporting.differences import EXPLANATION, method_differences, metric_table
from studies.reporting.tables import markdown_table, spread, write_report
from studies.running.grid import dataset_titles

PAPER = {
    "0.0001": (None, 0.48, 0.8422, 0.6863),
    "0.0005": (137, 0.41, 0.8502, 0.6986),
    "0.001": (76, 0.38, 0.8452, 0.6972),
    "0.005": (23, 0.35, 0.8442, 0.6902),
    "0.01": (12, 0.33, 0.8422, 0.6856),
    "0.05": (5, 0.30, 0.8417, 0.6884),
}
"""The paper's Table 2: lr_CCL → "epochs of converge" (None: never), p̄, accuracy, kappa."""

CHOSEN = "0.0005"
COMPARED = ("accuracy", "kappa")


def write(folder: Path) -> None:
    """Write ``report.md``, ``table.csv`` and the figures beside the cells."""
    groups = load_cells(folder / "cells")
    sections = [
        "# Table 2: the learning rate of the CCL head",
        "Written by `python -m studies table2` from the cells in `cells/`; the same numbers, run by run, are in "
        "`table.csv`. ResNet-18, split by image. *Paper*: a single run on ISIC 2018 at 224 pixels. *Lowest p̄ in "
        "epoch*: what the paper's column of epochs must be, since its rule cannot fire before the eleventh; *rule "
        "fired in*: the epoch in which p̄ had not dropped for ten, one for each seed. *Lowest p̄*: of all epochs, and "
        "what the dictionary is set back to when the rule fires; *p̄ at the end*: of the finished model. Mean ± "
        "standard deviation over n seeds. " + EXPLANATION,
    ]
    rows: list[dict[str, Any]] = []
    for dataset, title in dataset_titles().items():
        runs = {rate: groups[f"{dataset}-{rate}"] for rate in PAPER if f"{dataset}-{rate}" in groups}
        if not runs:
            continue
        save_figure(softness_figure(runs), folder / f"softness-{dataset}.png")
        shown = {f"lr_CCL = {rate}": cells[0].soft_labels for rate, cells in runs.items()}
        save_figure(soft_label_figures(shown, next(iter(runs.values()))[0].classes), folder / f"fig3-{dataset}.png")
        factor = " (× 10, as the sample is short)" if dataset == "sample" else ""
        sections += [
            f"## {title[0].upper()}{title[1:]}",
            markdown_table(rate_table(runs)),
            *score_tables(runs),
            f"p̄ after every epoch, each line a run{factor}:",
            f"![p̄ by epoch for each learning rate, {title}](softness-{dataset}.png)",
            "Fig. 3: the soft labels of the first seed.",
            f"![soft labels for each learning rate, {title}](fig3-{dataset}.png)",
        ]
        rows += [row_of(dataset, rate, cell) for rate, cells in runs.items() for cell in cells]
    if rows:
        write_csv(folder / "table.csv", rows)
    write_report(folder, sections)


def rate_table(runs: Groups) -> list[dict[str, str]]:
    """The convergence of each rate, and the softness of its labels."""
    rows = []
    for rate, cells in runs.items():
        epoch, softness, *_ = PAPER[rate]
        fired = [cell.metrics["converged_epoch"] for cell in cells]
        rows.append(
            {
                "lr_CCL": rate,
                "n": str(len(cells)),
                "paper: epoch": str(epoch or "never"),
                "lowest p̄ in epoch": ", ".join(str(cell.metrics["lowest_softness_epoch"]) for cell in cells),
                "rule fired in": ", ".join(str(epoch or "never") for epoch in fired),
                "paper: p̄": f"{softness:.2f}",
                "lowest p̄": spread([lowest(cell) for cell in cells]),
                "p̄ at the end": spread([cell.metrics["softness"] for cell in cells]),
            }
        )
    return rows


def lowest(cell: Cell) -> float:
    """The lowest p̄ of a run, over all epochs."""
    return min(cell.results["history"]["softness"])


def score_tables(runs: Groups) -> Iterator[str]:
    """The scores of each rate, one table per metric."""
    others = {rate: cells for rate, cells in runs.items() if rate != CHOSEN}
    differences = method_differences(runs.get(CHOSEN, []), others, COMPARED)
    for place, metric in enumerate(COMPARED):
        published = {rate: values[2 + place] for rate, values in PAPER.items()}
        rows = metric_table(runs, metric, {CHOSEN: differences}, published)
        yield f"**{metric[0].upper()}{metric[1:]}**"
        yield markdown_table([{"lr_CCL": row.pop("method")} | row for row in rows])


def row_of(dataset: str, rate: str, cell: Cell) -> dict[str, Any]:
    """The unrounded numbers of one run."""
    names = ("lowest_softness_epoch", "converged_epoch", "softness_epoch", "softness", *COMPARED)
    row = {"dataset": dataset, "lr_ccl": rate, "seed": cell.seed, "lowest_softness": lowest(cell)}
    return row | {name: cell.metrics[name] for name in names}


@in_house_style
def softness_figure(runs: Groups) -> Figure:
    """p̄ by epoch: one colour per learning rate, one line per run."""
    figure = Figure(figsize=(8, 4))
    axes = figure.subplots()
    for number, (rate, cells) in enumerate(runs.items()):
        for cell in cells:
            softness = cell.results["history"]["softness"]
            label = rate if cell is cells[0] else None
            axes.plot(range(1, len(softness) + 1), softness, color=f"C{number}", label=label)
    axes.set(xlabel="epoch", ylabel="softness p̄ (lower is softer)")
    axes.legend(title="lr_CCL", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
