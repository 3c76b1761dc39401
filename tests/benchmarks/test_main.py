"""``python -m benchmarks``: from a question to its table, the page and the figure."""

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import __main__ as program
from benchmarks.catalogue import Settings
from benchmarks.images import drawn_files
from benchmarks.measure import Comparison, Target
from benchmarks.report import read, report, row_of, table_of
from studies.running.settings import ROOT
from tests.benchmarks.builders import IN_SMALL, comparison


def test_what_is_measured_becomes_a_table_a_page_and_a_figure(tmp_path: Path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "own.jpg").write_bytes(drawn_files(1)[0])
    command = [sys.executable, "-m", "benchmarks", "departures", "--tiny", "--images", own, "--results", tmp_path]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "the augmentation is from torchvision" in finished.stdout
    table = pd.read_csv(tmp_path / "departures.csv")
    assert set(table["images"]) == {"images of one's own"}
    for row in table.to_dict("records"):
        assert row["ratio"] == pytest.approx(row["measured_median"] / row["reference_median"])
        assert "1 threads" in row["machine"]
        assert f"torch {version('torch')}" in row["versions"]
        assert 0 <= row["other_work"] <= 1

    rows = [
        row_of(comparison(target)) | {"machine": "a machine", "images": "a few", "versions": "some", "other_work": 0.25}
        for target in (Target(2.6), None)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "resize.csv", index=False)
    assert list(read(tmp_path)) == ["departures", "resize"]
    page = report(tmp_path)
    assert page == (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| a case | this: 2.5 (1 … 3) | that: 1 (0.5 … 2) | s | 2.5 (1.5 … 2.5) | ≥ 2.6 | no | 3 |" in page
    assert "| a case | this: 2.5 (1 … 3) | that: 1 (0.5 … 2) | s | 2.5 (1.5 … 2.5) | – | – | 3 |" in page
    assert "on a machine; a few; some; other programs had 25% of the machine meanwhile." in page
    assert (tmp_path / "ratios.png").stat().st_size > 5_000
    assert [line["met"] for line in table_of(read(tmp_path)["resize"])] == ["no", "–"]


@pytest.mark.parametrize(("question", "said"), [("departures", "images of one's own"), ("memory", "drawn images")])
def test_what_was_measured_on_is_said(question: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Settings] = []

    def run(settings: Settings) -> list[Comparison]:
        asked.append(settings)
        return [comparison()]

    monkeypatch.setattr(f"benchmarks.questions.{question}.run", run)
    monkeypatch.setattr(program, "prepare_processor", lambda *_: None)  # NumPy is loaded already: too late
    monkeypatch.setattr(program, "keep_freed_memory", lambda: None)
    monkeypatch.setattr("benchmarks.machine.other_work", lambda: lambda: 0.25)
    program.main([question, "--tiny", "--images", str(tmp_path), "--results", str(tmp_path)])
    assert asked == [replace(IN_SMALL, images=tmp_path)]
    assert set(pd.read_csv(tmp_path / f"{question}.csv")["images"]) == {said}
