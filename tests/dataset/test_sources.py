import json
from pathlib import Path

import pytest
import yaml

from cclnet.dataset.isic import GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from cclnet.dataset.sources import OUTPUTS, source_problems
from tests.project.pipeline import STAGES, outputs

OFFICIAL_NAMES = (LESION_TABLE, GROUND_TRUTH_ZIP, INPUT_ZIP)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the results of a run."""
    folder = tmp_path / "project"
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "metrics" / "figures").mkdir(parents=True)
    (folder / "models").mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in OFFICIAL_NAMES:
        (folder / name).write_text(f"the only copy of {name}")


def write_provenance(project: Path) -> None:
    """The record of a run that wrote what is in ``data/raw`` now."""
    record = [{"name": path.name, "bytes": path.stat().st_size} for path in (project / "data/raw").iterdir()]
    (project / "data/provenance.json").write_text(json.dumps(record))


def said(source: str) -> list[str]:
    return [f"{where}: {what}" for where, what in source_problems(source)]


def test_the_outputs_are_those_of_dvc_yaml():
    made = {path for stage in STAGES.values() for path in outputs(stage)}
    assert all(any(Path(path).is_relative_to(known) for known in OUTPUTS) for path in made)
    assert {known for known in OUTPUTS if known.startswith("data/")} == {
        path for path in made if path.startswith("data/")
    }


@pytest.mark.parametrize(
    "source", ["official", "drawn", "https://example.org/data", "absent", "../elsewhere", "images"]
)
def test_a_source_that_no_output_touches(project: Path, source: str):
    write_files(project.parent / "elsewhere")
    write_files(project / "images")
    assert source_problems(source) == []


@pytest.mark.parametrize("source", ["data/raw", "./data/../data/raw/", "data", ".", "..", "metrics/figures", "models"])
def test_a_source_that_the_pipeline_would_remove(project: Path, source: str):
    lines = said(source)
    assert lines
    for line in lines:
        assert line.startswith(f"source {source!r}: holds ")
        assert line.endswith(
            "which this pipeline removes and writes anew: move your files to a folder of their own, and name that"
        )


def test_images_in_a_folder_beside_the_outputs_are_safe(project: Path):
    (project / "data" / "mine" / "cat").mkdir(parents=True)
    (project / "data" / "raw" / "mine" / "cat").mkdir(parents=True)
    assert source_problems("data/mine") == []
    assert source_problems("data/raw/mine") == []


def test_links_are_followed_both_ways(project: Path):
    elsewhere = project.parent / "elsewhere"
    write_files(elsewhere)
    (project / "data" / "raw").rmdir()
    (project / "data" / "raw").symlink_to(elsewhere)
    assert any("holds data/raw/" in line for line in said(str(elsewhere)))
    (project / "data" / "raw").unlink()
    (project / "data" / "raw").mkdir()
    write_files(project / "data" / "raw")
    write_provenance(project)
    linked = project.parent / "linked"
    linked.mkdir()
    (linked / INPUT_ZIP).symlink_to(project / "data" / "raw" / INPUT_ZIP)
    assert said(str(linked)) == [
        f"source {str(linked)!r}: holds data/raw/{INPUT_ZIP}, which this pipeline removes and writes anew: "
        "move your files to a folder of their own, and name that"
    ]


@pytest.mark.parametrize("source", ["official", "drawn", "images"])
def test_files_that_somebody_put_where_outputs_belong(project: Path, source: str):
    """Whatever the source is: DVC removes them before the stage runs."""
    write_files(project / "data" / "raw")
    lines = said(source)
    assert [line.split(": ")[0] for line in lines] == [f"data/raw/{name}" for name in OFFICIAL_NAMES]
    assert all("was not written by this pipeline, which would remove it: move it to" in line for line in lines)


def test_files_that_the_pipeline_wrote_are_no_ones_own(project: Path):
    write_files(project / "data" / "raw")
    write_provenance(project)
    assert said("official") == []
    (project / "data" / "raw" / INPUT_ZIP).write_text("replaced by somebody")
    assert [line.split(": ")[0] for line in said("official")] == [f"data/raw/{INPUT_ZIP}"]


def test_files_that_dvc_checked_out_are_no_ones_own(project: Path):
    write_files(project / "data" / "raw")
    outs = [
        {"path": f"data/raw/{name}", "md5": "0", "size": (project / "data/raw" / name).stat().st_size}
        for name in OFFICIAL_NAMES
    ]
    (project / "dvc.lock").write_text(yaml.safe_dump({"stages": {"download": {"outs": outs}}}))
    assert said("drawn") == []


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '{"stages": 1}', "a: &a [*a]"])
def test_damaged_records_know_nothing(project: Path, text: str):
    write_files(project / "data" / "raw")
    (project / "data" / "provenance.json").write_text(text)
    (project / "dvc.lock").write_text(text)
    assert len(said("drawn")) == 3


def test_links_in_the_place_of_outputs_lose_nothing(project: Path):
    write_files(project.parent / "elsewhere")
    for name in OFFICIAL_NAMES:
        (project / "data" / "raw" / name).symlink_to(project.parent / "elsewhere" / name)
    assert said("drawn") == []
