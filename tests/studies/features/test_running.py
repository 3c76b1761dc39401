"""Missing cells are run once; the committed ones are those of the plans."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from cclnet.system.errors import CCLNetError
from cclnet.system.files import read_json
from studies.features import running
from studies.features.data import FixedFeatures
from studies.running.settings import ROOT

FOLDER = ROOT / "studies" / "features"


def test_cells_are_written_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    runs: list[dict[str, Any]] = []

    class Experiment:
        PLAN: ClassVar = {"counts-a": {"seed": 0}, "counts-b": {"seed": 1}}

        @staticmethod
        def run(settings: dict[str, Any], data: FixedFeatures) -> dict[str, Any]:
            runs.append(settings)
            return {"value": 2 * settings["seed"]}

    monkeypatch.setattr(running, "ROOT", tmp_path)
    monkeypatch.setitem(running.EXPERIMENTS, "counts", Experiment)  # pyright: ignore[reportArgumentType]
    for _ in range(2):
        running.run_missing(["counts"], None)
    assert runs == [{"seed": 0}, {"seed": 1}]
    assert [cell["results"]["value"] for _, cell in running.finished("counts")] == [0, 2]
    assert running.path_of("counts-a").is_file()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(CCLNetError, match="there is no experiment colours, only counts, sizes"):
        running.run_missing(["colours"], None)
    monkeypatch.setattr(running, "ROOT", tmp_path)
    with pytest.raises(CCLNetError, match="course, sizes: cells are missing, so name the file of features"):
        running.run_missing(["sizes", "course"], None)


def test_the_committed_cells_are_those_of_the_plans():
    plans = {cell: dict(settings) for each in running.EXPERIMENTS.values() for cell, settings in each.PLAN.items()}
    found = {path.stem: read_json(path)["settings"] for path in (FOLDER / "cells").glob("*.json")}
    assert found
    assert {cell: plans.get(cell) for cell in found} == found
