"""What the file of a trained model says about it."""

import pytest
import torch
from torch import Tensor

from cclnet import __version__
from cclnet.ccl import soft_label_matrix
from cclnet.images.colours import Colours
from cclnet.params import TrainParams
from cclnet.training.description import describe
from cclnet.training.history import Row
from cclnet.training.trainer import Trainer
from tests.training.builders import RAN_ON, UNBALANCED, K, convergence_of, trainer_of


def test_the_chosen_memory_format_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cclnet.training.trainer.faster_memory_format", lambda *arguments: "channels_last")
    trainer = trainer_of(memory_format="auto")
    assert trainer.layout == torch.channels_last
    assert describe(trainer, ["a"] * K, 36, RAN_ON).params["memory_format"] == "channels_last"


def test_description_of_a_frozen_dictionary(uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer]) -> None:
    weights, history, trainer = uninterrupted
    classes = ["a", "b", "c", "d", "e", "f", "g"]
    description = describe(trainer, classes, 36, RAN_ON)
    matrix = soft_label_matrix(weights["head.class_embeddings"])
    assert description.label_matrix == matrix.tolist()
    assert description.softness == history[0]["softness"]
    assert (description.softness_epoch, description.converged_epoch) == (1, 3)
    assert (description.classes, description.short_side, description.crop) == (classes, 36, 32)
    assert (description.backbone, description.method) == ("tiny", "ccl")
    assert TrainParams.model_validate(description.params) == trainer.params


def test_description_without_head() -> None:
    trainer = trainer_of(UNBALANCED, method="lsr", prior="frequency")
    description = describe(trainer, list("abcdefg"), 36, RAN_ON)
    assert (description.softness_epoch, description.converged_epoch) == (None, None)
    assert description.label_matrix[1][0] == pytest.approx(0.1 * 8 / 16)
    assert description.softness == pytest.approx(0.9 + 0.1 / K)


@pytest.mark.parametrize(
    ("freeze_at", "softness_by_epoch", "expected"),
    [
        ("best", [0.5, 0.4, 0.45, 0.44], (2, 2, 4)),  # converged in epoch 4: the dictionary of epoch 2 is back
        ("current", [0.5, 0.4, 0.45, 0.44], (4, 2, 4)),
        ("best", [0.5, 0.4, 0.45], (3, 2, None)),  # not converged: the dictionary is the last epoch's
        ("never", [0.5, 0.4, 0.45], (3, None, None)),
    ],
)
def test_description_names_the_epoch_of_the_dictionary(
    freeze_at: str, softness_by_epoch: list[float], expected: tuple[int, int | None, int | None]
) -> None:
    trainer = trainer_of(freeze_at=freeze_at, freeze_patience=2)
    for value in softness_by_epoch:
        trainer.epoch += 1
        if freeze_at != "never":
            convergence_of(trainer).update(value)
    found = describe(trainer, list("abcdefg"), 36, RAN_ON)
    assert (found.softness_epoch, found.lowest_softness_epoch, found.converged_epoch) == expected


@pytest.mark.parametrize(
    "colours", [None, Colours(mean=[0.5, 0.25, 0.125], deviation=[0.1, 0.2, 0.3])], ids=["no", "all"]
)
def test_what_else_the_result_depends_on_is_named(colours: Colours | None) -> None:
    found = describe(trainer_of(), list("abcdefg"), 36, RAN_ON, colours)
    assert (found.ran_on, found.version) == (RAN_ON, __version__)
    expected = (None, None) if colours is None else ([0.5, 0.25, 0.125], [0.1, 0.2, 0.3])
    assert (found.colour_mean, found.colour_deviation) == expected
