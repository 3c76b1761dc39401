"""What trains a classifier that has no CCL head: hard and smoothed labels, and the peers of the paper's idea.

The peers are losses by which other works soften labels; the settings in ``params.yaml`` are those that the works use.
In all of them l are the logits of an image, q their softmax and y its hard label; the losses are averaged over the
minibatch and computed in float32 or wider.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cclnet.ccl import at_least_float32, classification_loss
from cclnet.params import TrainParams
from cclnet.targets import class_frequencies, smoothed_targets


class Objective(nn.Module):
    """l_CE(q, p_y): the cross-entropy with labels that are given, hard or smoothed.

    Args:
        label_matrix: p, K×K, row k is the label of class k.
    """

    label_matrix: Float[Tensor, "k k"]

    def __init__(self, label_matrix: Float[Tensor, "k k"]) -> None:
        super().__init__()
        self.register_buffer("label_matrix", label_matrix)

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """The loss of a minibatch from its logits and the class of each image."""
        return functional.cross_entropy(at_least_float32(logits), self.label_matrix[labels])

    def counted(self) -> list[Tensor]:
        """What the predictions add up to in the epoch under way; several processes have it in common."""
        return []

    def end_epoch(self) -> None:
        """Called after the last minibatch of an epoch; labels that follow the predictions change here."""


class AddedLabels(Objective):
    """l_CE(q, y) + l_KL(p_y ‖ q): Eq. 3 with labels that are given in the place of the CCL head's.

    A control: what of CCL-Net's effect needs labels that are learned?
    """

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        return classification_loss(logits, labels, self.label_matrix)


class ConfidencePenalty(Objective):
    """l_CE(q, y) − β H(q): confidence costs (Pereyra et al., ICLR workshop 2017).

    Args:
        num_classes: K.
        weight: β.
    """

    def __init__(self, num_classes: int, weight: float) -> None:
        super().__init__(torch.eye(num_classes))
        self.weight = weight

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        log_q = at_least_float32(logits).log_softmax(dim=1)
        entropy = -(log_q.exp() * log_q).sum(dim=1).mean()
        return functional.nll_loss(log_q, labels) - self.weight * entropy


class MarginSmoothing(Objective):
    """l_CE(q, y) + λ Σ_k |max_j l_j − l_k − m|₊: label smoothing of logits too far apart (Liu et al., CVPR 2022).

    Args:
        num_classes: K.
        margin: m.
        weight: λ.
    """

    def __init__(self, num_classes: int, margin: float, weight: float) -> None:
        super().__init__(torch.eye(num_classes))
        self.margin = margin
        self.weight = weight

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        scores = at_least_float32(logits)
        distances = scores.amax(dim=1, keepdim=True) - scores
        beyond = functional.relu(distances - self.margin).sum(dim=1).mean()
        return functional.cross_entropy(scores, labels) + self.weight * beyond


class VirtualTeacher(Objective):
    """(1 − α) l_CE(q, y) + α τ² l_KL(p_τ ‖ q_τ): Tf-KD_reg of Yuan et al., CVPR 2020.

    The teacher p is made by hand: it gives ``correct`` to the right class and the rest in equal parts to the others. It
    and the network are both softened by the temperature; τ² keeps the gradient's size (Hinton et al., 2015).

    Args:
        num_classes: K.
        correct: what the teacher gives to the right class, below 1.
        weight: α.
        temperature: τ.
    """

    def __init__(self, num_classes: int, correct: float, weight: float, temperature: float) -> None:
        others = (1 - correct) / (num_classes - 1)
        super().__init__(torch.full((num_classes, num_classes), others).fill_diagonal_(correct))
        self.weight = weight
        self.temperature = temperature

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        scores = at_least_float32(logits)
        teacher = (self.label_matrix.log() / self.temperature).softmax(dim=1)[labels]
        log_q = (scores / self.temperature).log_softmax(dim=1)
        divergence = functional.kl_div(log_q, teacher, reduction="batchmean")
        hard = functional.cross_entropy(scores, labels)
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * divergence


class OnlineSmoothing(Objective):
    """α l_CE(q, y) + (1 − α) l_CE(q, S_y): labels that the network made itself (Zhang et al., IEEE TIP 2021).

    S_k of an epoch is the mean of q over those training images of class k that were predicted right in the epoch
    before; in the first epoch it is uniform. The work does not say what becomes of a class of which no image was right:
    it keeps the S_k that it has. The two cross-entropies are one, with the label α y + (1 − α) S_y: the label matrix.

    Args:
        num_classes: K.
        hard_share: α.

    Attributes:
        sums: q summed over the right images of each class in the epoch under way, K×K. Only their proportions count.
    """

    sums: Float[Tensor, "k k"]

    def __init__(self, num_classes: int, hard_share: float) -> None:
        super().__init__(smoothed_targets(torch.arange(num_classes), num_classes, 1 - hard_share))
        self.register_buffer("sums", torch.zeros(num_classes, num_classes))
        self.hard_share = hard_share

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """The loss of a minibatch, whose predictions count for the labels of the next epoch."""
        q = at_least_float32(logits.detach()).softmax(dim=1)
        right = q.argmax(dim=1) == labels
        self.sums += functional.one_hot(labels, q.shape[1]).to(q.dtype).T @ (q * right[:, None])
        return super().forward(logits, labels)

    def counted(self) -> list[Tensor]:
        return [self.sums]

    def end_epoch(self) -> None:
        images = self.sums.sum(dim=1, keepdim=True)  # the right ones of each class, since every q sums to 1
        means = self.sums / images.clamp(min=1e-9)
        hard = torch.eye(len(means)).to(means)
        mixed = self.hard_share * hard + (1 - self.hard_share) * means
        self.label_matrix.copy_(torch.where(images > 0, mixed, self.label_matrix))
        self.sums.zero_()


def build_objective(params: TrainParams, class_counts: Int[Tensor, " k"]) -> Objective:
    """The objective of an experiment whose method is any but ``ccl``.

    Args:
        params: the experiment.
        class_counts: training images of each class.
    """
    num_classes, peers = len(class_counts), params.peers
    prior = class_frequencies(class_counts) if params.label_smoothing.prior == "frequency" else None
    classes = torch.arange(num_classes)
    match params.method:
        case "lsr":
            return Objective(smoothed_targets(classes, num_classes, params.label_smoothing.epsilon, prior))
        case "lsr_kl":
            return AddedLabels(smoothed_targets(classes, num_classes, params.label_smoothing.epsilon, prior))
        case "confidence_penalty":
            return ConfidencePenalty(num_classes, **dict(peers.confidence_penalty))
        case "margin_smoothing":
            return MarginSmoothing(num_classes, **dict(peers.margin_smoothing))
        case "virtual_teacher":
            return VirtualTeacher(num_classes, **dict(peers.virtual_teacher))
        case "online_smoothing":
            return OnlineSmoothing(num_classes, **dict(peers.online_smoothing))
        case _:
            return Objective(torch.eye(num_classes))
