"""The training loop over all epochs: resuming, validation after each epoch, progress, interruption."""

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cclnet.images.subset import Subset
from cclnet.inference.probabilities import predict
from cclnet.metrics.scores import evaluate
from cclnet.system.interruption import InterruptionError
from cclnet.system.progress import Report, silent
from cclnet.training.history import Row
from cclnet.training.states import StateStore
from cclnet.training.trainer import Trainer

logger = logging.getLogger(__name__)

SHOWN_SCORES = ("accuracy", "f1", "kappa", "jaccard", "balanced_accuracy", "nll")


def fit(
    trainer: Trainer,
    training: Subset,
    validation: Subset,
    store: StateStore | None,
    ran_on: dict[str, Any],
    report: Report = silent,
    between_steps: Callable[[], None] = lambda: None,
    write_history: Callable[[list[Row]], None] = lambda history: None,
    after_epoch: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Train for all epochs and save the state after each; an interrupted run resumes where it stopped.

    Args:
        trainer: a new trainer.
        training, validation: the images.
        store: where the first of several processes saves the states; None in the others.
        ran_on: what else the result depends on; a warning lists what has changed since an interrupted run.
        report: called with the number of images trained on.
        between_steps: called after every minibatch; if it raises ``InterruptionError``, the state is saved and training
            ends.

    Returns:
        One row per epoch: losses, p̄, learning rates, gradient norms, and the scores on the validation images.

    Raises:
        InterruptionError: training was asked to end.
        CCLNetError: a loss is no longer finite, or the state of the previous epoch cannot be written.
    """
    history: list[Row] = []
    row: Row | None = None  # of an epoch that has been trained but not yet validated
    state = trainer.processes.from_first(store.load() if store else None)
    if state is not None:
        trainer.load_state_dict(state["trainer"])
        history, row = state["history"], state["row"]
        changed = [name for name in ran_on if state["ran_on"].get(name) != ran_on[name]]
        logger.warning("going on after image %d of epoch %d", trainer.seen or len(training), trainer.epoch)
        if changed:
            logger.warning("the result may differ from an uninterrupted run's: another %s", ", ".join(changed))
        if store and history:
            write_history(history)

    def save() -> None:
        content = {"trainer": trainer.state_dict(), "row": row, "history": history, "ran_on": ran_on}
        if store:
            store.save(content, images_seen=(trainer.epoch - bool(trainer.seen)) * len(training) + trainer.seen)

    try:
        while len(history) < trainer.params.epochs:
            if row is None:
                row = trainer.train_epoch(training, _follow(trainer, len(training), history, report, between_steps))
            scores = evaluate(validation.labels, _validate(trainer, validation, between_steps))
            history.append(row | {f"validation_{name}": scores[name] for name in SHOWN_SCORES})
            row = None
            save()
            if store:
                write_history(history)
                after_epoch(history[-1])
    except InterruptionError:
        save()
        if store:
            store.finish()
        trainer.processes.wait()  # if another process ended earlier, it would end the first one too
        raise
    return history


def _validate(trainer: Trainer, validation: Subset, between_steps: Callable[[], None]) -> NDArray[np.float64]:
    """q^cls of the validation images, n × K; each process predicts its share."""
    processes = trainer.processes
    processes.align(trainer.model)
    own = validation.part(processes.equal_share(np.arange(len(validation))))
    crop, device, normalization, layout = trainer.params.crop, trainer.device, trainer.normalization, trainer.layout
    probabilities = predict(trainer.model, own, crop, device, between_steps, normalization, layout)
    return processes.gather(probabilities)[: len(validation)]


def _follow(
    trainer: Trainer, images: int, history: list[Row], report: Report, between_steps: Callable[[], None]
) -> Callable[[int], None]:
    """The callback after each step of an epoch: it reports progress and then allows an interruption."""
    started, first = time.perf_counter(), trainer.seen
    epochs = trainer.params.epochs

    def follow(seen: int) -> None:
        speed = (seen - first) / (time.perf_counter() - started)
        detail = f"epoch {trainer.epoch} of {epochs}, {speed:,.0f} images/s{summary(history)}"
        report("training", (trainer.epoch - 1) * images + seen, epochs * images, detail)
        between_steps()

    return follow


def summary(history: list[Row]) -> str:
    """A short summary of the latest epoch."""
    words = {"loss": "classification_loss", "p̄": "softness", "validation accuracy": "validation_accuracy"}
    return "".join(f", {word} {history[-1][name]:.3f}" for word, name in words.items()) if history else ""
