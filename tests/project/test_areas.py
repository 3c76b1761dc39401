"""The areas of the package: which may import which, how much a folder holds, and that the tests mirror them."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.project.modules import PROJECT, SOURCES, TREES, called, calls, imports, project_imports

LAYERS = [
    {"system", "targets"},
    {"ccl"},
    {"metrics", "images"},
    {"dataset", "networks"},
    {"params"},
    {"inference"},
    {"training", "experiments"},
    {"views"},
    {"cli"},
    {"__main__"},
]
"""The areas and single modules of cclnet from the ground up: each may import lower layers and itself, nothing else."""

LAYER_OF = {area: number for number, layer in enumerate(LAYERS) for area in layer}
MODULES = sorted(name for name in SOURCES if name.startswith("cclnet."))
PACKAGES = sorted(path for path in (PROJECT / "cclnet").iterdir() if (path / "__init__.py").is_file())
MOST_ENTRIES = 10
MOST_FILES_BESIDE_THE_AREAS = 6
TESTED_ELSEWHERE = {"cclnet.__main__": "test_program runs it, as does every test of a command"}
"""Modules without a file of tests of their name, and why."""
OF_SEVERAL_MODULES = {
    "dataset/test_layout_chain.py": "each layout of a dataset, from its check to a prediction",
    "metrics/test_repetitions.py": "differences over repetitions: resampling and likeness",
    "stages/test_start.py": "the processes of all stages, and the package's start",
    "test_ccl_loss.py": "CCLLoss, which is of cclnet.ccl, in loops of all kinds",
    "test_init.py": "the package itself",
    "views/test_plots_page.py": "the templates and the page of DVC's plots, which are no module",
}
"""Files of tests beside those of the modules, and what they test."""


def area_of(module: str) -> str:
    """``system`` of ``cclnet.system.errors``, ``ccl`` of ``cclnet.ccl``."""
    return module.split(".")[1]


def upward_imports(module: str, tree: ast.AST) -> set[str]:
    """What a module imports from its own layer, other than its own area, or from one above."""
    used = {name for name in project_imports(tree) if name.startswith("cclnet.")}
    layer = LAYER_OF[area_of(module)]
    return {name for name in used if area_of(name) != area_of(module) and LAYER_OF[area_of(name)] >= layer}


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("__init__.py", "__pycache__"))


def test_every_module_has_a_layer():
    assert {area_of(name) for name in MODULES} == set(LAYER_OF)
    assert sum(len(layer) for layer in LAYERS) == len(LAYER_OF)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_lower_layers_only(module: str):
    assert upward_imports(module, TREES[module]) == set()


@pytest.mark.parametrize(
    "code",
    [
        "from cclnet.training.trainer import Trainer",
        "from cclnet import training",
        "def later():\n    import cclnet.cli.program",
        "from cclnet.dataset.tables import read_table",
    ],
)
def test_an_import_that_goes_up_is_seen(code: str):
    assert upward_imports("cclnet.networks.model", ast.parse(code))


def test_no_modules_import_each_other_in_a_circle():
    files = {name for name in MODULES if SOURCES[name].name != "__init__.py"}
    graph = {name: project_imports(TREES[name]) & files - {name} for name in files}
    assert set(TopologicalSorter(graph).static_order()) == files


def test_the_package_itself_imports_nothing_of_the_project():
    assert project_imports(TREES["cclnet"]) == set()


def test_modules_import_from_modules_and_not_from_the_package():
    allowed = set(SOURCES) | {"cclnet.__version__"}
    for module, tree in TREES.items():
        from_package = {name for name in imports(tree) if name.count(".") == 1 and name.startswith("cclnet.")}
        assert from_package <= allowed, module
        assert "cclnet" not in imports(tree), module


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
def test_an_area_says_what_it_is_for_and_holds_ten_entries_at_most(folder: Path):
    assert ast.get_docstring(TREES[f"cclnet.{folder.name}"])
    assert 0 < len(entries(folder)) <= MOST_ENTRIES


def test_few_files_lie_beside_the_areas():
    files = [path for path in (PROJECT / "cclnet").iterdir() if path.is_file()]
    assert len(files) <= MOST_FILES_BESIDE_THE_AREAS
    assert len(PACKAGES) <= MOST_ENTRIES


@pytest.mark.parametrize("module", sorted(name for name in SOURCES if name.startswith("stages")))
def test_stages_do_not_import_each_other(module: str):
    used = {name for name in project_imports(TREES[module]) if name.startswith("stages")}
    assert used == ({"stages"} if module != "stages" else set())


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_no_module_needs_dvc(module: str):
    assert "dvc" not in {name.split(".")[0] for name in imports(TREES[module])}


def test_the_mathematics_needs_torch_alone():
    for module in ("cclnet.ccl", "cclnet.targets", "cclnet.networks.model"):
        packages = {name.split(".")[0] for name in imports(TREES[module])}
        assert packages <= {"torch", "jaxtyping", "math", "typing", "cclnet"}


@pytest.mark.parametrize("module", MODULES)
def test_only_progress_and_streams_print(module: str):
    prints = [node.lineno for node in calls(TREES[module]) if called(node) == "print"]
    assert prints == [] or module in {"cclnet.system.progress", "cclnet.system.streams"}


def test_what_tests_share_lies_in_builders_and_not_in_tests():
    files = sorted((PROJECT / "tests").rglob("*.py"))
    assert len(files) > 50
    imported = {(path.name, name) for path in files for name in imports(ast.parse(path.read_text(encoding="utf-8")))}
    assert {(file, name) for file, name in imported if re.match(r"tests\..*\btest_\w+\.", name)} == set()


TESTS = PROJECT / "tests"


def file_of_tests(module: str) -> Path:
    """``tests/system/test_errors.py`` of ``cclnet.system.errors``, ``tests/stages/test_plot.py`` of ``stages.plot``."""
    *folders, name = module.removeprefix("cclnet.").split(".")
    return TESTS.joinpath(*folders, f"test_{name}.py")


MIRRORED = {name: file_of_tests(name) for name, path in SOURCES.items() if path.name != "__init__.py"}


@pytest.mark.parametrize("module", sorted(MIRRORED))
def test_a_module_has_tests_in_the_file_of_its_name(module: str):
    file = MIRRORED[module]
    assert file.is_file() != (module in TESTED_ELSEWHERE), file
    if file.is_file():
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        assert any(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in nodes)


def test_a_file_of_tests_has_the_name_of_a_module():
    folders = {file.parent for file in MIRRORED.values()}
    others = {file for folder in folders for file in folder.glob("test_*.py")} - set(MIRRORED.values())
    assert {file.relative_to(TESTS).as_posix() for file in others} == set(OF_SEVERAL_MODULES)
    assert set(MIRRORED) >= set(TESTED_ELSEWHERE)
