"""Grids: plain files, the cells that they plan, and what is refused."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from cclnet.system.errors import CCLNetError
from studies.imbalance import report as imbalance
from studies.looks import report as looks
from studies.running.grid import base, dataset_titles, only, planned_cells, read_grid, study_names
from studies.running.settings import ROOT, experiment_params
from studies.table1 import report as table1
from studies.table2 import report as table2

LABELS = ("original", "shuffled")
HEAD = {"question": "Why?", "command": "python -m studies made_up", "cost": "nothing", "expected": "something"}


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes the grid of a study ``made_up``, the only one."""
    path = tmp_path / "studies" / "made_up" / "grid.yaml"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr("studies.running.grid.ROOT", tmp_path)

    def write(contents: dict[str, Any] | str) -> None:
        text = contents if isinstance(contents, str) else yaml.safe_dump(HEAD | contents, sort_keys=False)
        path.write_text(text, encoding="utf-8")

    base()  # of this checkout
    return write


def names(study: str) -> list[str]:
    return [cell.name for cell in planned_cells(study)]


# the committed grids


@pytest.mark.parametrize("study", study_names())
def test_a_grid_says_what_it_asks_and_how_it_is_run(study: str):
    head = read_grid(study)
    assert head.question.endswith("?")
    assert head.command.split()[:4] == ["python", "-m", "studies", study]
    if "--only" in head.command:
        wanted = [argument for argument in head.command.split() if "=" in argument]
        assert only(planned_cells(study), dict(argument.split("=") for argument in wanted))


@pytest.mark.parametrize("study", study_names())
def test_every_measured_cell_is_planned(study: str):
    measured = {path.stem for path in (ROOT / "studies" / study / "cells").iterdir()}
    assert measured <= set(names(study))


@pytest.mark.parametrize("dataset", base().datasets)
def test_every_param_is_pinned(dataset: str):
    """So that another default in ``params.yaml`` does not silently change what the committed cells are said to be."""
    pinned = base().settings | base().datasets[dataset].settings
    assert set(experiment_params({"dataset": dataset, **pinned})) - set(pinned) == {"dataset", "seed"}


def test_no_other_default_changes_a_planned_cell(monkeypatch: pytest.MonkeyPatch):
    before = [cell.params for cell in planned_cells("table2")]
    committed = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    other = committed | {"alpha_cc": 1.0}
    other["optimizer"] |= {"lr_backbone": 0.02}
    other["datasets"]["sample"] |= {"epochs": 30, "milestones": [0.1], "short_side": 48, "crop": 40, "batch_size": 16}
    monkeypatch.setattr("studies.running.settings._committed_params", lambda: other)
    assert [cell.params for cell in planned_cells("table2")] == before


def test_the_grids_of_the_paper_s_tables_are_the_products_of_their_matrices():
    rates = ("0.0001", "0.0005", "0.001", "0.005", "0.01", "0.05")  # R26
    assert tuple(table2.PAPER) == rates
    runs = product(dataset_titles(), table1.SPLITS, table1.BACKBONES, table1.METHODS, range(5))
    assert sorted(names("table1")) == sorted("-".join(map(str, run)) for run in runs)
    runs = product(dataset_titles(), rates, range(3))
    assert sorted(names("table2")) == sorted("-".join(map(str, run)) for run in runs)


def test_the_grid_of_looks_is_the_product_of_its_matrices():
    groups = [f"{head}-{kind}" for head, kind in product(("none", "weights", "logits", "sampling"), LABELS)]
    groups += ["baseline-original", "balanced_baseline-original"]
    single = ["none-random", "weights-random"]
    variants = ("fast", "mobilenet_v2")
    single += [f"{variant}-{head}-{kind}" for variant, head, kind in product(variants, ("none", "weights"), LABELS)]
    expected = [f"{group}-{seed}" for group, seed in product(groups, range(3))] + [f"{group}-0" for group in single]
    assert sorted(names("looks")) == sorted(expected)


def test_the_grid_of_imbalance_is_the_product_of_its_matrices():
    runs = [(head, "original") for head in ("none", "weights", "logits", "sampling")]
    runs += [(head, "shuffled") for head in ("none", "weights")]
    expected = [f"{head}-{step}-{kind}-{seed}" for (head, kind), step, seed in product(runs, (1, 5, 50), range(5))]
    assert sorted(names("imbalance")) == sorted(expected)


def test_the_reports_know_every_group_of_their_grids():
    heads = [*looks.HEADS, *looks.BASELINES]
    known = {f"{start}{head}-{kind}" for start, head, kind in product(looks.VARIANTS, heads, looks.LABELS)}
    assert {name.rpartition("-")[0] for name in names("looks")} <= known
    known = {f"{head}-{step}-{kind}" for head, step, kind in product(looks.HEADS, imbalance.IMBALANCES, LABELS)}
    assert {name.rpartition("-")[0] for name in names("imbalance")} <= known


@pytest.mark.parametrize("study", ["table1", "controls"])
def test_every_method_of_a_study_is_another_experiment(study: str):
    cells = only(planned_cells(study), {"dataset": "sample", "seed": "0"})
    assert len({str(cell.params) for cell in cells}) == len(cells)


def test_every_seed_of_imbalance_has_data_of_its_own():
    cells = planned_cells("imbalance")
    assert len({cell.data for cell in cells}) == 3 * 5
    for cell in cells:
        seeds = {cell.params[name] for name in ("seed", "split_seed", "sample.seed")}
        assert seeds == {int(cell.place["seed"])}


# what a grid means


def test_a_cell_has_the_settings_of_the_base_its_dataset_the_grid_and_its_values(made_up):
    loud = {"name": "loud", "settings": {"alpha_cc": 1, "head.margin": 1}}
    matrix = {"dataset": ["sample", "isic2018"], "method": ["ccl", loud], "seed": [7, 3]}
    made_up({"settings": {"computation.precision": "bfloat16", "head.margin": 0.5}, "matrix": matrix})
    cells = {cell.name: cell for cell in planned_cells("made_up")}
    assert list(cells) == [  # the first seed first
        f"{dataset}-{method}-{seed}"
        for seed in (7, 3)
        for dataset in ("sample", "isic2018")
        for method in ("ccl", "loud")
    ]
    plain, other = cells["sample-ccl-7"].params, cells["isic2018-loud-3"].params
    assert (plain["seed"], plain["computation.precision"], plain["head.margin"], plain["alpha_cc"]) == (
        7,
        "bfloat16",
        0.5,
        10,
    )
    assert (other["seed"], other["computation.precision"], other["head.margin"], other["alpha_cc"]) == (
        3,
        "bfloat16",
        1,
        1,
    )
    assert (plain["short_side"], other["short_side"]) == (36, 256)
    assert cells["sample-ccl-7"].path == Path("studies/made_up/cells/sample-ccl-7")
    assert {name: cell.departures for name, cell in cells.items() if name.endswith("-3")} == {
        "sample-ccl-3": 0,
        "sample-loud-3": 1,
        "isic2018-ccl-3": 1,
        "isic2018-loud-3": 2,
    }


def test_cells_of_equal_data_share_a_folder(made_up):
    sizes = {"name": "large", "settings": {"short_side": 40}}
    matrix = {"dataset": ["sample"], "split": ["image", "lesion", sizes], "lr_ccl": [0.1, 0.2], "seed": [0]}
    made_up({"matrix": matrix})
    folders = {cell.name.rpartition("-")[0]: cell.data for cell in planned_cells("made_up")}
    assert len(set(folders.values())) == 3
    assert folders["sample-image-0.1"] == folders["sample-image-0.2"]
    assert folders["sample-lesion-0.1"].name.startswith("sample-lesion-")


def test_only_a_part_of_a_grid():
    cells = planned_cells("table1")
    part = only(cells, {"dataset": "sample,isic2018", "split": "lesion", "method": "lsr-u5", "seed": "1"})
    expected = product(("sample", "isic2018"), ("lesion",), table1.BACKBONES, ("lsr-u5",), ("1",))
    assert sorted(cell.name for cell in part) == sorted("-".join(run) for run in expected)
    assert only(cells, {}) == cells
    fast = only(planned_cells("looks"), {"lr_ccl": "fast"})
    assert {cell.name for cell in fast} == {f"fast-{head}-{kind}-0" for head in ("none", "weights") for kind in LABELS}
    with pytest.raises(CCLNetError, match=r"^method=lsr-u2: there is no such cell in this study, only base"):
        only(cells, {"method": "ccl,lsr-u2"})
    with pytest.raises(CCLNetError, match=r"^methods=ccl: there is no such cell in this study, and the keys are data"):
        only(cells, {"methods": "ccl"})


# what is refused

SEEDS = {"seed": [0, 1]}
SAMPLE = {"settings": {"dataset": "sample"}}


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        ({"matrix": SEEDS, "stages": {}}, "stages: extra inputs are not permitted"),
        ({"matrix": SEEDS, "question": ""}, "question: string should have at least 1 character, not ''"),
        ({"matrix": SEEDS, "command": "make"}, "command: string should match pattern .*, not 'make'"),
        ({**SAMPLE, "matrix": {"seed": []}}, r"matrix.0.seed: list should have at least 1 item"),
        (
            {**SAMPLE, "matrix": {"seed": [0], "head.margin": [1]}},
            "matrix: the last key must be seed.*are seed, head.margin",
        ),
        ({**SAMPLE, "matrix": {"a": [{"name": "x"}], "seed": [0]}}, r"matrix.0.a.0.Value.settings: field required"),
        ({**SAMPLE, "matrix": [SEEDS, SEEDS]}, "matrix: two cells are called 0, 1$"),
        ({"matrix": SEEDS}, "cell 0: dataset must be one of sample, isic2018_64, isic2018$"),
        ({**SAMPLE, "matrix": {"margins": [1], "seed": [0]}}, "cell 1-0: margins: params.yaml has no such key"),
        (
            {**SAMPLE, "matrix": {"head.margin": [1, 9], "seed": [0]}},
            "cell 9-0: head.margin: input should be less than or equal",
        ),
        ({**SAMPLE, "matrix": {"method": ["../x"], "seed": [0]}}, "cell ../x-0: only letters, digits"),
    ],
)
def test_a_wrong_grid_is_refused_in_one_line_for_each_fault(made_up, contents: dict[str, Any], problem: str):
    made_up(contents)
    with pytest.raises(CCLNetError, match=r"^studies/made_up/grid.yaml cannot be used:\n") as caught:
        planned_cells("made_up")
    assert any(re.match(problem, line.removeprefix("  ")) for line in str(caught.value).splitlines()[1:])


def test_all_faults_of_a_grid_are_named_at_once_and_each_one_once(made_up):
    made_up({**SAMPLE, "matrix": {"head.margin": [9], "epochs": [0, 1], "seed": [0, 1]}})
    with pytest.raises(CCLNetError) as caught:
        planned_cells("made_up")
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == ["  cell 9-0-0", "  cell 9-1-0"]


def test_a_key_that_is_given_twice_is_refused(made_up):
    made_up("question: a?\nquestion: b?\n")
    with pytest.raises(CCLNetError, match=r"^studies/made_up/grid.yaml is not YAML: 'question' is given twice"):
        read_grid("made_up")


def test_a_study_that_does_not_exist_is_refused():
    with pytest.raises(CCLNetError, match=r"^there is no study 'look', only controls, "):
        planned_cells("look")
