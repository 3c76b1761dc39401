"""Output of the comparisons: CSV files, tables on the screen, and a report with a figure."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.catalogue import QUESTIONS
from benchmarks.measure import Comparison, figure
from cclnet.system.files import write_bytes, write_csv
from cclnet.views.figures import COLOURS, in_house_style, save_figure
from studies.reporting.tables import markdown_table

Row = dict[str, Any]


def row_of(comparison: Comparison) -> Row:
    """A comparison as a row of the CSV."""
    row: Row = {"case": comparison.case, "unit": comparison.unit}
    for side in ("measured", "reference"):
        series = getattr(comparison, side)
        row |= {side: series.name, f"{side}_median": series.median}
        row |= {f"{side}_low": min(series.values), f"{side}_high": max(series.values)}
    row |= {"ratio": comparison.ratio, "ratio_low": min(comparison.ratios), "ratio_high": max(comparison.ratios)}
    row |= {"target": "", "target_low": None, "target_high": None, "met": ""}
    if target := comparison.target:
        row |= {f"target_{end}": value for end, value in target._asdict().items() if math.isfinite(value)}
        row |= {"target": str(target), "met": "yes" if comparison.met else "no"}
    return row | {"repetitions": len(comparison.measured.values)}


def table_of(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The rows of a CSV formatted for reading: medians, with the lowest and the highest value in brackets."""

    def spread(row: Row, name: str, middle: str) -> str:
        return f"{figure(row[middle])} ({figure(row[f'{name}_low'])} … {figure(row[f'{name}_high'])})"

    return [
        {
            "case": row["case"],
            "measured": f"{row['measured']}: {spread(row, 'measured', 'measured_median')}",
            "beside": f"{row['reference']}: {spread(row, 'reference', 'reference_median')}",
            "unit": row["unit"],
            "ratio": spread(row, "ratio", "ratio"),
            "target": row["target"] or "–",
            "met": row["met"] or "–",
            "n": str(row["repetitions"]),
        }
        for row in rows
    ]


def ran_on(row: Row) -> str:
    """The machine, the versions, and the CPU share of other programs."""
    others = f"other programs had {row['other_work']:.0%} of the machine meanwhile"
    return f"{row['machine']}; {row['images']}; {row['versions']}; {others}"


def show(question: str, rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(title=QUESTIONS[question].title, caption=ran_on(rows[0]))
    lines = table_of(rows)
    for column in lines[0]:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*line.values())
    Console().print(table)


def write(folder: Path, question: str, rows: Sequence[Row]) -> None:
    """Write the rows to the CSV."""
    write_csv(folder / f"{question}.csv", rows)


def read(folder: Path) -> dict[str, list[Row]]:
    """Read all CSV files, in the order of the catalogue."""
    files = {question: folder / f"{question}.csv" for question in QUESTIONS}
    return {
        question: pd.read_csv(path, keep_default_na=False).to_dict("records")
        for question, path in files.items()
        if path.exists()
    }


def report(folder: Path) -> str:
    """Write the report and the figure of all results; return the report."""
    kept = read(folder)
    parts = ["# How fast it is, as measured", "Written by `python -m benchmarks report`; what it means: "]
    parts[-1] += "[performance](../../docs/evidence/performance.md). Medians, in brackets the lowest and the highest."
    parts.append("![Measured ratios beside their targets](ratios.png)")
    for question, rows in kept.items():
        told = f"`python -m benchmarks {question}` on {ran_on(rows[0])}."
        parts += [f"## {QUESTIONS[question].title}", markdown_table(table_of(rows)), told]
    page = "\n\n".join(parts) + "\n"
    write_bytes(folder / "report.md", page.encode())
    save_figure(ratio_figure([row for rows in kept.values() for row in rows if row["target"]]), folder / "ratios.png")
    return page


@in_house_style
def ratio_figure(rows: Sequence[Row]) -> Figure:
    """All ratios with a target, their spread, and the target range."""
    drawn = Figure(figsize=(8, 0.9 + 0.32 * len(rows)))
    axes = drawn.subplots()
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        low, high = (float(row[f"target_{end}"] or default) for end, default in (("low", 1e-3), ("high", 1e3)))
        axes.barh(place, high - low, left=low, height=0.8, color="#e3efe9", zorder=0)
        colour = COLOURS[2] if row["met"] == "yes" else COLOURS[1]
        axes.plot([row["ratio_low"], row["ratio_high"]], [place, place], color=colour, linewidth=2)
        axes.plot(row["ratio"], place, "o", color=colour)
        text = f"{row['ratio']:.3g}"
        axes.annotate(text, (row["ratio"], place), (0, 5), textcoords="offset points", ha="center", fontsize=6)
    ends = ("ratio_low", "ratio_high", "target_low", "target_high")
    reach = [float(row[end]) for row in rows for end in ends if row[end] != ""]
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlim(min(reach) / 1.15, max(reach) * 1.15)
    axes.set_yticks(places, [f"{row['measured']} / {row['reference']}\n{row['case']}" for row in rows], fontsize=6)
    axes.set_xlabel("ratio of medians; line: lowest and highest; shaded: where it should lie")
    return drawn
