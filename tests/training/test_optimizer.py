"""SGD with clipping, step by step in plain Python."""

import math

import pytest
import torch
from torch import Tensor, nn

from cclnet.training.optimizer import build_optimizer, clip_and_step, set_learning_rate
from tests.training.builders import params

START = [3.0, -2.0]
GRADIENTS = [[3.0, 4.0], [0.3, -0.4], [-6.0, 8.0]]  # of the norms 5, 0.5 and 10


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([value], dtype=torch.float64)) for value in START]


def give(weights: list[nn.Parameter], gradient: list[float]) -> None:
    for weight, value in zip(weights, gradient, strict=True):
        weight.grad = torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize("clip_norm", [1e9, 2.0, 0.1])
def test_steps_equal_those_written_out(clip_norm: float) -> None:
    """v ← 0.9 v + g + 1e-4 w, w ← w − lr v, with g scaled to the norm that it may have at most."""
    weights = parameters()
    optimizer = build_optimizer(weights, 0.25, params(momentum=0.9, weight_decay=1e-4))
    expected, velocity, norms = list(START), [0.0, 0.0], []
    for gradient in GRADIENTS:
        give(weights, gradient)
        norms.append(clip_and_step(optimizer, clip_norm).item())
        scale = min(1.0, clip_norm / math.hypot(*gradient))
        velocity = [0.9 * v + scale * g + 1e-4 * w for v, g, w in zip(velocity, gradient, expected, strict=True)]
        expected = [w - 0.25 * v for w, v in zip(expected, velocity, strict=True)]
    assert norms == pytest.approx([5, 0.5, 10])  # before clipping
    assert [weight.item() for weight in weights] == pytest.approx(expected, rel=1e-5)
    assert all(weight.grad is None for weight in weights)


def test_what_has_no_gradient_stays_as_it_is() -> None:
    weights = parameters()
    optimizer = build_optimizer(weights, 0.25, params())
    weights[0].grad = torch.tensor([0.5], dtype=torch.float64)
    assert clip_and_step(optimizer, 2.0).item() == 0.5
    assert weights[1].item() == START[1]


@pytest.mark.parametrize(
    ("milestones", "decays"),
    [([], [1, 1, 1, 1]), ([2], [1, 1, 0.1, 0.1]), ([1, 3], [1, 0.1, 0.1, 0.01]), ([2, 2], [1, 1, 0.01, 0.01])],
)
def test_the_rate_falls_to_a_tenth_after_each_milestone(milestones: list[int], decays: list[float]) -> None:
    optimizer = build_optimizer(parameters(), 0.5, params())
    for epoch in (4, 1, 3, 2):  # a run that goes on begins anywhere
        set_learning_rate(optimizer, epoch, milestones)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * decays[epoch - 1])


def test_the_settings_are_the_experiment_s() -> None:
    tensors: list[Tensor] = list(parameters())
    optimizer = build_optimizer(parameters(), 0.5, params(momentum=0.7, weight_decay=0.03))
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.5, 0.7, 0.03, False)
    assert len(group["params"]) == len(tensors)
