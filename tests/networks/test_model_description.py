from dataclasses import asdict, replace
from typing import Any

import pytest

from cclnet.networks.model_description import description_problems
from cclnet.system.names import IS_FORMULA
from tests.networks.builders import description

GOOD = asdict(description())
THIRDS = [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]


def spoilt(**changes: Any) -> list[str]:
    return description_problems(GOOD | changes)


@pytest.mark.parametrize("method", ["ccl", "baseline"])
def test_what_training_writes_is_right(method: str):
    assert description_problems(asdict(description(method))) == []
    hard = replace(description(method), label_matrix=[[1, 0, 0], [0, 1, 0], [0, 0, 1]], softness=1)
    assert description_problems(asdict(hard)) == []


CROPS = "crop and short_side: 1 ≤ {} ≤ {} ≤ 8000 is not so"
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"crop": 0}, [CROPS.format(0, 48)]),
    ({"crop": 49}, [CROPS.format(49, 48)]),
    ({"short_side": 8001}, [CROPS.format(32, 8001)]),
    ({"crop": 32.5}, ["crop: input should be a valid integer"]),
    ({"crop": True}, ["crop: input should be a valid integer"]),
    ({"crop": "32"}, ["crop: input should be a valid integer"]),
    ({"classes": ["MEL", "NV", "MEL"]}, ["classes: 'MEL' is there more than once"]),
    ({"classes": ["MEL", "NV", ""]}, ["classes: one has no name"]),
    ({"classes": ["MEL", "NV", "\x1b[2J"]}, [r"classes: '\x1b[2J' has control characters"]),
    (
        {"classes": ["MEL", "NV", "=A(1)"]},
        [f"classes: '=A(1)' {IS_FORMULA}"],
    ),
    ({"classes": ["MEL"]}, ["classes: 1 instead of two or more", "label_matrix is not 1 × 1"]),
    ({"classes": "MEL"}, ["classes: input should be a valid array"]),
    ({"backbone": "resnet18\u202e"}, [r"backbone: 'resnet18\u202e' has control characters"]),
    ({"mean": [0.5, 0.5]}, ["mean is not 3 numbers"]),
    ({"mean": [0.5, 0.5, float("inf")]}, ["mean is not 3 numbers"]),
    ({"standard_deviation": [0.2, 0.0, 0.2]}, ["standard_deviation is not positive"]),
    ({"label_matrix": THIRDS[:2]}, ["label_matrix is not 3 × 3"]),
    ({"label_matrix": [*THIRDS[:2], [0.5, 0.5]]}, ["label_matrix is not 3 × 3"]),
    (
        {"label_matrix": [*THIRDS[:2], [0.5, 0.7, -0.2]]},
        ["label_matrix holds negative values or such that are no numbers"],
    ),
    ({"label_matrix": [*THIRDS[:2], [0.3, 0.3, 0.3]]}, ["label_matrix has rows that do not sum to 1"]),
    ({"softness": 0.7}, ["softness is not the mean of the diagonal of label_matrix"]),
    ({"converged_epoch": 0}, ["converged_epoch is not from 1 on"]),
    ({"params": {"head": {"margin": 2.0}}}, ["params do not say the head's margin and temperature"]),
    ({"params": {"head": 3}}, ["params do not say the head's margin and temperature"]),
    (
        {"params": {"head": {"margin": 2.0, "temperature": 0}}},
        ["params: the head's margin is not from 0 on, or its temperature is not positive"],
    ),
    (
        {"params": GOOD["params"] | {"memory_format": "rows"}},
        ["params.memory_format is not contiguous or channels_last"],
    ),
    ({"more": 1}, ["'more' is unknown"]),
]


@pytest.mark.parametrize(("changes", "expected"), WRONG, ids=lambda value: str(value)[:60])
def test_what_makes_no_sense_is_named(changes: dict[str, Any], expected: list[str]):
    assert spoilt(**changes) == expected


def test_everything_is_said_at_once():
    assert spoilt(crop=0, softness=0.7, mean=[], unknown=1) == [
        "'unknown' is unknown",
        CROPS.format(0, 48),
        "mean is not 3 numbers",
        "softness is not the mean of the diagonal of label_matrix",
    ]


def test_a_thousand_problems_of_types_are_counted():
    assert spoilt(label_matrix=[["a"] * 30] * 30) == [
        *(f"label_matrix.0.{column}: input should be a valid number" for column in range(5)),
        "and 895 more like these",
    ]


@pytest.mark.parametrize("values", [None, [], "text", 3])
def test_other_json_is_no_description(values: Any):
    assert description_problems(values) == ["the description is no group of values"]
