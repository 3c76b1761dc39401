"""Settings: params of the project with some values changed."""

from typing import Any

import pytest
import yaml

from cclnet.system.errors import CCLNetError
from studies.running.settings import (
    ROOT,
    as_text,
    data_params,
    experiment_params,
    params_with,
    parsed_settings,
)

COMMITTED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def test_settings_change_params_and_nothing_else():
    changed = params_with({"lr_ccl": "0.001", "dataset": "isic2018_64", "epochs": 3, "sample.seed": "7"})
    assert changed["lr_ccl"] == 0.001
    assert changed["datasets"]["isic2018_64"]["epochs"] == 3
    assert changed["sample"]["seed"] == 7
    changed |= {"lr_ccl": COMMITTED["lr_ccl"], "dataset": COMMITTED["dataset"]}
    changed["datasets"]["isic2018_64"]["epochs"] = COMMITTED["datasets"]["isic2018_64"]["epochs"]
    changed["sample"]["seed"] = COMMITTED["sample"]["seed"]
    assert changed == COMMITTED


def test_a_key_of_a_block_belongs_to_the_chosen_dataset():
    for dataset in COMMITTED["datasets"]:
        changed = params_with({"crop": "8", "dataset": dataset})
        assert {name for name, block in changed["datasets"].items() if block["crop"] == 8} == {dataset}


@pytest.mark.parametrize("path", ["lr_cll", "datasets.sample.epoch", "sample.images.many", "nothing.at.all"])
def test_a_key_that_does_not_exist_is_refused(path: str):
    with pytest.raises(CCLNetError, match=f"^{path}: params.yaml has no such key"):
        params_with({path: "1"})


def test_what_is_no_setting_is_refused():
    assert parsed_settings(["a=1", "b=x=y", "a=2"]) == {"a": "2", "b": "x=y"}
    with pytest.raises(CCLNetError, match=r"^seed, 3: write settings as key=value"):
        parsed_settings(["a=1", "seed", "3"])


@pytest.mark.parametrize(
    "settings",
    [
        {"lr_ccl": 0.00001, "seed": 3, "weights": None, "method": "lsr", "computation.compile": True, "epochs": 4},
        {"milestones": [1, 2], "epochs": 4, "dataset": "isic2018", "sample.imbalance": 50.0},
        {"milestones": [], "epochs": 1},
    ],
)
def test_settings_survive_a_command_line(settings: dict[str, Any]):
    assert params_with(parsed_settings(as_text(settings))) == params_with(settings)


def test_the_params_of_an_experiment_are_those_of_its_own_dataset_checked():
    found = experiment_params({"dataset": "isic2018_64", "epochs": "20", "lr_ccl": "1e-05", "alpha_cc": 1})
    assert (found["dataset"], found["epochs"], found["lr_ccl"]) == ("isic2018_64", 20, 0.00001)
    assert isinstance(found["alpha_cc"], float)
    assert found["short_side"] == COMMITTED["datasets"]["isic2018_64"]["short_side"]
    assert found["sample.images"] == COMMITTED["sample"]["images"]
    assert not {"source", "device", "processes"} & set(found)


def test_all_wrong_values_are_named_in_one_line():
    with pytest.raises(CCLNetError) as caught:
        experiment_params({"seed": "x", "optimizer.momentum": 2})
    message = str(caught.value)
    assert "seed: " in message and "momentum: " in message and "\n" not in message
    with pytest.raises(CCLNetError, match=r"^dataset: 'isic' is not among sample, "):
        experiment_params({"dataset": "isic"})


def test_data_depend_on_what_is_drawn_split_and_resized():
    found = data_params(experiment_params({"dataset": "sample", "seed": 3, "sample.seed": 4, "short_side": 40}))
    assert (found["sample.seed"], found["short_side"], found["split"]) == (4, 40, COMMITTED["split"])
    assert not {"seed", "epochs", "lr_ccl", "threads"} & set(found)
    official = data_params(experiment_params({"dataset": "isic2018_64"}))
    assert set(found) - set(official) == {"sample.images", "sample.imbalance", "sample.separation", "sample.seed"}
