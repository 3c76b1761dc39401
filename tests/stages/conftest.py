"""The pipeline in small, run once in this process, and copies of what it leaves."""

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.golden import STAGES
from tests.stages.builders import Copied, write_params

TAKES_MEMORY = "stages.train.keep_freed_memory"
"""It would change how this process, and all later tests in it, allocate memory."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages have run."""
    folder = tmp_path_factory.mktemp("pipeline")
    write_params(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        patch.setattr(TAKES_MEMORY, lambda: None)
        for stage in STAGES:
            import_module(f"stages.{stage}").main()
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copied:
    """Go to an empty folder, in which a call puts copies of some of these results, and params with some changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(TAKES_MEMORY, lambda: None)

    def copy(*results: str, block: dict[str, Any] | None = None, **changes: Any) -> Path:
        for name in results:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            if (finished / name).is_dir():
                shutil.copytree(finished / name, tmp_path / name)
            else:
                shutil.copy(finished / name, tmp_path / name)
        write_params(tmp_path, block, **changes)
        return tmp_path

    return copy
