"""No module runs code out of the data that it reads."""

import ast
from pathlib import Path

import pytest

from tests.project.modules import PROJECT, SOURCES, called, calls, imports


def safe_loaders(tree: ast.AST) -> set[str]:
    derived = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]
    }
    return derived | {"yaml.SafeLoader", "yaml.CSafeLoader"}


UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
UNSAFE_METHODS = {
    "read_pickle",
    "unsafe_load",
    "unsafe_load_all",
    "full_load",
    "full_load_all",
    "load_all",
    "extractall",
}


def unsafe_loads(tree: ast.AST) -> list[str]:
    """Everything in a module that can run code out of the data that it reads."""
    found = [name for name in imports(tree) - {"pickle.UnpicklingError"} if name.split(".")[0] in UNSAFE_MODULES]
    # a loader under another name would not be seen below
    found += [name for name in imports(tree) if name in {"torch.load", "numpy.load", "yaml.load", "torch.jit.load"}]
    for node in calls(tree):
        name = called(node)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        safe = {
            "torch.load": options.get("weights_only") == "True",
            "yaml.load": options.get("Loader") in safe_loaders(tree),
            "torch.jit.load": False,
        }
        method = name.split(".")[-1]
        unsafe = name in UNSAFE_CALLS or method in UNSAFE_METHODS or not safe.get(name, True)
        if unsafe or options.get("allow_pickle", "False") != "False" or options.get("shell", "False") != "False":
            found.append(ast.unparse(node))
    return found


BESIDE = sorted(path for folder in ("benchmarks", "studies") for path in (PROJECT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", [*SOURCES.values(), *BESIDE], ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_no_module_runs_what_it_reads(path: Path):
    assert unsafe_loads(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "def load(path):\n    from pickle import loads",
        "import joblib.numpy_pickle",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "from torch import load",
        "torch.jit.load(path)",
        "yaml.load(text)",
        "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader=yaml.FullLoader)",
        "class Mine(yaml.Loader): ...\nyaml.load(text, Loader=Mine)",
        "yaml.unsafe_load(text)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "archive.extractall()",
    ],
)
def test_the_check_sees_an_unsafe_load(code: str):
    assert len(unsafe_loads(ast.parse(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "class Mine(yaml.SafeLoader): ...\nyaml.load(text, Loader=Mine)",
        "np.load(path, mmap_mode='r')",
        "model.eval()",
        "re.compile(pattern)",
    ],
)
def test_the_check_lets_a_safe_load_pass(code: str):
    assert unsafe_loads(ast.parse(code)) == []


def test_the_checks_see_what_the_type_checker_alone_does_not_run():
    code = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    from numpy import linalg"
    )
    assert imports(ast.parse(code)) == {"typing.TYPE_CHECKING", "numpy.linalg"}
