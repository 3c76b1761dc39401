"""The fault campaign in short, and how it judges."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cclnet.system.files import read_json
from tests.campaigns import faults
from tests.campaigns.bench import Bench, Finished, Run, two_processes
from tests.campaigns.bench import Row as FaultRow
from tests.campaigns.forked import Forks
from tests.campaigns.golden import STAGES

# the campaign in short


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Its stages are forked off one process that has loaded their libraries."""
    with Forks(tmp_path_factory.mktemp("forks")) as forks:
        yield Bench(tmp_path_factory.mktemp("bench"), STAGES[:5], forks, epochs=2, milestones=[])


def test_a_run_that_meets_one_fault_after_the_other_ends_as_an_undisturbed_one(bench: Bench) -> None:
    run = bench.copy()
    assert run.run("train", "kill", "write", "images-*", "2").status == -signal.SIGKILL
    assert run.states() == []
    ended = run.run("train", "terminate", "step", "*", "10")  # in the second epoch
    assert ended.refusal_problems("^train: ended by SIGTERM; what is done is kept", 143) == []
    assert [path.name for path in run.states()] == ["images-000000000080", "images-000000000100"]
    assert run.run("train", "kill", "step", "*", "2").status == -signal.SIGKILL  # between the two optimizers
    assert run.run("train", "full", "write", "model.*", "1").refusal_problems("No space left on device") == []
    assert run.wrong_files() == []
    assert run.run("train", "kill", "write", "history.csv.*", "1").status == -signal.SIGKILL
    assert run.difference("train") == []


def test_of_two_processes_one_is_killed(bench: Bench) -> None:
    run = two_processes(bench)
    ended = run.run("train", "kill", "step", "*", "15", "1")  # late in the second epoch, so that the first is saved
    assert ended.refusal_problems("^train: a process was ended by SIGKILL; run it again") == []
    assert [path.name for path in run.states()] == ["images-000000000080"]
    ended = run.run("train")
    assert (ended.status, ended.stderr) == (0, "going on after image 80 of epoch 1\n")
    assert run.missing_files("train") == run.states() == []
    assert read_json(run.folder / "models/conditions.json")["processes"] == 2


# how the campaign judges


@pytest.mark.parametrize(
    ("status", "stderr", "survived"),
    [
        (1, "train: no space\n", True),
        (1, "going on after image 20 of epoch 2\ntrain: no space\n", True),
        (0, "train: no space\n", False),
        (1, "train: no disk\n", False),
        (1, "train: no space\ntrain: no space\n", False),
        (1, "Traceback (most recent call last): no space\n", False),
        (1, "", False),
    ],
)
def test_one_clear_line_and_the_exit_status_are_demanded(status: int, stderr: str, survived: bool) -> None:
    assert (Finished(status, stderr).refusal_problems("no space") == []) == survived


def test_files_that_no_undisturbed_run_leaves_are_found(tmp_path: Path) -> None:
    hashes = {"data/a": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "models/b": "0"}
    run = Run(tmp_path, tmp_path, hashes)
    for name in ("data/a", "models/b", "models/b.1.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a")
    assert run.wrong_files() == ["models/b is wrong", "models/b.1.partial is wrong"]


def test_the_history_may_have_some_epochs_only_until_there_is_a_model(tmp_path: Path) -> None:
    run = Run(tmp_path, tmp_path, {"metrics/history.csv": "0", "models/model.safetensors": "0"})
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "history.csv").write_text("epoch\n1\n")
    assert run.wrong_files() == []
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.safetensors").write_text("a")
    assert run.wrong_files() == ["metrics/history.csv is wrong", "models/model.safetensors is wrong"]


def test_a_row_counts_what_survived() -> None:
    row = FaultRow("kill")
    row.add("first", [], equal=True)
    row.add("second", ["other bytes"], equal=False)
    assert row.cells() == ["kill", "2", "1", "", "1/2", ""]
    assert row.failures == ["kill: second: other bytes"]


def test_a_campaign_whose_rows_were_kept_is_not_run_again_with_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def campaign(bench: None) -> list[FaultRow]:
        runs.append(bench)
        row = FaultRow("kill", remark="1.5 s")
        row.add("first", ["other bytes"], equal=False)
        return [row]

    monkeypatch.setattr(faults, "CAMPAIGNS", {"kills": campaign, "signals": campaign})
    monkeypatch.setattr(faults, "Bench", lambda folder, forks: None)
    code = faults.digest_of_code()
    faults.run_campaigns(["kills"], tmp_path)
    faults.run_campaigns(["kills", "signals"], tmp_path)
    assert len(runs) == 2
    (row,) = faults.kept_rows(tmp_path / "kills.json", code)
    assert row.cells() == ["kill", "1", "0", "", "0/1", "1.5 s"]
    assert row.failures == ["kill: first: other bytes"]
    assert faults.kept_rows(tmp_path / "kills.json", "other code") == []
