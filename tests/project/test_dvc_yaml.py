"""dvc.yaml says what the code does: dependencies, params, outputs and plots of every stage."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from cclnet import params
from cclnet.params import DatasetBlock, Keys
from tests.project.modules import PROJECT, SOURCES, TREES, closure, holds_code, imports
from tests.project.pipeline import PIPELINE, STAGES, names_of, outputs

BLOCK = "datasets.${dataset}."
EVERYTHING = {"params.yaml": None}
CHECK = "params"
"""The first stage: it reads the whole of params.yaml, and its output never changes."""


def test_every_stage_has_its_file_and_its_model():
    assert {f"stages.{name}" for name in STAGES} == {name for name in SOURCES if name.startswith("stages.")}
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python -m stages.{name}"
        loaded = imports(TREES[f"stages.{name}"])
        models = {"Params", model_name(name)} if name != CHECK else {"Params"}
        assert {found for found in loaded if found.startswith("cclnet.params.")} == {
            f"cclnet.params.{model}" for model in models
        }


def model_name(stage: str) -> str:
    return f"{stage.capitalize()}Params"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_s_deps_are_the_files_that_it_imports(name: str):
    listed = code_deps(STAGES[name])
    assert listed == sorted(set(listed))
    files = [path for dep in listed for path in files_of(dep)]
    assert sorted(files) == sorted({path_of(module) for module in closure(f"stages.{name}") if holds_code(module)})


def code_deps(stage: dict[str, Any]) -> list[str]:
    return [dep for dep in stage["deps"] if dep.split("/")[0] in ("cclnet", "stages") and "/pages/" not in dep]


def path_of(module: str) -> str:
    return SOURCES[module].relative_to(PROJECT).as_posix()


def files_of(dep: str) -> list[str]:
    """A file itself; all modules of a folder, which a stage may name only if it uses every one of them.

    A file that is only a docstring, as the ``__init__`` of most areas, changes no result and counts for nothing.
    """
    if (PROJECT / dep).is_file():
        return [dep]
    return [path for module in SOURCES if holds_code(module) and (path := path_of(module)).startswith(f"{dep}/")]


def test_a_file_that_is_only_a_docstring_is_told_from_code():
    assert holds_code("cclnet")
    assert holds_code("stages")
    assert not holds_code("cclnet.networks")


def test_the_lock_records_the_present_code():
    """After a change of the code, `dvc repro` (or `dvc commit`, if no result can change) writes the lock anew."""
    with Repo(str(PROJECT)) as repo:
        code = [dep for stage in repo.index.stages for dep in stage.deps if str(dep).startswith(("cclnet", "stages"))]
        assert {str(dep): dep.status() for dep in code if dep.status()} == {}
    assert {"stages/train.py", "cclnet/metrics"} <= {str(dep) for dep in code}


def test_what_the_network_is_made_of_concerns_no_stage_before_training():
    for name in ("download", "split", "resize", "plot"):
        used = {module.split(".")[1] for module in closure(f"stages.{name}") if module.startswith("cclnet.")}
        assert not used & {"networks", "training", "inference", "ccl", "targets"}, name


@pytest.mark.parametrize("name", [name for name in STAGES if name != CHECK])
def test_a_stage_s_params_are_the_fields_of_its_model(name: str):
    model: type[Keys] = getattr(params, model_name(name))
    expected = [f"{BLOCK}{key}" if key in DatasetBlock.model_fields else key for key in model.model_fields]
    assert sorted(STAGES[name]["params"]) == sorted(expected)


def test_every_stage_comes_after_the_check_of_the_params():
    assert STAGES[CHECK]["params"] == [EVERYTHING]
    assert data_deps(STAGES[CHECK]) == set()
    made = set(outputs(STAGES[CHECK]))
    for name in [name for name in STAGES if name != CHECK]:
        assert data_deps(STAGES[name]) & made, name
        made |= set(outputs(STAGES[name]))


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
    pages = sorted(path.relative_to(PROJECT).as_posix() for path in (PROJECT / "cclnet" / "views" / "pages").iterdir())
    of_commands = {"cclnet/views/pages/compare.html", "cclnet/views/pages/similar.html"}
    assert [dep for dep in STAGES["report"]["deps"] if "/pages/" in dep] == [
        it for it in pages if it not in of_commands
    ]


def test_a_file_has_one_stage_that_makes_it():
    made = [path for stage in STAGES.values() for path in outputs(stage)]
    assert sorted(made) == sorted(set(made))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_the_data_that_it_depends_on_and_makes(name: str):
    listed = data_deps(STAGES[name]) | set(outputs(STAGES[name]))
    written = {node.value for node in ast.walk(TREES[f"stages.{name}"]) if isinstance(node, ast.Constant)}
    paths = {text for text in written if isinstance(text, str) and text.startswith(("data/", "metrics/", "models/"))}
    folders = {"/".join(path.split("/")[:-1]) for other in STAGES.values() for path in outputs(other)}
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


def test_the_model_is_an_artifact():
    ((name, artifact),) = PIPELINE["artifacts"].items()
    assert (name, artifact["type"]) == ("cclnet", "model")
    assert artifact["path"] in outputs(STAGES["train"])
