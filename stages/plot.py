"""Create the publication figures from the results of the other stages."""

if __name__ == "__main__":
    from stages import start

    start("plot")

from pathlib import Path

from cclnet.experiments.written import read_history, read_reliability
from cclnet.metrics.matrices import read_confusion, read_soft_labels
from cclnet.params import Params, PlotParams
from cclnet.system.errors import errors_in_one_line
from cclnet.views import figures

METRICS, FIGURES = Path("metrics"), Path("metrics/figures")


def main() -> None:
    params = Params.load().stage(PlotParams)
    classes, soft_labels = read_soft_labels(METRICS / "soft_labels.json")
    _, confusion = read_confusion(METRICS / "confusion.json")
    drawn = {
        "soft_labels": figures.soft_label_figure(soft_labels, classes, f"Soft labels, {params.dataset}"),
        "confusion": figures.confusion_figure(confusion, classes),
        "history": figures.history_figure(read_history(METRICS / "history.csv"), len(classes)),
        "reliability": figures.reliability_figure(read_reliability(METRICS / "reliability.csv")),
    }
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        for suffix in ("png", "svg"):
            figures.save_figure(figure, FIGURES / f"{name}.{suffix}")


if __name__ == "__main__":
    with errors_in_one_line("plot"):
        main()
