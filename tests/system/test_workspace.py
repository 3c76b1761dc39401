import hashlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from cclnet.system import workspace
from cclnet.system.workspace import loaded_code, run_key, state_folder, user_path

PROJECT = Path(__file__).parents[2]


class Settings(BaseModel):
    lr_ccl: float = 0.0005
    seed: int = 0


def test_state_is_in_the_checkout(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert state_folder("training") == Path(".cclnet/training")


def test_a_queued_experiment_keeps_its_state_in_the_user_s_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert state_folder("training") == tmp_path / ".cclnet" / "training"


def test_paths_of_params_are_from_the_project_wherever_dvc_runs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    copy, sub = tmp_path / ".dvc" / "tmp" / "exps" / "x", tmp_path / "sub"
    for folder in (copy, sub):
        folder.mkdir(parents=True)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert user_path("images") == Path("images")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for folder, expected in ((tmp_path, Path("images")), (sub, Path("images")), (copy, tmp_path / "images")):
        monkeypatch.chdir(folder)
        assert user_path("images") == expected
        assert user_path("/images") == Path("/images")
        assert user_path("~/images") == Path.home() / "images"
        assert user_path("~nobody of this name/images").name == "images"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A loaded module of the project whose source can be changed."""
    path = tmp_path / "made_up.py"
    path.write_text("one = 1\n")
    spec = spec_from_file_location("cclnet.made_up", path)
    assert spec
    monkeypatch.setitem(sys.modules, "cclnet.made_up", module_from_spec(spec))
    return path


def test_a_key_is_16_hexadecimal_digits_and_stays(tmp_path: Path, code: Path):
    data = tmp_path / "data.csv"
    data.write_text("a\n")
    key = run_key(Settings(), data)
    assert len(key) == 16
    assert int(key, 16) >= 0
    assert run_key(Settings(), data) == key
    moved = tmp_path / "moved.csv"
    data.rename(moved)
    assert run_key(Settings(), moved) == key


def test_a_key_changes_with_params_data_and_code(tmp_path: Path, code: Path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("a\n")
    second.write_text("b\n")
    keys = [run_key(Settings(), first, second)]
    keys.append(run_key(Settings(seed=1), first, second))
    keys.append(run_key(Settings(lr_ccl=0.001), first, second))
    keys.append(run_key(Settings(), second, first))
    keys.append(run_key(Settings(), first))
    second.write_text("c\n")
    keys.append(run_key(Settings(), first, second))
    code.write_text("one = 2\n")
    keys.append(run_key(Settings(), first, second))
    assert len(set(keys)) == len(keys)


def test_the_code_is_this_project_s_alone():
    files = loaded_code()
    assert Path(str(workspace.__file__)) in files
    assert {path.relative_to(PROJECT).parts[0] for path in files} <= {"cclnet", "stages"}


def test_the_running_stage_is_part_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stage = ModuleType("__main__")  # what python -m stages.train loads stages/train.py as
    stage.__file__ = str(tmp_path / "train.py")
    stage.__spec__ = ModuleSpec("stages.train", None)
    monkeypatch.delitem(sys.modules, "stages.train", raising=False)  # which another test may have loaded
    monkeypatch.setitem(sys.modules, "__main__", stage)
    assert tmp_path / "train.py" in loaded_code()


def test_a_key_does_not_depend_on_where_the_project_is(tmp_path: Path, code: Path):
    key = run_key(Settings())
    (tmp_path / "elsewhere").mkdir()
    sys.modules["cclnet.made_up"].__file__ = str(code.rename(tmp_path / "elsewhere" / "made_up.py"))
    assert run_key(Settings()) == key
    assert key != hashlib.sha256(Settings().model_dump_json().encode()).hexdigest()[:16]
