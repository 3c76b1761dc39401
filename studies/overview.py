"""The figure of the findings: what each method gains over hard labels, in six trainings on real images.

python -m studies.overview   # writes docs/evidence/overview.png from the tables and cells of the studies
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cclnet.views.figures import in_house_style, save_figure
from studies.features.report import difference, folds_by_method
from studies.pretrained.report import BASELINE, COLOURS, METHODS, SPLITS
from studies.running.settings import ROOT
from studies.table1.report import PUBLISHED

SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
COMPARED = {method: title for method, title in METHODS.items() if title != BASELINE}


class Gain(NamedTuple):
    """A method minus hard labels in one score, with 95 % intervals where they are known.

    Attributes:
        estimate: the difference.
        runs: the interval for these runs, or that of a cross-validation.
        seeds: the interval for other seeds.
    """

    estimate: float
    runs: tuple[float, float] | None = None
    seeds: tuple[float, float] | None = None


Training = Mapping[tuple[str, str], Gain]
"""Method and score → the gain in one training."""


def trainings(studies: Path) -> dict[str, Training]:
    """Title → the gains in each training, in the order of the figure."""
    scratch = pd.read_csv(studies / "table1" / "table.csv").query("dataset == 'isic2018_64' and backbone == 'resnet18'")
    tuned = pd.read_csv(studies / "pretrained" / "table.csv")
    own = {method: method for method in COMPARED}
    by_title = {title: method for method, title in COMPARED.items()}
    fine_tuned = {
        f"fine-tuned, 128 pixels, by {split},\n{how}": from_table(
            tuned.query("split == @split and colours == @colours"), BASELINE, by_title
        )
        for (colours, how), split in product(COLOURS.items(), SPLITS)
    }
    return {
        "the paper: from scratch,\n224 pixels, by image": published(),
        "from scratch,\n64 pixels, by image": from_table(scratch.query("split == 'image'"), "baseline", own),
        "from scratch,\n64 pixels, by lesion": from_table(scratch.query("split == 'lesion'"), "baseline", own),
        **{title: gains for title, gains in fine_tuned.items() if gains},
        "classifier on fixed features,\nby lesion": on_fixed_features(),
    }


def published() -> Training:
    """The paper's Table 1 for ResNet-18, which has no balanced accuracy."""
    accuracy = {method: values[0] for method, values in PUBLISHED["resnet18"].items() if method in METHODS}
    hard = accuracy.pop("baseline")
    return {(method, "accuracy"): Gain(value - hard) for method, value in accuracy.items()}


def from_table(table: pd.DataFrame, reference: str, methods: Mapping[str, str]) -> Training:
    """The gains in the unrounded table of a study.

    Args:
        table: its rows of one training.
        reference: its name for hard labels.
        methods: its name of each method → the method.
    """
    rows = table.query("method in @methods and metric in @SCORES and reference == @reference")
    return {
        (methods[row["method"]], row["metric"]): Gain(
            row["difference"],
            (row["low"], row["high"]),
            None if pd.isna(row["low_seeds"]) else (row["low_seeds"], row["high_seeds"]),
        )
        for row in rows.to_dict("records")
    }


def on_fixed_features() -> Training:
    """The gains of the linear classifier over all folds."""
    folds = folds_by_method()
    gains: dict[tuple[str, str], Gain] = {}
    for method in COMPARED:
        for score in SCORES:
            mean, half, _ = difference(folds[method.replace("-", "_")], folds["baseline"], score)
            gains[method, score] = Gain(mean, None if half is None else (mean - half, mean + half))
    return gains


@in_house_style
def overview_figure(found: Mapping[str, Training]) -> Figure:
    """One panel for each score, in which the methods of each training are a group of rows."""
    heights = [len({method for method, _ in gains}) for gains in found.values()]
    figure = Figure(figsize=(10, 1.5 + 0.24 * sum(heights) + 0.15 * len(heights)))
    panels = figure.subplots(1, len(SCORES), sharey=True)
    middles = []
    top = 0.0
    for height, gains in zip(heights, found.values(), strict=True):
        shown = [method for method in COMPARED if any(method == own for own, _ in gains)]
        for row, method in enumerate(shown):
            for axes, score in zip(panels, SCORES, strict=True):
                if (method, score) in gains:
                    _draw(axes, gains[method, score], top + row, f"C{list(COMPARED).index(method)}")
        middles.append(top + (height - 1) / 2)
        top += height + 1
        for axes in panels:
            axes.axhline(top - 1, color="#e0e0e0", linewidth=0.8)
    for axes, title in zip(panels, SCORES.values(), strict=True):
        axes.axvline(0, color="gray", linewidth=0.8)
        axes.set_title(f"{title}: points above hard labels")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(middles, list(found))
    panels[0].set_ylim(top - 1, -1)
    lines = [Line2D([], [], color=f"C{number}", marker="o") for number in range(len(COMPARED))]
    figure.legend(lines, list(COMPARED.values()), loc="outside lower center", ncols=3)
    return figure


def _draw(axes: Axes, gain: Gain, place: float, colour: str) -> None:
    """A point with its intervals: thick for these runs, thin for other seeds; hollow without one."""
    for interval, width in ((gain.seeds, 0.8), (gain.runs, 2.5)):
        if interval:
            axes.plot([100 * bound for bound in interval], [place, place], color=colour, linewidth=width)
    axes.plot(100 * gain.estimate, place, "o", color=colour, markerfacecolor=colour if gain.runs else "white")


def main() -> None:
    """Write the figure beside the findings."""
    save_figure(overview_figure(trainings(ROOT / "studies")), ROOT / "docs" / "evidence" / "overview.png")


if __name__ == "__main__":
    main()
