"""The publication figures of what the other stages measured."""

from pathlib import Path

import pandas as pd

from cclnet.params import PlotParams
from cclnet.system.errors import errors_in_one_line
from cclnet.system.files import read_json
from cclnet.views import figures
from stages import PARAMS

METRICS, FIGURES = Path("metrics"), Path("metrics/figures")


def main() -> None:
    params = PARAMS.stage(PlotParams)
    cells = pd.DataFrame(read_json(METRICS / "soft_labels.json"))
    classes = cells["true_class"].unique().tolist()
    matrix = cells["value"].to_numpy().reshape(len(classes), len(classes))
    confusion = pd.DataFrame(read_json(METRICS / "confusion.json"))
    counts = confusion["count"].to_numpy().reshape(len(classes), len(classes))
    drawn = {
        "soft_labels": figures.soft_label_figure(matrix, classes, f"Soft labels, {params.dataset}"),
        "confusion": figures.confusion_figure(counts, classes),
        "history": figures.history_figure(pd.read_csv(METRICS / "history.csv"), len(classes)),
        "reliability": figures.reliability_figure(pd.read_csv(METRICS / "reliability.csv")),
    }
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        for suffix in ("png", "svg"):
            figures.save_figure(figure, FIGURES / f"{name}.{suffix}")


if __name__ == "__main__":
    with errors_in_one_line("plot"):
        main()
