"""The row of an epoch, from made-up means and a made-up head."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from cclnet.ccl import CCLHead
from cclnet.system.errors import CCLNetError
from cclnet.training.history import Means, history_row

MEANS = Means(classification_loss=1.5, ccl_loss=0.75, gradient_norm=3.0, gradient_norm_ccl=0.5)
MATRIX = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])
OF_THE_HEAD = ("ccl_loss", "class_correlation_loss", "lr_ccl", "gradient_norm_ccl")


def optimizer(rate: float) -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=rate)


def head(margin: float) -> CCLHead:
    """Two classes opposite to each other, and one at a right angle to both: squared distances 4, 2 and 2."""
    made = CCLHead(4, 3, hidden_dim=2, embedding_dim=2, margin=margin)
    made.class_embeddings.data = torch.tensor([[2.0, 0.0], [-0.5, 0.0], [0.0, 3.0]])
    return made


@pytest.mark.parametrize(
    ("margin", "correlation"),
    [(2.0, 2 * (4 - 2) / 9), (1.0, (2 * (4 - 1) + 4 * (2 - 1)) / 9), (0.0, (2 * 4 + 4 * 2) / 9)],
)
def test_every_column_by_hand(margin: float, correlation: float) -> None:
    row = history_row(7, MEANS, MATRIX, optimizer(0.1), head(margin), optimizer(0.02))
    assert row == {
        "epoch": 7,
        "classification_loss": 1.5,
        "ccl_loss": 0.75,
        "class_correlation_loss": pytest.approx(correlation, rel=1e-6),
        "softness": pytest.approx((0.5 + 0.6 + 0.7) / 3, rel=1e-6),
        "learning_rate": 0.1,
        "lr_ccl": 0.02,
        "gradient_norm": 3.0,
        "gradient_norm_ccl": 0.5,
    }


@pytest.mark.parametrize("learns", [(None, None), (head(2.0), None)], ids=["no head", "a head that does not learn"])
def test_without_a_learning_head_its_columns_are_there_and_empty(learns: tuple[Any, Any]) -> None:
    row = history_row(1, MEANS, MATRIX, optimizer(0.1), *learns)
    assert {name for name, value in row.items() if value is None} == set(OF_THE_HEAD)
    assert list(row) == list(history_row(1, MEANS, MATRIX, optimizer(0.1), head(2.0), optimizer(0.1)))


@pytest.mark.parametrize("loss", ["classification_loss", "ccl_loss", "gradient_norm", "gradient_norm_ccl"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_refused_with_its_epoch(loss: str, value: float) -> None:
    with pytest.raises(CCLNetError) as caught:
        history_row(3, MEANS._replace(**{loss: value}), MATRIX, optimizer(0.1), head(2.0), optimizer(0.1))
    assert str(caught.value).startswith("the loss is not finite in epoch 3 (")
    assert str(value) in str(caught.value) and "\n" not in str(caught.value)
