"""Comparison of methods on the same validation images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cclnet.metrics.resampling import Difference, RepeatedDifference, mcnemar, repeated_difference
from cclnet.views.figures import in_house_style
from studies.reporting.cells import Cell, require_same_images
from studies.reporting.p_values import PValue, adjusted
from studies.reporting.tables import spread

METRICS = {"accuracy": "accuracy", "f1": "macro F1", "kappa": "Cohen's kappa", "jaccard": "macro Jaccard"}
"""The metrics of the paper, in the order of its Table 1."""

EXPLANATION = (
    "Differences are on the same validation images, averaged over the seeds that both methods have. *These seeds*: "
    "95 % interval of a paired bootstrap that draws lesions (20,000 resamples), for these very runs. *Other seeds*: "
    "the seeds are drawn, too (one fewer than there are, so that the variance is that of their mean). p after Holm "
    "over the methods of a table; ≤ where no resample was on the other side of 0."
)


@dataclass(frozen=True)
class MethodDifference:
    """A method minus the reference, averaged over the seeds that both have.

    Attributes:
        name: name of the method.
        seeds: number of seeds.
        differences: metric → the difference, None if the metric is undefined.
        p_fixed: metric → p for these seeds, after Holm's correction over the compared methods.
        p_hierarchical: metric → p for other seeds, after Holm's correction; None also for a single seed.
        mcnemar: p of the exact test that both are equally accurate, one per seed.
    """

    name: str
    seeds: int
    differences: dict[str, RepeatedDifference | None]
    p_fixed: dict[str, PValue | None]
    p_hierarchical: dict[str, PValue | None]
    mcnemar: list[float]

    def columns(self, metric: str) -> dict[str, str]:
        """The columns of a table for one metric; dashes if it is undefined."""
        found = self.differences[metric]
        fixed, hierarchical = (found.fixed, found.hierarchical) if found else (None, None)
        return {
            "difference": f"{fixed.estimate:+.3f}" if fixed else "–",
            "these seeds": _interval(fixed, self.p_fixed[metric]),
            "other seeds": _interval(hierarchical, self.p_hierarchical[metric]),
        }


def _interval(difference: Difference | None, p: PValue | None) -> str:
    if difference is None or p is None:
        return "–"
    return f"({difference.low:+.3f}, {difference.high:+.3f}), p {p}"


def method_differences(
    reference: Sequence[Cell], others: Mapping[str, Sequence[Cell]], metrics: Sequence[str]
) -> list[MethodDifference]:
    """Compare each of the other methods with the reference; methods without a common seed are left out.

    Args:
        reference: the runs of the reference.
        others: method → its runs.
        metrics: names of ``weighted_scores``.

    Raises:
        DataError: the runs do not have the same validation images.
    """
    by_seed = {cell.seed: cell for cell in reference}
    found: list[tuple[str, list[tuple[Cell, Cell]]]] = []
    for name, cells in others.items():
        pairs = [(cell, by_seed[cell.seed]) for cell in cells if cell.seed in by_seed]
        if pairs:
            require_same_images([each for pair in pairs for each in pair])
            found.append((name, pairs))
    differences = [{metric: _difference(pairs, metric) for metric in metrics} for _, pairs in found]
    fixed = {metric: adjusted([_p_fixed(each[metric]) for each in differences]) for metric in metrics}
    hierarchical = {metric: adjusted([_p_hierarchical(each[metric]) for each in differences]) for metric in metrics}
    return [
        MethodDifference(
            name,
            len(pairs),
            differences[place],
            {metric: fixed[metric][place] for metric in metrics},
            {metric: hierarchical[metric][place] for metric in metrics},
            [mcnemar(ours.right, theirs.right).p for ours, theirs in pairs],
        )
        for place, (name, pairs) in enumerate(found)
    ]


def _difference(pairs: Sequence[tuple[Cell, Cell]], metric: str) -> RepeatedDifference | None:
    return repeated_difference([ours.resampled[metric] - theirs.resampled[metric] for ours, theirs in pairs])


def _p_fixed(difference: RepeatedDifference | None) -> PValue | None:
    return difference and _p(difference.fixed, difference.smallest_p)


def _p_hierarchical(difference: RepeatedDifference | None) -> PValue | None:
    return difference and difference.hierarchical and _p(difference.hierarchical, difference.smallest_p)


def _p(difference: Difference, smallest: float) -> PValue:
    return PValue(difference.p, difference.p <= smallest)


def metric_table(
    methods: Mapping[str, Sequence[Cell]],
    metric: str,
    references: Mapping[str, Sequence[MethodDifference]],
    published: Mapping[str, float] | None = None,
) -> list[dict[str, str]]:
    """The rows of one metric: the measured values, and the differences from each reference.

    Args:
        methods: method → its runs.
        metric: name of the metric.
        references: name of a method → the differences from it.
        published: method → the paper's value, if the paper reports the metric.
    """
    rows = []
    for name, cells in methods.items():
        row = {"method": name}
        if published is not None:
            row["paper"] = f"{published[name]:.4f}" if name in published else "–"
        row |= {"n": str(len(cells)), "here": spread([cell.metrics[metric] for cell in cells])}
        for reference, differences in references.items():
            row |= _columns(name, reference, differences, metric)
        rows.append(row)
    return rows


def _columns(name: str, reference: str, differences: Sequence[MethodDifference], metric: str) -> dict[str, str]:
    """The columns with a method's difference from one reference."""
    compared = {difference.name: difference for difference in differences}
    columns = dict.fromkeys(("difference", "these seeds", "other seeds"), "–")
    if name == reference:
        columns["difference"] = "reference"
    elif name in compared:
        columns = compared[name].columns(metric)
    return {f"− {reference}: {title}": text for title, text in columns.items()}


def mcnemar_table(differences: Sequence[MethodDifference], reference: str) -> list[dict[str, str]]:
    """The exact tests of each method, seed by seed; they assume independent images."""
    column = f"exact McNemar's p against {reference}, seed by seed"
    return [{"method": each.name, column: ", ".join(f"{p:.2f}" for p in each.mcnemar)} for each in differences]


@in_house_style
def differences_figure(
    panels: Mapping[str, Sequence[MethodDifference]], metrics: Mapping[str, str], reference: str
) -> Figure:
    """Differences from the reference: one row of panels per group, one panel per metric.

    The thick lines are the intervals for these seeds, the thin lines those for other seeds.

    Args:
        panels: title → the differences of a group, at least one.
        metrics: metric → its title.
        reference: name of the reference.
    """
    sizes = [len(differences) for differences in panels.values()]
    figure = Figure(figsize=(2.6 * len(metrics) + 2, 0.9 * len(panels) + 0.27 * sum(sizes) + 0.8))
    grid = figure.subplots(len(panels), len(metrics), squeeze=False, sharex="col", height_ratios=sizes)
    for axes_row, (title, differences) in zip(grid.tolist(), panels.items(), strict=True):
        for axes, metric in zip(axes_row, metrics, strict=True):
            _draw(axes, [each.differences[metric] for each in differences])
            axes.set_yticks(range(len(differences)), [each.name for each in differences] if axes is axes_row[0] else [])
        axes_row[0].set_ylabel(title)
    for axes, title in zip(grid[0], metrics.values(), strict=True):
        axes.set_title(title)
    figure.supxlabel(f"difference from {reference}; 95 % intervals, thick: over lesions, thin: over lesions and seeds")
    return figure


def _draw(axes: Axes, differences: Sequence[RepeatedDifference | None]) -> None:
    """Draw the differences one below the other."""
    axes.axvline(0, color="gray", linewidth=0.8)
    for place, difference in enumerate(differences):
        if difference is None:
            continue
        fixed, hierarchical = difference.fixed, difference.hierarchical
        if hierarchical:
            axes.plot([hierarchical.low, hierarchical.high], [place, place], color="C0", linewidth=0.8)
        axes.plot([fixed.low, fixed.high], [place, place], color="C0", linewidth=2.5)
        axes.plot(fixed.estimate, place, "o", color="C0")
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def csv_rows(
    place: Mapping[str, str],
    methods: Mapping[str, Sequence[Cell]],
    references: Mapping[str, Sequence[MethodDifference]],
    metrics: Sequence[str],
    published: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """The same numbers unrounded: one row per method, metric and reference.

    Args:
        place: the first columns and their values.
        methods: method → its runs.
        references: name of a method → the differences from it.
        metrics: names of the metrics.
        published: method → metric → the paper's value.
    """
    rows = []
    for name, cells in methods.items():
        for metric in metrics:
            values = [cell.metrics[metric] for cell in cells if cell.metrics[metric] is not None]
            measured = {
                **place,
                "method": name,
                "metric": metric,
                "paper": (published or {}).get(name, {}).get(metric),
                "n": len(values),
                "mean": float(np.mean(values)) if values else None,
                "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
            for reference, differences in references.items():
                compared = {difference.name: difference for difference in differences}
                rows.append(measured | {"reference": reference} | _unrounded(compared.get(name), metric))
    return rows


def _unrounded(difference: MethodDifference | None, metric: str) -> dict[str, float | None]:
    """The numbers of a difference; all None if there is none."""
    found = difference.differences[metric] if difference else None
    fixed, hierarchical = (found.fixed, found.hierarchical) if found else (None, None)
    p_fixed = difference.p_fixed[metric] if difference else None
    p_hierarchical = difference.p_hierarchical[metric] if difference else None
    return {
        "difference": fixed.estimate if fixed else None,
        "low": fixed.low if fixed else None,
        "high": fixed.high if fixed else None,
        "p": fixed.p if fixed else None,
        "p_holm": p_fixed.value if p_fixed else None,
        "low_seeds": hierarchical.low if hierarchical else None,
        "high_seeds": hierarchical.high if hierarchical else None,
        "p_seeds": hierarchical.p if hierarchical else None,
        "p_seeds_holm": p_hierarchical.value if p_hierarchical else None,
    }
