"""Fixed targets: class indices, hard labels and label smoothing (LSR, Section 2)."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional


def class_indices(labels: Shaped[Tensor, "..."], num_classes: int) -> Int[Tensor, " n"]:
    """Check that labels are one class 0 … K − 1 per image, and convert them to int64.

    Labels on a GPU are checked there, without synchronisation: a class out of range triggers a device-side assertion,
    as in ``torch.nn.functional.cross_entropy``.

    Args:
        labels: n integers of any type.
        num_classes: K.

    Raises:
        ValueError: the labels have another shape (n × 1, one-hot) or type, or one of them is out of range.
    """
    if labels.ndim != 1:
        raise ValueError(
            f"labels must be one class per image, of shape (n,), not {tuple(labels.shape)}; "
            "of n × 1 labels use labels.squeeze(1), of one-hot labels labels.argmax(dim=1)"
        )
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be integers, not {labels.dtype}; use labels.long() if they are class numbers")
    indices = labels.long()
    if indices.is_meta:
        return indices
    outside = (indices < 0) | (indices >= num_classes)
    if indices.is_cuda or torch.compiler.is_compiling():
        message = f"labels must lie in 0 … {num_classes - 1}"
        torch._assert_async(~outside.any(), message)  # pyright: ignore[reportPrivateImportUsage]
    elif outside.any():
        raise ValueError(f"labels must lie in 0 … {num_classes - 1}, found {indices[outside][0].item()}")
    return indices


def smoothed_targets(
    labels: Int[Tensor, " n"], num_classes: int, epsilon: float, prior: Float[Tensor, " k"] | None = None
) -> Float[Tensor, "n k"]:
    """p^LSR = (1 − ε) y + ε u: hard labels (ε = 0) mixed with a distribution over the classes.

    Args:
        labels: the class of each image, 0 … K − 1.
        num_classes: K.
        epsilon: ε ∈ [0, 1].
        prior: u, the class frequencies of the training images; uniform (1/K) if not given.

    Raises:
        ValueError: the labels are invalid, see ``class_indices``.
    """
    indices = class_indices(labels, num_classes)
    hard = functional.one_hot(indices, num_classes).to(torch.get_default_dtype() if prior is None else prior.dtype)
    u = hard.new_full((num_classes,), 1 / num_classes) if prior is None else prior
    return (1 - epsilon) * hard + epsilon * u


def class_frequencies(class_counts: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The relative frequency of each class, the prior u(k) in the paper's LSR-a1 and LSR-a5."""
    return class_counts / class_counts.sum()
