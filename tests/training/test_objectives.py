"""The losses without a CCL head, against slow loops in plain Python."""

from collections.abc import Callable
from math import exp, log

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional
from torch.testing import assert_close

from cclnet.ccl import soft_label_matrix
from cclnet.params import Peers
from cclnet.targets import smoothed_targets
from cclnet.training.objectives import (
    AddedLabels,
    ConfidencePenalty,
    MarginSmoothing,
    Objective,
    OnlineSmoothing,
    VirtualTeacher,
    build_objective,
)
from tests.training.test_trainer import params

K = 7
LSR = smoothed_targets(torch.arange(K), K, 0.5228).double()


def batch(images: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits spread widely, and labels of which some are predicted right."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(images, K, dtype=torch.float64, generator=generator)
    labels = torch.randint(K, (images,), generator=generator)
    labels[: images // 2] = logits[: images // 2].argmax(dim=1)
    return logits, labels


def softmax(scores: list[float]) -> list[float]:
    """In plain Python."""
    powers = [exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def confidence_penalty(scores: list[float], label: int) -> float:
    q = softmax(scores)
    return -log(q[label]) - 0.3 * sum(-value * log(value) for value in q)


def margin_smoothing(scores: list[float], label: int) -> float:
    penalty = sum(max(0.0, max(scores) - score - 5.0) for score in scores)
    return -log(softmax(scores)[label]) + 0.2 * penalty


def virtual_teacher(scores: list[float], label: int) -> float:
    teacher = [0.9 if k == label else 0.1 / (K - 1) for k in range(K)]
    roots = [value ** (1 / 20) for value in teacher]  # what a temperature does to a softmax
    p = [root / sum(roots) for root in roots]
    q = softmax([score / 20 for score in scores])
    divergence = sum(ours * log(ours / theirs) for ours, theirs in zip(p, q, strict=True))
    return 0.6 * -log(softmax(scores)[label]) + 0.4 * 400 * divergence


def added_labels(scores: list[float], label: int) -> float:
    q, p = softmax(scores), LSR[label].tolist()
    return -log(q[label]) + sum(ours * log(ours / theirs) for ours, theirs in zip(p, q, strict=True))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (ConfidencePenalty(K, weight=0.3), confidence_penalty),
        (MarginSmoothing(K, margin=5.0, weight=0.2), margin_smoothing),
        (VirtualTeacher(K, correct=0.9, weight=0.4, temperature=20.0).double(), virtual_teacher),
        (AddedLabels(LSR), added_labels),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Objective) else "",
)
def test_losses_equal_slow_loops(objective: Objective, expected: Callable[[list[float], int], float]) -> None:
    logits, labels = batch()
    mean = sum(expected(row, label) for row, label in zip(logits.tolist(), labels.tolist(), strict=True)) / len(labels)
    assert objective(logits, labels).item() == pytest.approx(mean, rel=1e-6)
    assert gradcheck(lambda scores: objective(scores, labels), logits.clone().requires_grad_())


def test_losses_that_are_cross_entropy_at_the_end_of_their_range() -> None:
    logits, labels = batch()
    hard = functional.cross_entropy(logits, labels)
    for objective in (
        Objective(torch.eye(K, dtype=torch.float64)),
        ConfidencePenalty(K, weight=0.0),
        MarginSmoothing(K, margin=1e6, weight=1.0),
        VirtualTeacher(K, correct=0.9, weight=0.0, temperature=20.0),
        OnlineSmoothing(K, hard_share=1.0).double(),
    ):
        assert_close(objective(logits, labels), hard)


def test_the_virtual_teacher_is_the_network_s_best() -> None:
    objective = VirtualTeacher(K, correct=0.9, weight=1.0, temperature=3.0)
    labels = torch.arange(K)
    taught = objective.label_matrix.log()
    assert_close(objective.label_matrix.sum(dim=1), torch.ones(K))
    assert objective(taught, labels).item() == pytest.approx(0, abs=1e-6)
    assert objective(2 * taught, labels) > 1e-3


def test_virtual_teacher_gradient_keeps_its_size_at_high_temperatures() -> None:
    logits, labels = (batch()[0] / 10).requires_grad_(), batch()[1]
    norms = []
    for temperature in (50.0, 500.0):
        objective = VirtualTeacher(K, correct=0.9, weight=1.0, temperature=temperature).double()
        (gradient,) = torch.autograd.grad(objective(logits, labels), logits)
        norms.append(gradient.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_added_labels_equal_the_paper_s_eq_3_of_an_orthogonal_dictionary() -> None:
    """Prop. S1: seven orthogonal class embeddings give LSR(.5228)."""
    assert_close(soft_label_matrix(torch.eye(K, dtype=torch.float64)), LSR, rtol=0, atol=2e-5)  # ε is rounded


def online_matrix(batches: list[tuple[Tensor, Tensor]], hard_share: float) -> list[list[float]]:
    """α y + (1 − α) S_y by a loop over the images; classes without a right one are left out (None)."""
    right: dict[int, list[list[float]]] = {}
    for logits, labels in batches:
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            if row.index(max(row)) == label:
                right.setdefault(label, []).append(softmax(row))
    matrix = []
    for k in range(K):
        mean = [sum(column) / len(right[k]) for column in zip(*right[k], strict=True)] if k in right else [1 / K] * K
        matrix.append([hard_share * (j == k) + (1 - hard_share) * value for j, value in enumerate(mean)])
    return matrix


def test_online_labels_are_the_mean_predictions_of_the_epoch_before() -> None:
    objective = OnlineSmoothing(K, hard_share=0.3).double()
    assert_close(objective.label_matrix, smoothed_targets(torch.arange(K), K, 0.7).double())
    batches = [batch(seed=seed) for seed in (1, 2, 3)]
    batches = [(logits[labels != 4], labels[labels != 4]) for logits, labels in batches]  # of class 4 none is right
    before = objective.label_matrix.clone()
    for logits, labels in batches:
        expected = functional.cross_entropy(logits, before[labels])
        assert_close(objective(logits, labels), expected)
        assert torch.equal(objective.label_matrix, before)
    objective.end_epoch()
    expected = torch.tensor(online_matrix(batches, 0.3), dtype=torch.float64)
    assert_close(objective.label_matrix, expected, rtol=1e-6, atol=1e-8)
    assert_close(objective.label_matrix[4], before[4])
    assert_close(objective.label_matrix.sum(dim=1), torch.ones(K, dtype=torch.float64))


def test_online_labels_of_a_later_epoch_forget_the_earlier_ones() -> None:
    objective, fresh = OnlineSmoothing(K, hard_share=0.5), OnlineSmoothing(K, hard_share=0.5)
    everything = torch.arange(K)
    objective(torch.randn(K, K, generator=torch.Generator().manual_seed(0)) + 5 * torch.eye(K), everything)
    objective.end_epoch()
    for each in (objective, fresh):
        each(3 * torch.eye(K), everything)
        each.end_epoch()
    assert torch.equal(objective.label_matrix, fresh.label_matrix)


def test_online_labels_draw_no_gradient() -> None:
    objective = OnlineSmoothing(K, hard_share=0.5)
    logits, labels = batch()
    objective(logits.float().requires_grad_(), labels).backward()
    assert not objective.sums.requires_grad and not objective.label_matrix.requires_grad
    assert objective.sums.sum().item() == pytest.approx((logits.argmax(dim=1) == labels).sum().item())


COUNTS = torch.tensor([8, 1, 1, 1, 1, 2, 2])


@pytest.mark.parametrize("method", ["baseline", "lsr", "lsr_kl", *Peers.model_fields])
def test_every_method_builds_its_objective_with_its_settings(method: str) -> None:
    objective = build_objective(params(method=method), COUNTS)
    kinds = {
        "baseline": Objective,
        "lsr": Objective,
        "lsr_kl": AddedLabels,
        "confidence_penalty": ConfidencePenalty,
        "online_smoothing": OnlineSmoothing,
        "margin_smoothing": MarginSmoothing,
        "virtual_teacher": VirtualTeacher,
    }
    assert type(objective) is kinds[method]
    for name, value in dict(getattr(params().peers, method, {})).items():
        assert name == "correct" or getattr(objective, name) == value
    assert_close(objective.label_matrix.sum(dim=1), torch.ones(K))
    assert objective.label_matrix.argmax(dim=1).tolist() == list(range(K))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["baseline", "lsr_kl", *Peers.model_fields])
def test_losses_of_half_precision_logits_are_computed_in_float32(method: str, precision: torch.dtype) -> None:
    objective = build_objective(params(method=method), COUNTS)
    logits, labels = batch()
    found = objective(logits.to(precision), labels)
    assert found.dtype == torch.float32
    assert_close(found, objective(logits.to(precision).float(), labels))
