import copy
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torchvision import models

from cclnet import params
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
        return Params.load(path)

    return load


def test_the_committed_file_is_accepted(load: Callable[[Any], Params]):
    assert load(COMMITTED).model_dump() == yaml.safe_load(COMMITTED)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        # names that do not exist
        ("lr_cll", 0.1, "lr_cll: unknown key; did you mean lr_ccl?"),
        ("qqqq", 1, "qqqq: unknown key"),
        ("datasets__sample__short_sides", 8, "datasets.sample.short_sides: unknown key; did you mean short_side?"),
        ("sample__imags", 8, "sample.imags: unknown key; did you mean images?"),
        ("method", "cll", "method: 'cll' is not 'baseline', 'lsr', 'ccl', "),
        ("training_labels", "shufled", "training_labels: 'shufled' is not 'original' or 'shuffled'; did you mean shuf"),
        ("peers__margin_smoothing__margins", 1, "peers.margin_smoothing.margins: unknown key; did you mean margin?"),
        ("peers__margin_smooth", {}, "peers.margin_smooth: unknown key; did you mean margin_smoothing?"),
        ("peers__virtual_teacher__correct", 1, "peers.virtual_teacher.correct: input should be less than 1, not 1"),
        ("split", "lesions", "split: 'lesions' is not 'image' or 'lesion'; did you mean lesion?"),
        ("freeze_at", "Best", "freeze_at: 'Best' is not 'best', 'current' or 'never'; did you mean best?"),
        ("precision", "float16", "precision: 'float16' is not 'float32' or 'bfloat16'; did you mean bfloat16?"),
        ("datasets__sample__processor", "gpu", "datasets.sample.processor: 'gpu' is not 'portable' or 'native'"),
        (
            "dataset",
            "sampel",
            "dataset: 'sampel' is not among sample, isic2018, isic2018_64, folder; did you mean sample?",
        ),
        ("device", "gpu", "device: string should match pattern '^(auto|cpu|cuda(:\\d+)?)$', not 'gpu'"),
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
        ("datasets", None, "datasets: input should be a valid dictionary, not None"),
        ("datasets__sample__milestones", 18, "datasets.sample.milestones: input should be a valid list, not 18"),
        ("datasets__sample__milestones", [True], "datasets.sample.milestones.0: should be a number, not True"),
        ("datasets__sample__head_balance", False, "datasets.sample.head_balance: 'False' is not 'none', 'weights', "),
        # out of range
        ("datasets__sample__lr_ccl_factor", 0, "datasets.sample.lr_ccl_factor: input should be greater than 0, not 0"),
        ("lr_ccl", 0, "lr_ccl: input should be greater than 0, not 0"),
        ("lr_ccl", -0.1, "lr_ccl: input should be greater than 0, not -0.1"),
        ("lr_backbone", math.nan, "lr_backbone: input should be a finite number, not nan"),
        ("lr_backbone", math.inf, "lr_backbone: input should be a finite number, not inf"),
        ("lr_backbone", "nan", "lr_backbone: input should be a finite number, not 'nan'"),
        ("alpha_cc", -1, "alpha_cc: input should be greater than or equal to 0, not -1"),
        ("margin", 4.5, "margin: input should be less than or equal to 4, not 4.5"),
        ("momentum", 1, "momentum: input should be less than 1, not 1"),
        ("lsr_epsilon", 1.1, "lsr_epsilon: input should be less than or equal to 1, not 1.1"),
        ("hue", 0.6, "hue: input should be less than or equal to 0.5, not 0.6"),
        ("validation_fraction", 1, "validation_fraction: input should be less than 1, not 1"),
        ("seed", -1, "seed: input should be greater than or equal to 0, not -1"),
        ("seed", 2**32, "seed: input should be less than 4294967296, not 4294967296"),
        ("datasets__isic2018__epochs", 0, "datasets.isic2018.epochs: input should be greater than 0, not 0"),
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
        ({"milestones": [25, 18], "epochs": 30}, "milestones [25, 18] must rise"),
        ({"milestones": [18, 18], "epochs": 30}, "milestones [18, 18] must rise"),
        ({"milestones": [18, 30], "epochs": 30}, "milestones [18, 30] must rise and lie before the last of 30 epochs"),
    ],
)
def test_keys_of_a_block_that_do_not_fit_together(load: Callable[[Any], Params], values: dict, problem: str):
    with pytest.raises(ParamsError, match="cannot be used") as caught:
        load(changed(**{f"datasets__isic2018_64__{key}": value for key, value in values.items()}))
    assert f"datasets.isic2018_64: {problem}" in str(caught.value)


def test_the_edges_of_a_block_fit(load: Callable[[Any], Params]):
    block = {"crop": 48, "short_side": 48, "milestones": [1, 29], "epochs": 30}
    load(changed(**{f"datasets__sample__{key}": value for key, value in block.items()}))
    load(changed(datasets__sample__milestones=[]))


def test_every_mistake_is_in_the_report(load: Callable[[Any], Params]):
    mistakes = {
        "lr_ccl": -1,
        "lr_cll": 0.1,
        "momentum": True,
        "method": "cll",
        "backbone": "resnet81",
        "datasets__sample__crop": 49,
        "datasets__sample__short_side": 48,
        "datasets__isic2018__milestones": [150, 100],
        "datasets__isic2018_64__treads": 2,
        "sample__images": "many",
        "weight_decay": MISSING,
    }
    with pytest.raises(ParamsError) as caught:
        load(changed(**mistakes))
    _, *problems = str(caught.value).splitlines()
    named = sorted(problem.split(":")[0].strip() for problem in problems)
    assert named == sorted(
        [
            "lr_ccl",
            "lr_cll",
            "momentum",
            "method",
            "backbone",
            "datasets.sample",
            "datasets.isic2018",
            "datasets.isic2018_64.treads",
            "sample.images",
            "weight_decay",
        ]
    )


def test_mistakes_of_one_block_come_together(load: Callable[[Any], Params]):
    with pytest.raises(ParamsError) as caught:
        load(changed(datasets__sample__crop=10**6, datasets__sample__milestones=[2, 1]))
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
        ("", "the file: input should be a valid dictionary"),
        ("# nothing but a comment\n", "the file: input should be a valid dictionary"),
        ("- a\n- b\n", "the file: input should be a valid dictionary"),
        (COMMITTED + "\nseed: 1\n", "is not YAML: 'seed' is given twice"),
        (COMMITTED + "\n  sample: {}\n", "is not YAML: 'sample' is given twice"),
        ("seed: 0\n\tmethod: ccl\n", "is not YAML: .*found character '\\\\t' that cannot start any token"),
        ("seed: [0\n", "is not YAML: "),
        ("seed: {{a: 1}: 2}\n", "is not YAML: "),
        ("seed: 2024-13-45\n", "is not YAML: "),
        ("seed: !!python/object/apply:os.getcwd []\n", "is not YAML: could not determine a constructor"),
        ("\0", "is not YAML: "),
    ],
)
def test_a_file_that_is_no_table_of_keys(load: Callable[[Any], Params], text: str, problem: str):
    with pytest.raises(ParamsError, match=problem):
        load(text)


def test_bytes_that_are_no_text(tmp_path: Path):
    (tmp_path / "params.yaml").write_bytes(b"seed: \xff\xfe")
    with pytest.raises(ParamsError, match=r"is not YAML: .*can't decode"):
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
        load(changed(backbone=backbone, weights="DEFAULT")).check_backbone()
    with pytest.raises(ParamsError, match=r"backbone: torchvision has no 'resnet81'; did you mean resnet18\?"):
        load(changed(backbone="resnet81")).check_backbone()
    with pytest.raises(ParamsError, match="weights: resnet18 has no 'IMAGENET1K_V3', only IMAGENET1K_V1, DEFAULT;"):
        load(changed(weights="IMAGENET1K_V3")).check_backbone()


def test_backbones_and_weights_are_timms(load: Callable[[Any], Params], monkeypatch: pytest.MonkeyPatch):
    for backbone in ("timm/convnext_atto", "timm/convnext_atto.d2_in1k"):
        load(changed(backbone=backbone, weights="DEFAULT")).check_backbone()
    with pytest.raises(
        ParamsError, match=r"backbone: timm has no 'timm/convnext_ato'; did you mean timm/convnext_atto"
    ):
        load(changed(backbone="timm/convnext_ato")).check_backbone()
    with pytest.raises(ParamsError, match="weights: timm/coatnet_0_224 has no 'DEFAULT', only null"):
        load(changed(backbone="timm/coatnet_0_224", weights="DEFAULT")).check_backbone()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ParamsError, match="backbone: timm/test_vit needs timm, which is not installed: pip install timm"
    ):
        load(changed(backbone="timm/test_vit")).check_backbone()
    with pytest.raises(ParamsError, match="backbone: timm/test_vit needs timm") as caught:
        load(changed(backbone="timm/test_vit", lr_ccl=-1))
    assert "lr_ccl: input should be greater than 0" in str(caught.value)


def test_a_file_of_weights_is_looked_at(load: Callable[[Any], Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "bad.pt")
    for backbone in ("resnet18", "timm/test_vit"):
        for weights in ("bad.pt", str(tmp_path / "bad.pt")):
            found = load(changed(backbone=backbone, weights=weights))
            with pytest.raises(
                ParamsError, match=rf"^params\.yaml cannot be used: weights: {tmp_path}/bad\.pt does"
            ) as caught:
                found.check_backbone()
            assert "\n" not in str(caught.value)
        with pytest.raises(
            ParamsError, match=rf"^params\.yaml cannot be used: weights: there is no file {tmp_path}/no\.pt"
        ):
            load(changed(backbone=backbone, weights="no.pt")).check_backbone()
    torch.save(models.resnet18(num_classes=3).state_dict(), tmp_path / "good.pt")
    load(changed(weights="good.pt")).check_backbone()


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
    with pytest.raises(ValueError, match="frozen"):
        load(VALUES).seed = 1


def test_reading_the_params_loads_neither_numpy_nor_torch():
    code = "import sys; from cclnet.params import Params; Params.load(); print({'numpy', 'torch'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
