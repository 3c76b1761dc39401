"""Methods compared on the same validation images: what every report of the studies shares."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cclnet.metrics.resampling import Difference, holm, mcnemar, paired_bootstrap
from cclnet.views.figures import in_house_style
from studies.reporting.cells import Cell, mean_scores
from studies.reporting.tables import spread

METRICS = {"accuracy": "accuracy", "f1": "macro F1", "kappa": "Cohen's kappa", "jaccard": "macro Jaccard"}
"""The paper's, in the order of its Table 1."""


@dataclass(frozen=True)
class MethodDifference:
    """A method against the reference, averaged over the seeds that both have.

    Attributes:
        name: the method.
        seeds: how many.
        differences: metric → method − reference with its 95 % interval (lesions drawn with replacement), None where
            the data leave the metric undefined.
        adjusted: metric → p after Holm over the methods compared.
        mcnemar: p of the exact test that both are right equally often, one for each seed.
    """

    name: str
    seeds: int
    differences: dict[str, Difference | None]
    adjusted: dict[str, float | None]
    mcnemar: list[float]

    def told(self, metric: str) -> str:
        """The difference in a few words, a dash where it is undefined."""
        difference, p = self.differences[metric], self.adjusted[metric]
        if difference is None or p is None:
            return "–"
        return f"{difference.estimate:+.3f} ({difference.low:+.3f}, {difference.high:+.3f}), p = {p:.3f}"


def compare(
    reference: Sequence[Cell], others: Mapping[str, Sequence[Cell]], metrics: Sequence[str]
) -> list[MethodDifference]:
    """Each of the others against the reference; those without a seed in common are left out.

    The intervals know the images' chance, not that of the seeds: that is in the spread of the scores.

    Args:
        reference: the runs of the reference.
        others: method → its runs, on the same validation images.
        metrics: names of ``statistics.weighted_scores``.
    """
    by_seed = {cell.seed: cell for cell in reference}
    found = []
    for name, cells in others.items():
        pairs = [(cell, by_seed[cell.seed]) for cell in cells if cell.seed in by_seed]
        if pairs:
            ours, theirs = (mean_scores(list(side)) for side in zip(*pairs, strict=True))
            differences = paired_bootstrap(ours, theirs, pairs[0][0].predictions["lesion"])
            tests = [mcnemar(a.right, b.right).p for a, b in pairs]
            found.append((name, len(pairs), {metric: differences[metric] for metric in metrics}, tests))
    adjusted = {metric: adjust([differences[metric] for _, _, differences, _ in found]) for metric in metrics}
    return [
        MethodDifference(name, seeds, differences, {metric: adjusted[metric][place] for metric in metrics}, tests)
        for place, (name, seeds, differences, tests) in enumerate(found)
    ]


def adjust(differences: Sequence[Difference | None]) -> list[float | None]:
    """Holm's p of the differences that there are."""
    adjusted = iter(holm([difference.p for difference in differences if difference]).tolist())
    return [next(adjusted) if difference else None for difference in differences]


def comparison_table(
    reference: Sequence[Cell],
    others: Mapping[str, Sequence[Cell]],
    metric: str,
    comparisons: Iterable[MethodDifference],
    published: Mapping[str, float | None],
) -> list[dict[str, str]]:
    """The rows of one metric: what the paper has, what was measured, and the difference to the reference."""
    compared = {comparison.name: comparison for comparison in comparisons}
    rows = []
    for name, cells in others.items():
        known, comparison = published.get(name), compared.get(name)
        row = {"method": name, "paper": "–" if known is None else f"{known:.4f}", "n": str(len(cells))}
        row["here"] = spread([cell.metrics[metric] for cell in cells])
        same = cells is reference
        row["difference to CCL-Net"] = "reference" if same else comparison.told(metric) if comparison else "–"
        if metric == "accuracy":
            row["exact McNemar, by seed"] = ", ".join(f"{p:.2f}" for p in comparison.mcnemar) if comparison else "–"
        rows.append(row)
    return rows


@in_house_style
def differences_figure(panels: Mapping[str, Sequence[MethodDifference]], metrics: Mapping[str, str]) -> Figure:
    """Differences to the reference with their intervals: a row of panels for each group, a panel for each metric.

    Args:
        panels: title → the comparisons of a group, at least one.
        metrics: metric → its title.
    """
    sizes = [len(comparisons) for comparisons in panels.values()]
    figure = Figure(figsize=(2.6 * len(metrics) + 2, 0.9 * len(panels) + 0.27 * sum(sizes) + 0.8))
    grid = figure.subplots(len(panels), len(metrics), squeeze=False, sharex="col", height_ratios=sizes)
    for axes_row, (title, comparisons) in zip(grid.tolist(), panels.items(), strict=True):
        places = range(len(comparisons))
        for axes, metric in zip(axes_row, metrics, strict=True):
            axes.axvline(0, color="gray", linewidth=0.8)
            for place, comparison in enumerate(comparisons):
                if difference := comparison.differences[metric]:
                    axes.plot([difference.low, difference.high], [place, place], color="C0")
                    axes.plot(difference.estimate, place, "o", color="C0")
            axes.set_ylim(len(comparisons) - 0.5, -0.5)
            axes.set_yticks(places, [comparison.name for comparison in comparisons] if axes is axes_row[0] else [])
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes_row[0].set_ylabel(title)
    for axes, title in zip(grid[0], metrics.values(), strict=True):
        axes.set_title(title)
    figure.supxlabel("difference to CCL-Net, 95 % interval over lesions")
    return figure


def comparison_csv(
    place: Mapping[str, str],
    groups: Mapping[str, Sequence[Cell]],
    comparisons: Iterable[MethodDifference],
    published: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str],
) -> list[dict[str, str | int | float | None]]:
    """The same numbers unrounded, a row for each method and metric."""
    compared = {comparison.name: comparison for comparison in comparisons}
    rows = []
    for name, cells in groups.items():
        for metric in metrics:
            values = [cell.metrics[metric] for cell in cells if cell.metrics[metric] is not None]
            comparison = compared.get(name)
            difference = comparison.differences[metric] if comparison else None
            rows.append(
                {
                    **place,
                    "method": name,
                    "metric": metric,
                    "paper": published.get(name, {}).get(metric),
                    "n": len(values),
                    "mean": float(np.mean(values)) if values else None,
                    "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                    "difference": difference.estimate if difference else None,
                    "low": difference.low if difference else None,
                    "high": difference.high if difference else None,
                    "p": difference.p if difference else None,
                    "p_holm": comparison.adjusted[metric] if comparison else None,
                }
            )
    return rows
