"""Run the missing cells of the experiments, one after the other, and record them."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console

from cclnet.system.errors import CCLNetError
from cclnet.system.files import read_json, write_json
from studies.features import classifiers, counts, course, estimators, network, overlaps, sizes
from studies.features.data import FixedFeatures
from studies.features.records import FOLDER, Results
from studies.running.locks import BusyError, locked
from studies.running.record import code, hardware
from studies.running.settings import ROOT

EXPERIMENTS: dict[str, ModuleType] = {
    "counts": counts,
    "sizes": sizes,
    "course": course,
    "estimators": estimators,
    "overlaps": overlaps,
    "classifiers": classifiers,
    "network": network,
}
WITHOUT_FEATURES = ("counts", "network")

console = Console(stderr=True, highlight=False)


def run_missing(names: Iterable[str], features: Path | None) -> None:
    """Run the cells of these experiments that are missing; one that another process runs is left to it.

    Raises:
        CCLNetError: there is no such experiment, or a cell needs the file of features.
    """
    wanted = list(names)
    if unknown := [name for name in wanted if name not in EXPERIMENTS]:
        raise CCLNetError(f"there is no experiment {', '.join(unknown)}, only {', '.join(EXPERIMENTS)}")
    missing = [(name, cell) for name in wanted for cell in EXPERIMENTS[name].PLAN if not path_of(cell).is_file()]
    needing = sorted({name for name, _ in missing if name not in WITHOUT_FEATURES})
    if needing and features is None:
        raise CCLNetError(f"{', '.join(needing)}: cells are missing, so name the file of features with --features")
    data = FixedFeatures(features)
    torch.set_num_threads(1)
    for number, (name, cell) in enumerate(missing, start=1):
        try:
            run_cell(name, cell, data)
        except BusyError:
            console.print(f"{cell}: another process is at work on it")
            continue
        console.print(f"{cell}: {number} of {len(missing)}", style="dim")


def run_cell(name: str, cell: str, data: FixedFeatures) -> None:
    """Run one cell and write its record, unless another process has done so meanwhile."""
    experiment = EXPERIMENTS[name]
    with locked(ROOT / ".cclnet" / "studies" / "features" / f"{cell}.lock"):
        if path_of(cell).is_file():
            return
        started = time.monotonic()
        results = experiment.run(experiment.PLAN[cell], data)
        made = code() | {"hardware": hardware(), "wall_seconds": round(time.monotonic() - started, 1)}
        if name not in WITHOUT_FEATURES:
            made["features_sha256"] = data.sha256
        write_json(path_of(cell), {"settings": dict(experiment.PLAN[cell]), "results": results, "made_by": made})


def path_of(cell: str) -> Path:
    """The file of a cell."""
    return ROOT / FOLDER / f"{cell}.json"


def finished(name: str) -> Iterator[tuple[str, Results]]:
    """Name and contents of the finished cells of an experiment, in the order of its plan."""
    for cell in EXPERIMENTS[name].PLAN:
        if path_of(cell).is_file():
            yield cell, read_json(path_of(cell))


def results_by(experiment: str, *keys: str) -> dict[tuple[Any, ...], list[Results]]:
    """The results of the finished cells, grouped by some of their settings."""
    found: dict[tuple[Any, ...], list[Results]] = {}
    for _, cell in finished(experiment):
        found.setdefault(tuple(cell["settings"][key] for key in keys), []).append(cell["results"])
    return found


def progress() -> tuple[int, int]:
    """The number of finished cells, and of all."""
    cells = [cell for experiment in EXPERIMENTS.values() for cell in experiment.PLAN]
    return sum(path_of(cell).is_file() for cell in cells), len(cells)
