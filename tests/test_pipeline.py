"""The architecture itself: which module may use which, and whether dvc.yaml says what the code does."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cclnet import params
from cclnet.params import DatasetBlock, Keys

PROJECT = Path(__file__).parent.parent
PIPELINE: dict[str, Any] = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]
BLOCK = "datasets.${dataset}."

FLOORS = [
    {"errors"},
    {"files", "interruption", "isic", "pretrained", "progress", "workspace"},
    {"archives", "backbones", "ccl", "figures", "images", "metrics", "processes", "processor", "splits", "targets"},
    {"charts", "download", "model", "params", "revisions", "statistics", "tables", "transfer"},
    {"augmentation", "checks", "comparison", "folders", "objectives", "report", "sample"},
    {"batches", "checkpoint", "pictures"},
    {"engine", "export"},
    {"evaluation", "prediction"},
    {"screen"},
    {"__main__"},
]
"""The modules of cclnet from the ground up: each may import those of lower floors only. Stages stand above them all."""

FLOOR_OF = {f"cclnet.{name}": number for number, floor in enumerate(FLOORS) for name in floor}


def module_name(path: Path) -> str:
    """``cclnet.errors`` for its file, ``cclnet`` for that of the package."""
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module_name(path): path for folder in ("cclnet", "stages") for path in sorted((PROJECT / folder).glob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """All parts of a tree, without what stands there for the type checker alone."""
    yield node
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    for child in ast.iter_child_nodes(node):
        yield from executed(child)


def imports(tree: ast.AST) -> set[str]:
    """The full names of all that a module imports, inside of functions too: of modules and of what is in them."""
    names = set()
    for node in executed(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import by its full name is found by everybody"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def project_imports(tree: ast.AST) -> set[str]:
    """The modules of this project that a module imports, with the packages that they are in."""
    found = set()
    for name in imports(tree):
        parts = name.split(".")
        found |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)} & set(SOURCES)
    return found


def closure(module: str) -> set[str]:
    """A module and all modules of this project that it needs, directly or not."""
    seen, left = set(), {module, module.split(".")[0]}
    while left:
        name = left.pop()
        seen.add(name)
        left |= project_imports(TREES[name]) - seen
    return seen


def names_of(items: list[Any] | None) -> dict[str, dict[str, Any]]:
    """dvc.yaml's ``- path`` and ``- path: {options}`` alike, as path → options."""
    return {
        name: options
        for item in items or []
        for name, options in (item.items() if isinstance(item, dict) else [(item, {})])
    }


def outputs(stage: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return names_of(stage.get("outs")) | names_of(stage.get("metrics")) | names_of(stage.get("plots"))


# imports only go down


def test_every_module_stands_on_one_floor():
    assert sorted(FLOOR_OF) == sorted(name for name in SOURCES if name.startswith("cclnet."))
    assert sum(len(floor) for floor in FLOORS) == len(FLOOR_OF)


@pytest.mark.parametrize("module", sorted(FLOOR_OF))
def test_a_module_imports_lower_floors_only(module: str):
    used = project_imports(TREES[module]) - {"cclnet"}
    assert {name for name in used if FLOOR_OF.get(name, len(FLOORS)) >= FLOOR_OF[module]} == set()


def test_the_package_itself_imports_nothing_of_the_project():
    assert project_imports(TREES["cclnet"]) == set()


def test_nobody_goes_round_the_floors_through_the_package():
    allowed = {name for name in SOURCES if name.startswith("cclnet.")} | {"cclnet.__version__"}
    for module, tree in TREES.items():
        from_package = {name for name in imports(tree) if name.count(".") == 1 and name.startswith("cclnet.")}
        assert from_package <= allowed, module
        assert "cclnet" not in imports(tree), module


@pytest.mark.parametrize("module", sorted(name for name in SOURCES if name.startswith("stages")))
def test_stages_do_not_import_each_other(module: str):
    used = {name for name in project_imports(TREES[module]) if name.startswith("stages")}
    assert used == ({"stages"} if module != "stages" else set())


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_no_module_needs_dvc(module: str):
    assert "dvc" not in {name.split(".")[0] for name in imports(TREES[module])}


def test_the_mathematics_needs_torch_alone():
    for module in ("cclnet.ccl", "cclnet.targets", "cclnet.model"):
        packages = {name.split(".")[0] for name in imports(TREES[module])}
        assert packages <= {"torch", "jaxtyping", "math", "typing", "cclnet"}


@pytest.mark.parametrize("module", sorted(FLOOR_OF))
def test_only_the_edge_prints(module: str):
    prints = [node.lineno for node in calls(TREES[module]) if called(node) == "print"]
    assert prints == [] or module in {"cclnet.progress", "cclnet.errors"}


# dvc.yaml


def test_every_stage_has_its_file_and_its_model():
    assert {f"stages.{name}" for name in STAGES} == {name for name in SOURCES if name.startswith("stages.")}
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python -m stages.{name}"
        loaded = imports(TREES[f"stages.{name}"])
        assert {found for found in loaded if found.startswith("cclnet.params.")} == {
            f"cclnet.params.{model_name(name)}"
        }


def model_name(stage: str) -> str:
    return f"{stage.capitalize()}Params"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_s_deps_are_the_files_that_it_imports(name: str):
    listed = [dep for dep in STAGES[name]["deps"] if dep.endswith(".py")]
    assert listed == sorted(set(listed))
    assert set(listed) == {str(SOURCES[module].relative_to(PROJECT)) for module in closure(f"stages.{name}")}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_s_params_are_the_fields_of_its_model(name: str):
    model: type[Keys] = getattr(params, model_name(name))
    expected = [f"{BLOCK}{key}" if key in DatasetBlock.model_fields else key for key in model.model_fields]
    assert sorted(STAGES[name]["params"]) == sorted(expected)


def test_a_stage_s_data_come_from_the_stages_before_it():
    made: set[str] = set()
    left = dict(STAGES)
    while left:
        ready = [name for name, stage in left.items() if data_deps(stage) <= made]
        assert ready, (
            f"no stage makes what is missing: { {name: data_deps(stage) - made for name, stage in left.items()} }"
        )
        for name in ready:
            made |= set(outputs(left.pop(name)))


def data_deps(stage: dict[str, Any]) -> set[str]:
    return {dep for dep in stage["deps"] if dep.split("/")[0] not in ("cclnet", "stages")}


def test_the_report_depends_on_all_pages():
    pages = sorted(path.relative_to(PROJECT).as_posix() for path in (PROJECT / "cclnet" / "pages").iterdir())
    assert [dep for dep in STAGES["report"]["deps"] if dep.endswith(".html")] == pages


def test_a_file_has_one_stage_that_makes_it():
    made = [path for stage in STAGES.values() for path in outputs(stage)]
    assert sorted(made) == sorted(set(made))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_the_data_that_it_depends_on_and_makes(name: str):
    listed = data_deps(STAGES[name]) | set(outputs(STAGES[name]))
    written = {node.value for node in ast.walk(TREES[f"stages.{name}"]) if isinstance(node, ast.Constant)}
    paths = {text for text in written if isinstance(text, str) and text.startswith(("data/", "metrics/", "models/"))}
    folders = {"/".join(path.split("/")[:-1]) for path in listed}
    assert paths - folders <= listed


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_keeps_the_run_cache(name: str):
    stage = STAGES[name]
    assert not {"frozen", "always_changed", "wdir"} & set(stage)
    assert not any("://" in dep for dep in stage["deps"])
    assert "params.yaml" not in stage["deps"]
    for options in names_of(stage.get("outs")).values():
        assert options.get("cache", True)
    for options in outputs(stage).values():
        assert not options.get("persist", False)
    for options in (names_of(stage.get("metrics")) | names_of(stage.get("plots"))).values():
        assert options["cache"] is False


@pytest.mark.parametrize("name", STAGES)
def test_a_plot_says_how_it_is_drawn(name: str):
    for path, options in names_of(STAGES[name].get("plots")).items():
        if Path(path).suffix in (".csv", ".json"):
            assert {"template", "x", "y", "title"} <= set(options), path
        else:
            assert Path(path).suffix in ("", ".png", ".svg"), path


def test_further_views_are_of_plots_that_exist():
    made = {path for stage in STAGES.values() for path in names_of(stage.get("plots"))}
    for title, options in names_of(PIPELINE.get("plots")).items():
        assert {"template", "x", "y", "title"} <= set(options), title
        assert set(options["y"]) <= made, title


def test_every_template_is_there_and_in_use():
    views = [*names_of(PIPELINE.get("plots")).values()]
    views += [options for stage in STAGES.values() for options in names_of(stage.get("plots")).values()]
    used = {options["template"] for options in views if "template" in options}
    templates = {path.stem: path for path in (PROJECT / ".dvc" / "plots").glob("*.json")}
    assert used == set(templates)
    for path in templates.values():
        assert "vega-lite" in json.loads(path.read_text(encoding="utf-8"))["$schema"]


# nothing that a file could make run


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called(node: ast.Call) -> str:
    """``torch.load`` of ``torch.load(path)``."""
    return ast.unparse(node.func)


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
