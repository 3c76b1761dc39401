import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from cclnet import params
from cclnet.networks.catalogue import name_problems
from cclnet.params import (
    DownloadParams,
    EvaluateParams,
    Keys,
    Params,
    PlotParams,
    ResizeParams,
    SplitParams,
    TrainParams,
)
from cclnet.system.errors import ParamsError

PROJECT = Path(__file__).parent.parent
COMMITTED = (PROJECT / "params.yaml").read_text(encoding="utf-8")
VALUES: dict[str, Any] = yaml.safe_load(COMMITTED) | {"dataset": "sample"}
MISSING = object()

STAGES: list[type[Keys]] = [DownloadParams, SplitParams, ResizeParams, TrainParams, EvaluateParams, PlotParams]


def changed(**values: Any) -> dict[str, Any]:
    """The committed values with some of them replaced; ``__`` stands for the dot of a path, MISSING removes a key."""
    result = copy.deepcopy(VALUES)
    for path, value in values.items():
        *parents, key = path.split("__")
        block = result
        for parent in parents:
            block = block[parent]
        if value is MISSING:
            del block[key]
        else:
            block[key] = value
    return result


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Any], Params]:
    """Load a params.yaml of these values, or of this text."""

    def load(values: Any) -> Params:
        path = tmp_path / "params.yaml"
        path.write_text(
            values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False), encoding="utf-8"
        )
        return Params.load(path, name_problems)

    return load


def test_the_committed_file_is_accepted(load: Callable[[Any], Params]):
    assert load(COMMITTED).model_dump() == yaml.safe_load(COMMITTED)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        # names that do not exist
        ("lr_cll", 0.1, "lr_cll: unknown key; did you mean lr_ccl?"),
        (
            "datasets__sample__threads",
            1025,
            "datasets.sample.threads: input should be less than or equal to 1024, not 1025",
        ),
        ("qqqq", 1, "qqqq: unknown key"),
        (
            "datasets__sample__source",
            "a\0b",
            r"datasets.sample.source: should have no control characters, not 'a\x00b'",
        ),
        ("weights", "a\n.pt", r"weights: should have no control characters, not 'a\n.pt'"),
        ("datasets__sample__short_sides", 8, "datasets.sample.short_sides: unknown key; did you mean short_side?"),
        ("sample__imags", 8, "sample.imags: unknown key; did you mean images?"),
        ("method", "cll", "method: 'cll' is not 'baseline', 'lsr', 'ccl', "),
        ("soft_label_source", "heads", "soft_label_source: should be head, class_means or a .csv file, not 'heads'"),
        ("soft_label_source", "", "soft_label_source: string should have at least 1 character, not ''"),
        ("training_labels", "shufled", "training_labels: 'shufled' is not 'original' or 'shuffled'; did you mean shuf"),
        ("peers__margin_smoothing__margins", 1, "peers.margin_smoothing.margins: unknown key; did you mean margin?"),
        ("peers__margin_smooth", {}, "peers.margin_smooth: unknown key; did you mean margin_smoothing?"),
        ("peers__virtual_teacher__correct", 1, "peers.virtual_teacher.correct: input should be less than 1, not 1"),
        ("split", "lesions", "split: 'lesions' is not 'image' or 'lesion'; did you mean lesion?"),
        ("head__freeze_at", "Best", "head.freeze_at: 'Best' is not 'best', 'current' or 'never'; did you mean best?"),
        (
            "computation__precision",
            "float16",
            "computation.precision: 'float16' is not 'float32' or 'bfloat16'; did you mean bfloat16?",
        ),
        ("head__freezes_at", "best", "head.freezes_at: unknown key; did you mean freeze_at?"),
        ("optimizer__momentun", 0.9, "optimizer.momentun: unknown key; did you mean momentum?"),
        ("jitter__form", "hsv", "jitter.form: 'hsv' is not 'affine' or 'torchvision'"),
        ("jitter__hues", 0.1, "jitter.hues: unknown key; did you mean hue?"),
        ("label_smoothing__lsr_epsilon", 0.1, "label_smoothing.lsr_epsilon: unknown key; did you mean epsilon?"),
        ("optimiser", {}, "optimiser: unknown key; did you mean optimizer?"),
        # names of before the groups
        ("lsr_epsilon", 0.1, "lsr_epsilon: unknown key; it is now label_smoothing.epsilon"),
        ("lsr_prior", "uniform", "lsr_prior: unknown key; it is now label_smoothing.prior"),
        ("margin", 2, "margin: unknown key; it is now head.margin"),
        ("freeze_at", "best", "freeze_at: unknown key; it is now head.freeze_at"),
        ("lr_backbone", 0.1, "lr_backbone: unknown key; it is now optimizer.lr_backbone"),
        ("loss_factor", 1, "loss_factor: unknown key; it is now optimizer.loss_factor"),
        ("hue", 0.1, "hue: unknown key; it is now jitter.hue"),
        ("compile", False, "compile: unknown key; it is now computation.compile"),
        ("lr_backbon", 0.1, "lr_backbon: unknown key; did you mean optimizer.lr_backbone?"),
        ("datasets__sample__processor", "gpu", "datasets.sample.processor: 'gpu' is not 'portable' or 'native'"),
        (
            "dataset",
            "sampel",
            "dataset: 'sampel' is not among sample, isic2018, isic2018_64, folder; did you mean sample?",
        ),
        ("device", "gpu", "device: string should match pattern '^(auto|cpu|cuda(:\\d{1,2})?)$', not 'gpu'"),
        ("device", "cuda:256", "device: string should match pattern '^(auto|cpu|cuda(:\\d{1,2})?)$', not 'cuda:256'"),
        ("processes", 0, "processes: should be auto or a number from 1, not 0"),
        ("processes", True, "processes: should be auto or a number from 1, not True"),
        ("processes", "two", "processes: should be auto or a number from 1, not 'two'"),
        # absent
        ("lr_ccl", MISSING, "lr_ccl: missing"),
        ("datasets__sample__crop", MISSING, "datasets.sample.crop: missing"),
        ("sample", MISSING, "sample: missing"),
        # of the wrong type
        ("lr_ccl", "fast", "lr_ccl: input should be a valid number, unable to parse string as a number, not 'fast'"),
        ("lr_ccl", None, "lr_ccl: input should be a valid number, not None"),
        ("lr_ccl", [0.1, 0.2], "lr_ccl: input should be a valid number, not [0.1, 0.2]"),
        ("lr_ccl", True, "lr_ccl: should be a number, not True"),
        ("seed", False, "seed: should be a number, not False"),
        ("seed", 0.5, "seed: input should be a valid integer, got a number with a fractional part, not 0.5"),
        ("datasets__sample__threads", True, "datasets.sample.threads: should be a number, not True"),
        ("backbone", 18, "backbone: input should be a valid string, not 18"),
        ("weights", 5, "weights: input should be a valid string, not 5"),
        ("dataset", None, "dataset: input should be a valid string, not None"),
        ("datasets", None, "datasets: should be a group of keys, not None"),
        ("datasets__sample__milestones", 18, "datasets.sample.milestones: input should be a valid list, not 18"),
        ("datasets__sample__milestones", [True], "datasets.sample.milestones.0: should be a number, not True"),
        ("head", None, "head: should be a group of keys, not None"),
        ("datasets__sample__head_balance", False, "datasets.sample.head_balance: False is not 'none', 'weights', "),
        # out of range
        ("datasets__sample__lr_ccl_factor", 0, "datasets.sample.lr_ccl_factor: input should be greater than 0, not 0"),
        ("lr_ccl", 0, "lr_ccl: input should be greater than 0, not 0"),
        ("lr_ccl", -0.1, "lr_ccl: input should be greater than 0, not -0.1"),
        ("optimizer__lr_backbone", math.nan, "optimizer.lr_backbone: input should be a finite number, not nan"),
        ("optimizer__lr_backbone", math.inf, "optimizer.lr_backbone: input should be a finite number, not inf"),
        ("optimizer__lr_backbone", "nan", "optimizer.lr_backbone: input should be a finite number, not 'nan'"),
        ("alpha_cc", -1, "alpha_cc: input should be greater than or equal to 0, not -1"),
        ("head__margin", 4.5, "head.margin: input should be less than or equal to 4, not 4.5"),
        ("optimizer__momentum", 1, "optimizer.momentum: input should be less than 1, not 1"),
        ("label_smoothing__epsilon", 1.1, "label_smoothing.epsilon: input should be less than or equal to 1, not 1.1"),
        ("jitter__hue", 0.6, "jitter.hue: input should be less than or equal to 0.5, not 0.6"),
        ("validation_fraction", 1, "validation_fraction: input should be less than 1, not 1"),
        ("seed", -1, "seed: input should be greater than or equal to 0, not -1"),
        ("seed", 2**32, "seed: input should be less than 4294967296, not 4294967296"),
        ("datasets__isic2018__epochs", 0, "datasets.isic2018.epochs: input should be greater than 0, not 0"),
        (
            "datasets__sample__milestones",
            [0.7, 11],
            "datasets.sample.milestones.1: should be a fraction of the run between 0 and 1, such as 0.7, not 11",
        ),
        ("datasets__sample__milestones", [0], "datasets.sample.milestones.0: should be a fraction of the run"),
        ("datasets__sample__milestones", [1.0], "datasets.sample.milestones.0: should be a fraction of the run"),
        ("datasets__sample__milestones", [math.nan], "datasets.sample.milestones.0: input should be a finite number"),
        (
            "datasets__sample__lr_backbone_factor",
            0,
            "datasets.sample.lr_backbone_factor: input should be greater than 0, not 0",
        ),
        ("datasets__sample__batch_size", 1, "datasets.sample.batch_size: input should be greater than or equal to 2"),
        ("datasets__sample__source", "", "datasets.sample.source: string should have at least 1 character, not ''"),
        ("sample__images", 5, "sample.images: input should be greater than or equal to 100, not 5"),
    ],
)
def test_one_wrong_value_gives_one_line(load: Callable[[Any], Params], path: str, value: Any, problem: str):
    with pytest.raises(ParamsError) as caught:
        load(changed(**{path: value}))
    heading, *problems = str(caught.value).splitlines()
    assert heading.endswith("params.yaml cannot be used:")
    assert len(problems) == 1
    assert problems[0].strip().startswith(problem)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"crop": 49, "short_side": 48}, "crop 49 does not fit into images with a short side of 48"),
        ({"milestones": [0.9, 0.6]}, "milestones [0.9, 0.6] must rise"),
        ({"milestones": [0.6, 0.6]}, "milestones [0.6, 0.6] must rise"),
    ],
)
def test_keys_of_a_block_that_do_not_fit_together(load: Callable[[Any], Params], values: dict, problem: str):
    with pytest.raises(ParamsError, match="cannot be used") as caught:
        load(changed(**{f"datasets__isic2018_64__{key}": value for key, value in values.items()}))
    assert f"datasets.isic2018_64: {problem}" in str(caught.value)


def test_the_edges_of_a_block_fit(load: Callable[[Any], Params]):
    block = {"crop": 48, "short_side": 48, "milestones": [0.001, 0.999], "epochs": 30}
    load(changed(**{f"datasets__sample__{key}": value for key, value in block.items()}))
    load(changed(datasets__sample__milestones=[]))


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 16, 32, 50, 200])
def test_milestones_are_the_nearest_epochs_that_have_an_effect(load: Callable[[Any], Params], epochs: int):
    parts = [0.01, 0.1, 0.29, 0.3, 0.5, 0.7, 0.875, 0.9, 0.999]
    block = load(changed(datasets__sample__milestones=parts, datasets__sample__epochs=epochs)).datasets["sample"]
    nearest = [int((Decimal(str(part)) * epochs).quantize(Decimal(1), ROUND_HALF_UP)) for part in parts]
    assert block.milestone_epochs == [epoch for epoch in nearest if epoch not in (0, epochs)]


@pytest.mark.parametrize(
    ("dataset", "epochs", "milestones"),
    [("sample", 16, [11, 14]), ("isic2018", 200, [100, 150]), ("isic2018_64", 16, [11, 14]), ("folder", 32, [22, 28])],
)
def test_the_committed_milestones(load: Callable[[Any], Params], dataset: str, epochs: int, milestones: list[int]):
    block = load(COMMITTED).datasets[dataset]
    assert (block.epochs, block.milestone_epochs) == (epochs, milestones)


@pytest.mark.parametrize("dataset", ["sample", "isic2018", "isic2018_64", "folder"])
def test_one_epoch_is_accepted_as_it_is(load: Callable[[Any], Params], dataset: str):
    assert load(changed(**{f"datasets__{dataset}__epochs": 1})).datasets[dataset].milestone_epochs == []


def test_a_file_of_before_the_groups_is_told_every_new_name(load: Callable[[Any], Params]):
    groups = ("head", "label_smoothing", "optimizer", "jitter", "computation")
    flat = {key: value for key, value in VALUES.items() if key not in groups}
    old = {key: f"{name}.{key}" for name in groups for key in VALUES[name]}
    for key in VALUES["label_smoothing"]:
        old[f"lsr_{key}"] = old.pop(key)
    with pytest.raises(ParamsError) as caught:
        load(flat | dict.fromkeys(old, 0))
    _, *problems = (line.strip() for line in str(caught.value).splitlines())
    expected = [f"{group}: missing" for group in groups]
    assert sorted(problems) == sorted(expected + [f"{key}: unknown key; it is now {new}" for key, new in old.items()])


def test_every_mistake_is_in_the_report(load: Callable[[Any], Params]):
    mistakes = {
        "lr_ccl": -1,
        "lr_cll": 0.1,
        "optimizer__momentum": True,
        "method": "cll",
        "backbone": "resnet81",
        "datasets__sample__crop": 49,
        "datasets__sample__short_side": 48,
        "datasets__isic2018__milestones": [0.75, 0.5],
        "datasets__isic2018_64__treads": 2,
        "sample__images": "many",
        "optimizer__weight_decay": MISSING,
    }
    with pytest.raises(ParamsError) as caught:
        load(changed(**mistakes))
    _, *problems = str(caught.value).splitlines()
    named = sorted(problem.split(":")[0].strip() for problem in problems)
    assert named == sorted(
        [
            "lr_ccl",
            "lr_cll",
            "optimizer.momentum",
            "method",
            "backbone",
            "datasets.sample",
            "datasets.isic2018",
            "datasets.isic2018_64.treads",
            "sample.images",
            "optimizer.weight_decay",
        ]
    )


def test_mistakes_of_one_block_come_together(load: Callable[[Any], Params]):
    with pytest.raises(ParamsError) as caught:
        load(changed(datasets__sample__crop=10**6, datasets__sample__milestones=[0.2, 0.1]))
    assert "does not fit" in str(caught.value)
    assert "must rise" in str(caught.value)


@pytest.mark.parametrize("other", [{"lr_ccl": -1}, {"backbone": "resnet81"}])
def test_an_unknown_dataset_does_not_hide_other_mistakes(load: Callable[[Any], Params], other: dict[str, Any]):
    with pytest.raises(ParamsError) as caught:
        load(changed(dataset="sampel", **other))
    assert "dataset: 'sampel'" in str(caught.value)
    assert f"{next(iter(other))}:" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file: should be a group of keys, not "),
        ("# nothing but a comment\n", "the file: should be a group of keys, not "),
        ("- a\n- b\n", "the file: should be a group of keys, not "),
        (COMMITTED + "\nseed: 1\n", "cannot be read: 'seed' is given twice"),
        (COMMITTED + "\n  sample: {}\n", "cannot be read: 'sample' is given twice"),
        ("seed: 0\n\tmethod: ccl\n", "cannot be read: .*found character '\\\\t' that cannot start any token"),
        ("seed: [0\n", "cannot be read: "),
        ("seed: {{a: 1}: 2}\n", "cannot be read: "),
        ("seed: 2024-13-45\n", "cannot be read: "),
        ("seed: " + "[" * 10_000, "cannot be read: groups lie too deep in each other"),
        ("seed: " + "9" * 5_000, "cannot be read: Exceeds the limit"),
        ("1: 2\n", "1: keys should be strings, not 1"),
        ("seed: 010\n", "cannot be read: '010' has two meanings, in YAML 1.1 and 1.2: write a plain number"),
        ("seed: 1_0\n", "cannot be read: '1_0' has two meanings"),
        ("seed: 1:30\n", "cannot be read: '1:30' has two meanings"),
        ("lr_ccl: 1:30.5\n", "cannot be read: '1:30.5' has two meanings"),
        ("seed: 0b11\n", "cannot be read: '0b11' has two meanings"),
        ("compile: yes\n", "cannot be read: 'yes' has two meanings"),
        ("seed: !!python/object/apply:os.getcwd []\n", "cannot be read: could not determine a constructor"),
        ("\0", "cannot be read: "),
    ],
)
def test_a_file_that_is_no_table_of_keys(load: Callable[[Any], Params], text: str, problem: str):
    with pytest.raises(ParamsError, match=problem):
        load(text)


def test_a_file_that_repeats_itself_without_end(load: Callable[[Any], Params]):
    levels = ["a0: &a0 [0, 0, 0, 0, 0, 0, 0, 0, 0]"]
    levels += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 30)]
    with pytest.raises(ParamsError) as caught:
        load(COMMITTED + "\n".join([*levels, "head: *a29"]).replace("head:", "lr_cll:"))
    assert "lr_cll: unknown key; did you mean lr_ccl?" in str(caught.value)
    with pytest.raises(ParamsError) as caught:
        load("\n".join([*levels, "head: *a29", "seed: *a29", "method: *a29"]))
    longest = max(len(line) for line in str(caught.value).splitlines())
    assert "head: should be a group of keys, not [" in str(caught.value)
    assert "method: [" in str(caught.value)
    assert longest < 300


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match=r"params.yaml is not a regular file"):
        Params.load(tmp_path / "params.yaml")


def test_bytes_that_are_no_text(tmp_path: Path):
    (tmp_path / "params.yaml").write_bytes(b"seed: \xff\xfe")
    with pytest.raises(ParamsError, match=r"cannot be read: .*can't decode"):
        Params.load(tmp_path / "params.yaml")


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(ParamsError, match=r"there is no .*params\.yaml here; run from the folder that holds it"):
        Params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(("written", "meant"), [("1e-05", 0.00001), ("1", 1.0), ("0.5", 0.5), ("5.0e-4", 0.0005)])
def test_a_rate_is_a_number_however_dvc_writes_it(load: Callable[[Any], Params], written: str, meant: float):
    rate = load(yaml.safe_dump(changed(lr_ccl=MISSING)) + f"\nlr_ccl: {written}\n").lr_ccl
    assert type(rate) is float
    assert rate == meant


def test_backbones_and_weights_are_torchvisions(load: Callable[[Any], Params]):
    for backbone in ("resnet18", "mobilenet_v2", "efficientnet_b0", "convnext_tiny"):
        load(changed(backbone=backbone, weights="DEFAULT"))
    with pytest.raises(ParamsError, match=r"backbone: torchvision has no 'resnet81'; did you mean resnet18\?"):
        load(changed(backbone="resnet81"))
    with pytest.raises(ParamsError, match="weights: resnet18 has no 'IMAGENET1K_V3', only IMAGENET1K_V1, DEFAULT;"):
        load(changed(weights="IMAGENET1K_V3"))


def test_backbones_and_weights_are_timms(load: Callable[[Any], Params], monkeypatch: pytest.MonkeyPatch):
    for backbone in ("timm/convnext_atto", "timm/convnext_atto.d2_in1k"):
        load(changed(backbone=backbone, weights="DEFAULT"))
    with pytest.raises(
        ParamsError, match=r"backbone: timm has no 'timm/convnext_ato'; did you mean timm/convnext_atto"
    ):
        load(changed(backbone="timm/convnext_ato"))
    with pytest.raises(ParamsError, match="weights: timm/coatnet_0_224 has no 'DEFAULT', only null"):
        load(changed(backbone="timm/coatnet_0_224", weights="DEFAULT"))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ParamsError, match="backbone: timm/test_vit needs timm, which is not installed: pip install timm"
    ):
        load(changed(backbone="timm/test_vit"))
    with pytest.raises(ParamsError, match="backbone: timm/test_vit needs timm") as caught:
        load(changed(backbone="timm/test_vit", lr_ccl=-1))
    assert "lr_ccl: input should be greater than 0" in str(caught.value)


@pytest.mark.parametrize("dataset", ["sample", "isic2018", "isic2018_64"])
@pytest.mark.parametrize("model", STAGES, ids=lambda model: model.__name__)
def test_a_stage_sees_the_chosen_block(load: Callable[[Any], Params], model: type[Keys], dataset: str):
    stage = load(changed(dataset=dataset)).stage(model).model_dump()
    block = VALUES["datasets"][dataset]
    assert stage == {name: block[name] if name in block else changed(dataset=dataset)[name] for name in stage}


def test_every_key_but_where_it_runs_belongs_to_a_stage():
    used = {name for model in STAGES for name in model.model_fields}
    assert set(Params.model_fields) | set(params.DatasetBlock.model_fields) == used | {
        "device",
        "processes",
        "datasets",
    }


@pytest.mark.parametrize("processes", [1, 8, "auto"])
def test_processes_are_counted_or_as_many_as_gpus(load: Callable[[Any], Params], processes: int | str):
    assert load(changed(processes=processes)).processes == processes


def test_params_cannot_be_changed_afterwards(load: Callable[[Any], Params]):
    loaded = load(VALUES)
    with pytest.raises(ValueError, match="frozen"):
        loaded.seed = 1
    with pytest.raises(ValueError, match="frozen"):
        loaded.head.margin = 1


def test_names_are_looked_up_only_where_it_is_asked_for(tmp_path: Path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed(backbone="resnet81")), encoding="utf-8")
    assert Params.load(path).backbone == "resnet81"


def test_reading_the_params_loads_neither_numpy_nor_torch():
    code = (
        "import sys; from cclnet.params import Params; from cclnet.networks.catalogue import name_problems; "
        "Params.load(name_problems=name_problems); print({'numpy', 'torch'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "changes",
    [
        {"a\nb": 1},
        {"method": "ccl\nb"},
        {"dataset": "a\nb"},
        {"backbone": "a\nb"},
        {"seed": "1\n2"},
    ],
)
def test_a_problem_is_one_line_whatever_the_file_holds(load: Callable[[Any], Params], changes: dict[str, Any]):
    with pytest.raises(ParamsError) as caught:
        load(VALUES | changes)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert r"\n" in lines[1]
