"""The provenance of a result: code, params, data and machine."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cclnet.dataset.download import digest_of
from cclnet.system.errors import CCLNetError
from cclnet.system.files import read_json, write_json
from studies.running.grid import PlannedCell
from studies.running.settings import ROOT, data_params, experiment_params, todays

CODE = ("cclnet", "stages", "studies/*.py", "params.yaml", "studies/running/base.yaml")
"""The files of the checkout that a result may depend on, as git patterns."""

PREPARED = "prepared.json"
"""The record of a data folder; it is written last, so its existence implies that the data are complete."""


def code() -> dict[str, Any]:
    """The commit of this checkout, and the files of ``CODE`` that differ from it; null if git is not available."""
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=all", "--", *CODE)
    if commit is None or changed is None:
        return {"commit": None, "changed_files": None}
    return {"commit": commit.strip(), "changed_files": [line[3:] for line in changed.splitlines()]}


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware() -> str:
    """The processor with its family and model, and the number of cores, in one line."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    name = fields.get("model name") or platform.processor() or platform.machine()
    if {"cpu family", "model"} <= set(fields):
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return f"{name}, {os.cpu_count()} cores"


def write_data_record(folder: Path, settings: dict[str, Any]) -> None:
    """Write the record of prepared data: the params they depend on, and the digests of their files."""
    provenance = read_json(folder / "data" / "provenance.json")
    record = {
        "params": data_params(experiment_params(settings)),
        "official_files": {file["name"]: file["sha256"] for file in provenance},
        "files": {name: digest_of(folder / "data" / name, "sha256") for name in ("images.npy", "split.csv")},
    }
    write_json(folder / PREPARED, record)


def made_by(settings: dict[str, Any], data: Path, wall_seconds: float, resumed: bool) -> dict[str, Any]:
    """The provenance of a cell, in addition to the conditions that the train stage records.

    Args:
        settings: the params that were set for it.
        data: the folder of its prepared data.
        wall_seconds: time since it was started or resumed.
        resumed: whether an interrupted run was resumed, so that the time does not include all epochs.
    """
    prepared = read_json(data / PREPARED)
    return code() | {
        "params": experiment_params(settings),
        "data": {name: prepared[name] for name in ("official_files", "files")},
        "hardware": hardware(),
        "python": platform.python_version(),
        "wall_seconds": round(wall_seconds, 1),
        "resumed": resumed,
    }


def contradiction(cell: PlannedCell) -> str:
    """The differences between the params of a finished cell and those of the current grid; empty if there are none."""
    results = read_json(ROOT / f"{cell.path}.json")
    recorded = todays(recorded_settings(results))
    try:
        made = experiment_params(cell.settings | recorded)
    except CCLNetError as error:
        return str(error)
    return ", ".join(f"{name} {made[name]}, not {value}" for name, value in cell.params.items() if made[name] != value)


def recorded_settings(results: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a finished cell; for older cells, only those that were set."""
    return results["made_by"].get("params") or results["settings"]


def check_measured(cells: Sequence[PlannedCell]) -> None:
    """Check that the finished cells of a grid were run with its params.

    Raises:
        CCLNetError: names all cells with other params.
    """
    found = [(cell, contradiction(cell)) for cell in cells if cell.done]
    lines = [f"  {cell.name}: {words}" for cell, words in found if words]
    if lines:
        raise CCLNetError(
            "\n".join(["the grid no longer fits these cells; delete their files, or set it back:", *lines])
        )
