"""The publication figures of what the other stages measured."""

import json
from pathlib import Path

import pandas as pd

from cclnet import figures
from cclnet.errors import errors_in_one_line
from cclnet.isic import CLASSES
from cclnet.params import PlotParams
from stages import PARAMS

METRICS, FIGURES = Path("metrics"), Path("metrics/figures")


def main() -> None:
    params = PARAMS.stage(PlotParams)
    cells = pd.DataFrame(json.loads((METRICS / "soft_labels.json").read_text(encoding="utf-8")))
    matrix = cells["value"].to_numpy().reshape(len(CLASSES), len(CLASSES))
    confusion = pd.DataFrame(json.loads((METRICS / "confusion.json").read_text(encoding="utf-8")))
    counts = confusion["count"].to_numpy().reshape(len(CLASSES), len(CLASSES))
    drawn = {
        "soft_labels": figures.soft_label_figure(matrix, CLASSES, f"Soft labels, {params.dataset}"),
        "confusion": figures.confusion_figure(counts, CLASSES),
        "history": figures.history_figure(pd.read_csv(METRICS / "history.csv"), len(CLASSES)),
        "reliability": figures.reliability_figure(pd.read_csv(METRICS / "reliability.csv")),
    }
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        for suffix in ("png", "svg"):
            figures.save_figure(figure, FIGURES / f"{name}.{suffix}")


if __name__ == "__main__":
    with errors_in_one_line("plot"):
        main()
