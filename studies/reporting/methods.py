"""The sections of a report that compare methods on the same validation images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cclnet.views.figures import save_figure
from studies.reporting.calibration import calibration_table
from studies.reporting.cells import Cell
from studies.reporting.differences import (
    METRICS,
    MethodDifference,
    differences_figure,
    method_differences,
    metric_table,
)
from studies.reporting.tables import markdown_table, spread

SCORES = METRICS | {"balanced_accuracy": "balanced accuracy"}
"""The metrics of the paper's Table 1, and the mean recall of the classes."""


def differences_from(runs: Mapping[str, Sequence[Cell]], reference: str) -> list[MethodDifference]:
    """The differences of all other methods from one of them, in every score; none if the reference has not been run."""
    others = {method: cells for method, cells in runs.items() if method != reference}
    return method_differences(runs.get(reference, []), others, list(SCORES))


def method_sections(
    runs: Mapping[str, Sequence[Cell]], reference: str, differences: Sequence[MethodDifference], figure: Path
) -> list[str]:
    """A table for each score, the figure of the differences, and a table of the calibration.

    Without differences, all scores are in one table.

    Args:
        runs: method → its runs.
        reference: name of the method with which the others are compared.
        differences: those from the reference.
        figure: file for the figure, beside the report; it is not written if there are no differences.
    """
    return [
        *(_compared(runs, reference, differences, figure) if differences else [markdown_table(_scores(runs))]),
        "**Calibration**, before → after temperature scaling (the temperature of each half of the lesions fitted on "
        "the other half)",
        markdown_table(calibration_table(runs)),
    ]


def _compared(
    runs: Mapping[str, Sequence[Cell]], reference: str, differences: Sequence[MethodDifference], figure: Path
) -> list[str]:
    """A table for each score, and the figure."""
    sections = []
    for metric, name in SCORES.items():
        table = metric_table(runs, metric, {reference: differences})
        sections += [f"**{name[0].upper()}{name[1:]}**", markdown_table(table)]
    save_figure(differences_figure({"": differences}, SCORES, reference), figure)
    return [*sections, f"![differences from {reference}]({figure.name})"]


def _scores(runs: Mapping[str, Sequence[Cell]]) -> list[dict[str, str]]:
    """The scores of each method over its seeds."""
    return [
        {"method": method, "n": str(len(cells))}
        | {name: spread([cell.metrics[metric] for cell in cells]) for metric, name in SCORES.items()}
        for method, cells in runs.items()
    ]
