"""Targets that are known before training: hard labels and label smoothing (LSR, Section 2, Preliminaries)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def smoothed_targets(
    labels: Int[Tensor, " n"], num_classes: int, epsilon: float, prior: Float[Tensor, " k"] | None = None
) -> Float[Tensor, "n k"]:
    """p^LSR = (1 − ε) y + ε u: hard labels (ε = 0) mixed with a distribution over the classes.

    Args:
        labels: the class of each image, 0 … K − 1.
        num_classes: K.
        epsilon: ε ∈ [0, 1].
        prior: u, the class frequencies of the training images; uniform (1/K) if not given.
    """
    hard = functional.one_hot(labels, num_classes).to(torch.get_default_dtype() if prior is None else prior.dtype)
    u = hard.new_full((num_classes,), 1 / num_classes) if prior is None else prior
    return (1 - epsilon) * hard + epsilon * u


def class_frequencies(class_counts: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The share of each class: u(k) = a priori in the paper's LSR-a1 and LSR-a5."""
    return class_counts / class_counts.sum()
