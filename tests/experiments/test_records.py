import shutil
from pathlib import Path

import pytest

from cclnet.experiments.records import Record, load_record
from cclnet.system.errors import CCLNetError

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The committed params and history, in a folder of their own."""
    (tmp_path / "metrics").mkdir()
    for name in ("params.yaml", "metrics/history.csv"):
        shutil.copy(PROJECT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_params_and_history_of_the_checkout(project: Path):
    record = load_record("workspace")
    assert (record.params["lr_ccl"], record.params["datasets"]["sample"]["epochs"]) == (0.0005, 16)
    assert record.history is not None
    assert record.history["epoch"].tolist() == [*range(1, 17)]


def test_params_of_an_older_version_are_read_too(project: Path):
    (project / "params.yaml").write_text("learning_rate: 0.1\n")
    assert load_record("workspace").params == {"learning_rate": 0.1}


def test_nothing_is_known_of_a_prediction_file():
    assert load_record("predictions.csv") == Record({}, None)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("params.yaml", "a: [", "params.yaml cannot be read"),
        ("metrics/history.csv", "epoch\n1\n", "metrics/history.csv is not what the train stage wrote"),
    ],
)
def test_a_damaged_file_is_named(project: Path, name: str, content: str, complaint: str):
    (project / name).write_text(content)
    with pytest.raises(CCLNetError) as caught:
        load_record("workspace")
    assert str(caught.value).startswith(f"workspace: {complaint}")
