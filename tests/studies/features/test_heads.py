"""The head on fixed features, and the minimum of its loss without any image."""

import math

import numpy as np
import pytest
import torch

from cclnet.ccl import CCLHead
from studies.features import heads
from studies.features.heads import (
    dictionary_gradient,
    distances_of,
    head_predictions,
    minibatches,
    optimum_of_counts,
    train_head,
)


def test_the_minimum_without_class_correlation_loss_is_the_entropy_of_the_counts():
    """softmax(2 cos(e, c)) can equal π as long as the logarithms differ by less than 4."""
    _, loss = optimum_of_counts([3, 1], alpha_cc=0, dimensions=8)
    assert loss == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), abs=1e-6)


def test_the_minimum_of_equal_counts_leaves_the_classes_apart():
    """With equal counts every dictionary at equal angles to e is a minimum, of loss log K."""
    distances, loss = optimum_of_counts([5, 5, 5], dimensions=64)
    assert loss == pytest.approx(math.log(3), abs=1e-6)
    assert (distances[~np.eye(3, dtype=bool)] > 1).all()


def test_rare_classes_are_pushed_together_and_away_from_the_frequent_one():
    distances, _ = optimum_of_counts([1000, 10, 10], dimensions=64)
    assert distances[1, 2] < 0.5 * distances[0, 1]
    assert distances[0, 1] == pytest.approx(2, abs=0.05)  # l_CC stops them at a right angle
    assert distances == pytest.approx(distances.T)


def test_minibatches_of_an_epoch_hold_every_row_once():
    draws = minibatches(torch.tensor([1.0, 0, 1, 1, 1]), 2, torch.Generator().manual_seed(0), replacement=False)
    for _ in range(3):
        rows = torch.cat([next(draws), next(draws)])
        assert sorted(rows.tolist()) == [0, 2, 3, 4]


def test_balanced_sampling_draws_every_class_as_often():
    labels = torch.tensor([0] * 90 + [1] * 10)
    chances = torch.where(labels == 0, 1 / 90, 1 / 10)
    rows = next(minibatches(chances, 10_000, torch.Generator().manual_seed(0), replacement=True))
    assert labels[rows].float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_cross_fitted_dictionary_learns_from_other_images_than_the_embedding(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heads, "CLIP_NORM", 1e9)  # the common norm would connect the two
    features, labels = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), torch.arange(40) % 2
    halves = (torch.arange(40) >= 20).long()

    def trained(changed: int) -> CCLHead:
        torch.manual_seed(0)
        head = CCLHead(6, 2, hidden_dim=8, embedding_dim=4)
        other = torch.where((halves == changed)[:, None], 3 * features.flip(0), features)
        train_head(head, other, labels, steps=1, rate=0.1, balance="cross_fitted", halves=halves, batch=20)
        return head

    reference, other_embedding_images, other_dictionary_images = (trained(changed) for changed in (-1, 0, 1))
    assert torch.equal(reference.class_embeddings, other_embedding_images.class_embeddings)
    assert not torch.equal(reference.class_embeddings, other_dictionary_images.class_embeddings)
    assert torch.equal(first_weights(reference), first_weights(other_dictionary_images))
    assert not torch.equal(first_weights(reference), first_weights(other_embedding_images))


def first_weights(head: CCLHead) -> torch.Tensor:
    return next(head.embedding.parameters()).detach()


def test_a_cross_fitted_head_needs_halves():
    with pytest.raises(ValueError, match="halves"):
        train_head(CCLHead(3, 2), torch.randn(4, 3), torch.arange(4) % 2, steps=1, rate=0.1, balance="cross_fitted")


def test_the_gradient_of_the_dictionary_is_that_of_finite_differences():
    torch.manual_seed(0)
    head = CCLHead(5, 3, hidden_dim=8, embedding_dim=4).double()
    features, labels = torch.randn(12, 5, dtype=torch.float64), torch.arange(12) % 3
    gradient = dictionary_gradient(head, features, labels, {})
    step = 1e-6
    with torch.no_grad():
        head.class_embeddings[1, 2] += step
        above = head.loss(features, labels, heads.ALPHA_CC)
        head.class_embeddings[1, 2] -= 2 * step
        below = head.loss(features, labels, heads.ALPHA_CC)
    assert gradient[1, 2].item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-4)


@pytest.mark.parametrize("balance", ["none", "weights", "logits", "sampling"])
def test_a_head_learns_to_tell_separate_classes(balance: heads.Balance):
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 60 + [1] * 20 + [2] * 20)
    features = 4 * torch.eye(3)[labels] + 0.1 * torch.randn(100, 3, generator=generator)
    torch.manual_seed(0)
    head = CCLHead(3, 3, hidden_dim=16, embedding_dim=8)
    steps = []
    train_head(head, features, labels, steps=60, rate=0.05, balance=balance, batch=25, after_step=steps.append)
    assert steps == list(range(1, 61))
    assert torch.equal(head_predictions(head, features), labels)
    assert head.training
    cosines = torch.nn.functional.cosine_similarity(head.class_embeddings[:1], head.class_embeddings[1:2])
    assert distances_of(head)[0, 1] == pytest.approx(2 - 2 * cosines.item(), abs=1e-5)
