"""All epochs: what is left of each, and going on after an interruption."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from cclnet.system.errors import CCLNetError
from cclnet.system.interruption import InterruptionError
from cclnet.training.history import Row
from cclnet.training.loop import fit
from cclnet.training.states import StateStore
from cclnet.training.trainer import Trainer
from tests.training.builders import (
    FREEZES_IN_EPOCH_3,
    IMAGES,
    RAN_ON,
    STEPS_OF_AN_EPOCH,
    VALIDATION,
    SuddenDeathError,
    changed,
    convergence_of,
    run_fit,
    settings_of,
    trainer_of,
)


def test_history_has_one_row_an_epoch(uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer]) -> None:
    _, history, trainer = uninterrupted
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert [row["frozen"] for row in history] == [0, 0, 1, 1]
    assert (convergence_of(trainer).best_epoch, convergence_of(trainer).converged_epoch) == (1, 3)
    assert len({tuple(row) for row in history}) == 1
    assert {"validation_accuracy", "validation_kappa", "validation_nll", "softness", "gradient_norm"} <= set(history[0])
    assert history[3]["softness"] == history[0]["softness"]  # the best epoch's dictionary is back


@pytest.mark.parametrize("interrupted_at", [8, 24, 40, 48, 56, 64])
def test_interrupted_fit_ends_like_the_uninterrupted_one(
    interrupted_at: int, uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer], tmp_path: Path
) -> None:
    with pytest.raises(SuddenDeathError):
        run_fit(tmp_path, FREEZES_IN_EPOCH_3, interrupted_at)
    weights, history, trainer = run_fit(tmp_path, FREEZES_IN_EPOCH_3)
    assert changed(weights, uninterrupted[0]) == set()
    assert history == uninterrupted[1]
    assert convergence_of(trainer).state_dict() == convergence_of(uninterrupted[2]).state_dict()


@pytest.mark.parametrize("asked_after", range(1, 4 * STEPS_OF_AN_EPOCH + 1))
def test_fit_that_is_asked_to_end_loses_no_step(
    asked_after: int,
    uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(InterruptionError) as ended:
        run_fit(tmp_path, FREEZES_IN_EPOCH_3, asked_after=asked_after)
    assert ended.value.exit_status == 143
    left = 4 * STEPS_OF_AN_EPOCH - asked_after
    again = asked_after % STEPS_OF_AN_EPOCH == 0  # asked in validation: it is done again, training is not
    with pytest.raises(InterruptionError), caplog.at_level(logging.WARNING):
        run_fit(tmp_path, FREEZES_IN_EPOCH_3, asked_after=left + again)
    place = f"image {8 if asked_after % STEPS_OF_AN_EPOCH == 1 else 16} of epoch {-(-asked_after // STEPS_OF_AN_EPOCH)}"
    assert caplog.messages == [f"going on after {place}"]
    weights, history, trainer = run_fit(tmp_path, FREEZES_IN_EPOCH_3)
    assert changed(weights, uninterrupted[0]) == set()
    assert history == uninterrupted[1]
    assert convergence_of(trainer).state_dict() == convergence_of(uninterrupted[2]).state_dict()


def test_interruption_before_and_after_the_freeze_of_a_network_with_dropout(tmp_path: Path) -> None:
    changes = FREEZES_IN_EPOCH_3 | {"backbone": "mobilenet_v2", "epochs": 3, "freeze_patience": 1}
    expected, expected_history, _ = run_fit(tmp_path / "uninterrupted", changes)
    assert [row["frozen"] for row in expected_history] == [0, 1, 1]
    for interrupted_at in (24, 40):
        with pytest.raises(SuddenDeathError):
            run_fit(tmp_path / "interrupted", changes, interrupted_at)
    weights, history, _ = run_fit(tmp_path / "interrupted", changes)
    assert changed(weights, expected) == set()
    assert history == expected_history


@pytest.mark.parametrize("method", ["baseline", "lsr", "online_smoothing", "maxsup", "label_confusion", "class_means"])
def test_interrupted_fit_without_head(method: str, tmp_path: Path) -> None:
    expected, expected_history, _ = run_fit(tmp_path / "uninterrupted", settings_of(method))
    with pytest.raises(SuddenDeathError):
        run_fit(tmp_path / "interrupted", settings_of(method), 40)
    weights, history, _ = run_fit(tmp_path / "interrupted", settings_of(method))
    assert changed(weights, expected) == set()
    assert history == expected_history


PARTS = ("epoch", "seen", "sums", "model", "optimizer", "head_optimizer", "freezing")


def test_state_has_no_parts_but_those_below() -> None:
    assert set(trainer_of().state_dict()) == {*PARTS, "objective"}


@pytest.mark.parametrize("part", PARTS)
def test_state_without_one_of_its_parts_ends_otherwise(
    part: str, uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer], tmp_path: Path
) -> None:
    with pytest.raises(InterruptionError):
        run_fit(tmp_path, FREEZES_IN_EPOCH_3, asked_after=STEPS_OF_AN_EPOCH + 1)
    with StateStore(tmp_path, "run") as store:
        state = store.load()
        assert state is not None
        assert (state["trainer"]["epoch"], state["trainer"]["seen"]) == (2, 8)
        state["trainer"][part] = trainer_of(**FREEZES_IN_EPOCH_3).state_dict()[part]
        store.save(state, 24)
    weights, history, _ = run_fit(tmp_path, FREEZES_IN_EPOCH_3)
    assert history != uninterrupted[1]
    assert part == "sums" or "backbone.0.weight" in changed(weights, uninterrupted[0])  # they are for the history alone


@pytest.mark.parametrize("without", [{"history": []}, {"row": None}], ids=str)
def test_state_without_one_of_its_parts_outside_the_trainer_ends_otherwise(
    without: dict[str, Any], uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer], tmp_path: Path
) -> None:
    assert history_after_changing_the_state(tmp_path, without) != uninterrupted[1]


def test_state_with_all_of_its_parts_ends_alike(
    uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer], tmp_path: Path
) -> None:
    assert history_after_changing_the_state(tmp_path, {}) == uninterrupted[1]


def history_after_changing_the_state(folder: Path, changes: dict[str, Any]) -> list[Row]:
    """What a run goes on to that ended in the validation of its third epoch, and whose state was changed then."""
    with pytest.raises(InterruptionError):
        run_fit(folder, FREEZES_IN_EPOCH_3, asked_after=3 * STEPS_OF_AN_EPOCH)
    with StateStore(folder, "run") as store:
        state = store.load()
        assert state is not None
        assert state["row"] is not None
        assert len(state["history"]) == 2
        store.save(state | changes, 48)
    return run_fit(folder, FREEZES_IN_EPOCH_3)[1]


def test_state_without_the_online_labels_ends_otherwise(tmp_path: Path) -> None:
    method: dict[str, Any] = {"method": "online_smoothing"}
    expected, _, _ = run_fit(tmp_path / "uninterrupted", method)
    with pytest.raises(InterruptionError):
        run_fit(tmp_path, method, asked_after=STEPS_OF_AN_EPOCH + 1)
    with StateStore(tmp_path, "run") as store:
        state = store.load()
        assert state is not None
        state["trainer"]["objective"] = trainer_of(**method).state_dict()["objective"]
        store.save(state, 24)
    weights, _, _ = run_fit(tmp_path, method)
    assert "backbone.0.weight" in changed(weights, expected)


def test_finished_fit_is_not_trained_any_further(tmp_path: Path) -> None:
    weights, history, _ = run_fit(tmp_path, {"epochs": 2})
    again, same_history, _ = run_fit(tmp_path, {"epochs": 2}, interrupted_at=0)
    assert changed(weights, again) == set()
    assert history == same_history


def test_going_on_under_other_conditions_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for ran_on, said in ((RAN_ON, False), (RAN_ON | {"threads": 8}, True)):
        caplog.clear()
        with pytest.raises(SuddenDeathError):
            run_fit(tmp_path / str(said), {}, 24)
        with caplog.at_level(logging.WARNING):
            run_fit(tmp_path / str(said), {}, ran_on=ran_on)
        assert "going on after image 16 of epoch 1" in caplog.text
        assert ("another threads" in caplog.text) == said
        assert "versions" not in caplog.text


# what goes wrong


@pytest.mark.parametrize("damaged", ["classifier.weight", "head.class_embeddings"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_ends_training_and_keeps_the_last_good_state(
    damaged: str, value: float, tmp_path: Path
) -> None:
    trainer = trainer_of()

    def damage(name: str, done: int, total: int, detail: str = "") -> None:
        if done == 24:  # in the middle of the second epoch
            trainer.model.get_parameter(damaged).data.fill_(value)

    with StateStore(tmp_path, "run") as store:
        with pytest.raises(CCLNetError, match="the loss is not finite in epoch 2") as error:
            fit(trainer, IMAGES, VALIDATION, store, RAN_ON, damage)
        state = store.load()
    assert "lower optimizer.lr_backbone, lr_ccl or optimizer.clip_norm" in str(error.value)
    assert "\n" not in str(error.value)
    assert state is not None
    assert state["trainer"]["epoch"] == len(state["history"]) == 1
    assert all(tensor.isfinite().all() for tensor in state["trainer"]["model"].values())
