"""The description that is stored in the file of a trained model."""

from collections.abc import Sequence
from typing import Any

from cclnet import __version__
from cclnet.ccl import softness
from cclnet.images.colours import Colours
from cclnet.networks.model_description import ModelDescription
from cclnet.training.trainer import Trainer


def describe(
    trainer: Trainer, classes: Sequence[str], short_side: int, ran_on: dict[str, Any], colours: Colours | None = None
) -> ModelDescription:
    """The description of a finished training run's network.

    Args:
        trainer: the trainer after the last epoch.
        classes: names of the classes in the order of the outputs.
        short_side: pixels that the short sides of the images were resized to.
        ran_on: what else the result depends on, besides params and data.
        colours: of the training images.
    """
    matrix = trainer.label_matrix()
    epochs: dict[str, int | None] = dict.fromkeys(("softness_epoch", "lowest_softness_epoch", "converged_epoch"))
    if trainer.freezing:
        convergence = trainer.freezing.convergence
        epochs["softness_epoch"] = trainer.freezing.dictionary_epoch(trainer.epoch)
        epochs["lowest_softness_epoch"] = convergence.best_epoch or None
        epochs["converged_epoch"] = convergence.converged_epoch
    return ModelDescription(
        classes=list(classes),
        backbone=trainer.params.backbone,
        method=trainer.params.method,
        short_side=short_side,
        crop=trainer.params.crop,
        mean=list(trainer.normalization.mean),
        standard_deviation=list(trainer.normalization.standard_deviation),
        label_matrix=matrix.tolist(),
        softness=softness(matrix).item(),
        **epochs,
        params=trainer.params.model_dump(),
        ran_on=ran_on,
        version=__version__,
        colour_mean=colours.mean if colours else None,
        colour_deviation=colours.deviation if colours else None,
    )
