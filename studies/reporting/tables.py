"""Formatting of numbers, Markdown tables, and writing of reports."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cclnet.metrics.resampling import mean_and_deviation
from cclnet.system.files import write_bytes


def spread(values: Iterable[float | None], digits: int = 3) -> str:
    """``mean ± standard deviation`` over seeds; only the mean for one seed; a dash for none."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, deviation = mean_and_deviation(known)
    return f"{mean:.{digits}f}" if deviation is None else f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A GitHub table of rows with the same keys; without rows, a sentence that says so."""
    if not rows:
        return "No cell gives a value here."
    header = list(rows[0])
    lines = [header, ["---"] * len(header), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_report(folder: Path, sections: list[str]) -> None:
    """Write ``report.md``: headings, paragraphs, tables and pictures, one after the other."""
    write_bytes(folder / "report.md", ("\n\n".join(sections) + "\n").encode())
