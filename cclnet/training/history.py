"""The history of a training run: one row per epoch, later a line of ``metrics/history.csv``."""

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from cclnet.ccl import CCLHead, class_correlation_loss, softness
from cclnet.system.errors import CCLNetError

Row = dict[str, float | int | None]
"""One epoch of the history."""


class Means(NamedTuple):
    """Means over the images of an epoch: the losses, and the norms of the gradients before clipping."""

    classification_loss: float
    ccl_loss: float
    gradient_norm: float
    gradient_norm_ccl: float


def history_row(
    epoch: int,
    means: Means,
    label_matrix: Float[Tensor, "k k"],
    optimizer: Optimizer,
    head: CCLHead | None,
    head_optimizer: Optimizer | None,
) -> Row:
    """The history row of an epoch; without a head the head's columns are None.

    Raises:
        CCLNetError: a loss or a gradient is not finite.
    """
    if not all(map(math.isfinite, means)):
        raise CCLNetError(
            f"the loss is not finite in epoch {epoch} (classification {means.classification_loss}, head "
            f"{means.ccl_loss}, norms of the gradients {means.gradient_norm} and {means.gradient_norm_ccl}): lower "
            "optimizer.lr_backbone, lr_ccl or optimizer.clip_norm"
        )
    row: Row = {
        "epoch": epoch,
        "classification_loss": means.classification_loss,
        "ccl_loss": None,
        "class_correlation_loss": None,
        "softness": softness(label_matrix).item(),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "lr_ccl": None,
        "gradient_norm": means.gradient_norm,
        "gradient_norm_ccl": None,
    }
    if head and head_optimizer:
        row["ccl_loss"] = means.ccl_loss
        row["class_correlation_loss"] = class_correlation_loss(head.class_embeddings.detach(), head.margin).item()
        row["lr_ccl"] = head_optimizer.param_groups[0]["lr"]
        row["gradient_norm_ccl"] = means.gradient_norm_ccl
    return row
