"""Run a committed cell again and compare every number with the committed ones.

The numbers must be equal if equality is guaranteed: with the same kernels, threads, processes and versions of the
libraries, and with ``processor: native`` also the same processor, which newer cells record. Otherwise rounding differs,
which after some hundred training steps has the same effect as another seed. So the tolerance is derived from seeds: a
number may differ by ``FACTOR`` times the root mean square difference of two runs with different seeds, over all groups
of the study's committed cells on the same dataset. The entries of a matrix, the epochs of a curve and the predicted
probabilities are each compared together, by their root mean square difference.
"""

import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cclnet.system.errors import CCLNetError
from studies.reporting.cells import Cell, load_cell
from studies.reporting.tables import markdown_table
from studies.running.grid import PlannedCell, planned_cells
from studies.running.record import hardware
from studies.running.runner import cell_job, prepare, run_all
from studies.running.settings import ROOT

FACTOR = 4.0


class Outcome(IntEnum):
    """The result of a check; also the exit status of its command."""

    EQUAL = 0
    WITHIN_TOLERANCE = 3
    DIFFERENT = 4


class Deviation(NamedTuple):
    """The difference of a number from the committed one, or the root mean square difference of several numbers.

    Attributes:
        name: name of the number or numbers.
        committed, measured: as text; for several numbers, their count.
        difference: infinite if only one of the two is undefined (null), or if their counts differ.
        tolerance: 0 if equality is guaranteed.
    """

    name: str
    committed: str
    measured: str
    difference: float
    tolerance: float

    @property
    def verdict(self) -> str:
        """``equal``, ``within`` its tolerance, or ``different``."""
        if self.difference == 0:
            return "equal"
        return "within" if self.difference <= self.tolerance else "different"


def check(cells: Sequence[PlannedCell], source: str | None) -> Outcome:
    """Run one of the cells again, chosen at random, and print the table of differences.

    Args:
        cells: the planned cells; one of the finished ones is chosen.
        source: the source of the official files; None for the one in ``params.yaml``.

    Raises:
        CCLNetError: none of the cells is finished, or running it failed.
    """
    measured = [cell for cell in cells if cell.done]
    if not measured:
        raise CCLNetError("none of these cells has been measured, so there is nothing to check")
    chosen = random.choice(measured)  # noqa: S311 - no cryptographic use
    committed, again = load_cell(ROOT / f"{chosen.path}.json"), measured_again(chosen, source)
    reason = why_not_equal(committed.results, again.results)
    peers = [] if not reason else measured_alike(chosen)
    found = deviations(committed, again, peers)
    print(f"{chosen.path}, committed with {origin(committed)}, measured again at {origin(again)}")
    print(f"Equal numbers are not promised: {reason}" if reason else "Equal numbers are promised")
    print(markdown_table([row(deviation) for deviation in found]))
    return outcome(found)


def measured_again(cell: PlannedCell, source: str | None) -> Cell:
    """The same experiment, run in a temporary folder."""
    prepare(cell.study, [cell], source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / cell.name
        run_all(f"check of {cell.study}", [cell_job(path, cell.data, cell.settings)], 1)
        return load_cell(Path(f"{path}.json"))


def measured_alike(chosen: PlannedCell) -> list[Cell]:
    """All finished cells of the study on the same dataset."""
    dataset = chosen.params["dataset"]
    alike = [cell for cell in planned_cells(chosen.study) if cell.done and cell.params["dataset"] == dataset]
    return [load_cell(ROOT / f"{cell.path}.json") for cell in alike]


def why_not_equal(committed: Mapping[str, Any], again: Mapping[str, Any]) -> str:
    """Why the numbers of two cells may differ; empty if equality is guaranteed."""
    before, now = committed["ran_on"], again["ran_on"]
    differing = [
        f"{key} {before.get(key)} and {now.get(key)}" for key in sorted(before | now) if before.get(key) != now.get(key)
    ]
    if differing:
        return f"it ran on {', '.join(differing)}"
    processor = committed["made_by"].get("hardware")
    if before["processor"] == "native" and processor != hardware():
        return f"it ran on {processor or 'a processor that is not recorded'}, and this is {hardware()}"
    return ""


def deviations(committed: Cell, again: Cell, peers: Sequence[Cell]) -> list[Deviation]:
    """Compare every number of two cells.

    Args:
        committed, again: the two cells.
        peers: the cells that determine the tolerance, which is 0 if no group among them has two seeds.
    """
    before, now = numbers(committed), numbers(again)
    pairs = [(numbers(a), numbers(b)) for a, b in combinations(peers, 2) if a.group == b.group]
    return [
        Deviation(
            name,
            as_text(before.get(name)),
            as_text(now.get(name)),
            distance(before.get(name), now.get(name)),
            FACTOR * root_mean_square([distance(a.get(name), b.get(name)) for a, b in pairs]),
        )
        for name in sorted(before | now)
    ]


def numbers(cell: Cell) -> dict[str, NDArray[np.float64] | None]:
    """All results of a cell, name → number or numbers, None if undefined."""
    found: dict[str, Any] = {name: value for name, value in cell.metrics.items() if name != "notes"}
    found |= {f"{name} by epoch": values for name, values in cell.results["history"].items()}
    found |= {name: cell.results[name] for name in ("soft_labels", "confusion", "training_images")}
    found |= {"predicted probabilities": cell.predictions.sort_values("image")[cell.classes].to_numpy()}
    return {name: None if value is None else np.asarray(value, dtype=np.float64) for name, value in found.items()}


def distance(a: NDArray[np.float64] | None, b: NDArray[np.float64] | None) -> float:
    """The root mean square difference; infinite if only one is undefined, or if the shapes differ."""
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    return root_mean_square(a - b) if a.shape == b.shape else float("inf")


def root_mean_square(values: ArrayLike) -> float:
    """The root mean square, 0 for no values."""
    squares = np.square(np.asarray(values, dtype=np.float64))
    return float(np.sqrt(squares.mean())) if squares.size else 0.0


def as_text(value: NDArray[np.float64] | None) -> str:
    """A number as text; for several numbers, their count."""
    if value is None:
        return "undefined"
    return f"{value:.6g}" if value.ndim == 0 else f"{value.size} numbers"


def row(deviation: Deviation) -> dict[str, str]:
    """A row of the table."""
    return {
        "": deviation.name,
        "committed": deviation.committed,
        "again": deviation.measured,
        "difference": f"{deviation.difference:.2g}",
        "allowed": f"{deviation.tolerance:.2g}",
        "verdict": deviation.verdict,
    }


def outcome(found: Iterable[Deviation]) -> Outcome:
    """The worst verdict."""
    verdicts = {deviation.verdict for deviation in found}
    if "different" in verdicts:
        return Outcome.DIFFERENT
    return Outcome.WITHIN_TOLERANCE if "within" in verdicts else Outcome.EQUAL


def origin(cell: Cell) -> str:
    """The commit of a cell, if known."""
    made = cell.results["made_by"]
    return str(made.get("commit") or made.get("added_in_commit"))[:10]
