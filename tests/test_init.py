"""The modules of version 0.1 by their old names."""

import importlib
import subprocess
import sys

import pytest

from cclnet import _MOVED as MOVED


@pytest.mark.parametrize("name", MOVED)
def test_an_old_module_gives_what_its_new_places_hold(name: str):
    old = importlib.import_module(f"cclnet.{name}")
    for place in MOVED[name]:
        module = importlib.import_module(f"cclnet.{place}")
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        public = next(name for name in own if not name.startswith("_"))
        with pytest.warns(DeprecationWarning, match=f"cclnet.{place}.{public}"):
            assert getattr(old, public) is getattr(module, public)


def test_what_an_old_module_never_had_is_an_error():
    with pytest.raises(ImportError, match="nonsense"):
        from cclnet.tables import nonsense  # noqa: F401 # pyright: ignore[reportMissingImports]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("cclnet.nonsense")


@pytest.mark.parametrize(
    "line",
    [
        "from cclnet.errors import CCLNetError",
        "from cclnet.images import decode",
        "from cclnet.metrics import evaluate, class_table",
        "from cclnet import metrics, statistics; statistics.holm",
        "import cclnet.checkpoint; cclnet.checkpoint.load_model",
    ],
)
def test_lines_of_version_0_1_run(line: str):
    subprocess.run([sys.executable, "-W", "error::SyntaxWarning", "-c", line], check=True)
