import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cclnet.experiments.revisions import files_of
from cclnet.system.errors import CCLNetError

PIPELINE = """\
stages:
  evaluate:
    cmd: "true"
    outs: [metrics/predictions.csv, data/split.csv]
"""


def call(*command: str, folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def git(*arguments: str, folder: Path) -> None:
    call("git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost", *arguments, folder=folder)


def dvc(*arguments: str, folder: Path) -> None:
    call(sys.executable, "-m", "dvc", *arguments, folder=folder)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a file of each kind, one that git keeps and two that DVC keeps; the process runs in it."""
    folder = tmp_path / "repository"
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "nobody")
        monkeypatch.setenv(f"{name}_EMAIL", "nobody@localhost")
    (folder / "metrics").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / ".gitignore").write_text("/data/\n/metrics/predictions.csv\n")
    (folder / "data" / "split.csv").write_text("split\n")
    write(folder, "first")
    git("init", "--quiet", folder=folder)
    dvc("init", "--quiet", folder=folder)
    dvc("commit", "--force", folder=folder)
    git("add", "--all", folder=folder)
    git("commit", "--quiet", "--message", "first", folder=folder)
    git("tag", "v1", folder=folder)
    monkeypatch.chdir(folder)
    return folder


def write(folder: Path, text: str) -> None:
    (folder / "metrics" / "metrics.json").write_text(text)
    (folder / "metrics" / "predictions.csv").write_text(text)


def contents(revision: str) -> list[str]:
    with files_of(revision, "metrics", "data/split.csv") as folder:
        names = ("metrics/metrics.json", "metrics/predictions.csv", "data/split.csv")
        return [(folder / name).read_text() for name in names]


def test_a_tag_an_experiment_and_the_checkout(repository: Path):
    write(repository, "second")
    dvc("exp", "save", "--name", "muggy-tuna", folder=repository)
    write(repository, "third")
    assert contents("v1") == ["first", "first", "split\n"]
    assert contents("muggy-tuna") == ["second", "second", "split\n"]
    assert contents("workspace") == ["third", "third", "split\n"]
    with pytest.raises(CCLNetError, match=r"^muggy-tina: no branch, tag, commit or experiment; dvc exp list") as caught:
        contents("muggy-tina")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "revision", ["", " ", "\n", ":/first", ":params.yaml", ":", "HEAD^{/first}", "a\nb", "\x1b[2J"]
)
def test_what_names_nothing_is_not_taken_for_the_newest_commit(repository: Path, revision: str):
    with pytest.raises(CCLNetError) as caught:
        contents(revision)
    assert str(caught.value) == (f"{revision!r} is the name of no experiment: give a branch, tag, commit or experiment")


def test_a_project_in_a_folder_of_a_larger_repository(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = tmp_path / "whole"
    project = whole / "läsion" / "project"
    shutil.copytree(repository, project, ignore=shutil.ignore_patterns(".git"))
    git("init", "--quiet", folder=whole)
    git("add", "--all", folder=whole)
    git("commit", "--quiet", "--message", "first", folder=whole)
    monkeypatch.chdir(project)
    write(project, "second")
    assert contents("HEAD") == ["first", "first", "split\n"]
    assert contents("workspace") == ["second", "second", "split\n"]


def test_outputs_that_are_not_in_the_cache(repository: Path):
    for file in (repository / ".dvc" / "cache").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(
        CCLNetError, match=r"^v1: outputs in metrics are not in DVC's cache: dvc pull .* dvc repro"
    ) as caught:
        contents("v1")
    assert "\n" not in str(caught.value)


def fake_dvc(folder: Path, script: str) -> None:
    program = folder / "dvc"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are looked for; it is empty."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


def test_no_dvc_is_said_with_what_to_install(programs: Path):
    with pytest.raises(CCLNetError, match=r"^HEAD: only DVC .* there is no dvc: pip install dvc"):
        contents("HEAD")


def test_dvc_of_the_same_environment_is_found_without_its_activation(programs: Path, monkeypatch: pytest.MonkeyPatch):
    fake_dvc(programs, 'echo "ERROR: called as $*" >&2; exit 1')
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CCLNetError, match=r"called as get \. metrics --rev=-x --out=/"):
        contents("-x")  # a name that must not be taken for an option


def test_what_else_dvc_complains_of_is_passed_on_in_one_line(programs: Path):
    complaint = "ERROR: failed to get 'metrics' from '.' - the disk is gone\n\nHaving any troubles?"
    fake_dvc(programs, f'echo "{complaint}" >&2; exit 255')
    with pytest.raises(CCLNetError) as caught:
        contents("HEAD")
    assert str(caught.value) == (
        "HEAD: dvc get cannot fetch metrics: failed to get 'metrics' from '.' - the disk is gone: "
        "run this in the top folder of the checkout, and name a revision of this pipeline"
    )


def test_without_git_there_are_no_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CCLNetError) as caught:
        contents("HEAD")
    assert str(caught.value) == (
        "HEAD: revisions are git's, and this folder is in no git repository: compare prediction files (….csv) instead"
    )


def test_the_copies_go_away(programs: Path):
    fake_dvc(programs, 'for word; do case "$word" in --out=*) echo copied > "${word#--out=}";; esac; done')
    with files_of("HEAD", "metrics", "data/split.csv") as folder:
        assert (folder / "data" / "split.csv").read_text() == "copied\n"
    assert not folder.exists()
