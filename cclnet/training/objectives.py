"""Losses of a classifier without a CCL head: hard and smoothed labels, and related methods from other works.

The related methods (``peers`` in ``params.yaml``, with the settings of their authors) are losses that soften labels. In
all of them l are the logits of an image, q their softmax and y its hard label. The losses are averaged over the
minibatch and computed in float32 or wider. For two methods, the loss in the paper differs from the one in the authors'
code: ``form: equation`` follows the paper, ``form: code`` the code.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cclnet.ccl import at_least_float32, classification_loss, soft_label_matrix
from cclnet.params import TrainParams
from cclnet.targets import class_frequencies, smoothed_targets


class Objective(nn.Module):
    """l_CE(q, p_y): the cross-entropy with given labels, hard or smoothed.

    Args:
        label_matrix: p, K×K; row k is the label of class k.
    """

    label_matrix: Float[Tensor, "k k"]

    def __init__(self, label_matrix: Float[Tensor, "k k"]) -> None:
        super().__init__()
        self.register_buffer("label_matrix", label_matrix)

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """The loss of a minibatch from its logits and the class of each image."""
        return functional.cross_entropy(at_least_float32(logits), self.label_matrix[labels])

    def from_features(
        self, features: Float[Tensor, "n n1"], logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """The loss of a minibatch, computed with the backbone's features, which some methods need."""
        return self(logits, labels)

    def counted(self) -> list[Tensor]:
        """The sums that are accumulated during an epoch; they are added up over several processes."""
        return []

    def end_epoch(self) -> None:
        """Called after the last minibatch of an epoch; labels that depend on the predictions are updated here."""


class AddedLabels(Objective):
    """l_CE(q, y) + l_KL(p_y ‖ q): Eq. 3 with given labels instead of the CCL head's.

    A control that shows which part of CCL-Net's effect depends on learned labels.
    """

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        return classification_loss(logits, labels, self.label_matrix)


class ConfidencePenalty(Objective):
    """l_CE(q, y) − β H(q): a penalty on confident predictions (Pereyra et al., ICLR workshop 2017).

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


Form = Literal["equation", "code"]
"""The version of a loss that differs between a paper and its authors' code."""


class MarginSmoothing(Objective):
    """l_CE(q, y) + λ Σ_k |max_j l_j − l_k − m|₊: margin-based label smoothing (Liu et al., CVPR 2022).

    This is the equation of the paper. The authors' code (github.com/by-liu/MbLS) uses the mean over the classes instead
    of the sum, and their λ was chosen for the mean.

    Args:
        num_classes: K.
        margin: m.
        weight: λ.
        form: ``equation`` for the sum, ``code`` for the mean.
    """

    def __init__(self, num_classes: int, margin: float, weight: float, form: Form = "equation") -> None:
        super().__init__(torch.eye(num_classes))
        self.margin = margin
        self.weight = weight
        self.form = form

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        scores = at_least_float32(logits)
        distances = scores.amax(dim=1, keepdim=True) - scores
        beyond = functional.relu(distances - self.margin)
        penalty = beyond.sum(dim=1).mean() if self.form == "equation" else beyond.mean()
        return functional.cross_entropy(scores, labels) + self.weight * penalty


class MaxSuppression(Objective):
    """l_CE(q, y) + α (max_k l_k − 1/K Σ_k l_k): MaxSup of Zhou et al., NeurIPS 2025.

    Label smoothing with ε = α is l_CE(q, y) + α (l_y − 1/K Σ_k l_k), which rewards errors if another logit is larger
    than l_y. MaxSup replaces the logit of the label by the largest logit. In the paper α is constant: set both weights
    to the same value. In the authors' code for convolutional networks
    (github.com/ZhouYuxuanYX/Maximum-Suppression-Regularization) α increases linearly:
    it is ``weight`` + (``last_weight`` − ``weight``) e/E after e of E epochs.

    Args:
        num_classes: K.
        weight: α of the first epoch.
        last_weight: α after the last epoch.
        epochs: E.
    """

    finished: Int[Tensor, ""]

    def __init__(self, num_classes: int, weight: float, last_weight: float, epochs: int) -> None:
        super().__init__(torch.eye(num_classes))
        self.register_buffer("finished", torch.tensor(0))
        self.weight = weight
        self.last_weight = last_weight
        self.epochs = epochs

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        scores = at_least_float32(logits)
        penalty = (scores.amax(dim=1) - scores.mean(dim=1)).mean()
        weight = self.weight + (self.last_weight - self.weight) * self.finished / self.epochs
        return functional.cross_entropy(scores, labels) + weight * penalty

    def end_epoch(self) -> None:
        self.finished += 1


class VirtualTeacher(Objective):
    """(1 − α) l_CE(q, y) + α τ² l_KL(p_τ ‖ q_τ): Tf-KD_reg of Yuan et al., CVPR 2020.

    The teacher p is fixed: it assigns ``correct`` to the true class and divides the rest equally among the others. The
    temperature softens both the teacher and the network; τ² preserves the scale of the gradient (Hinton et al., 2015).

    This is the equation of the paper. The authors' code (github.com/yuanli2333/Teacher-free-Knowledge-Distillation)
    computes (1 − α) l_CE(q, y) + α μ/K l_KL(softmax(p/τ) ‖ q): its teacher is the softmax of the probabilities p, which
    is nearly uniform at τ = 20; the network is not softened; the divergence is a mean over the classes; and a
    multiplier μ replaces τ². For ResNet-18 on CIFAR-100 the authors set α .1, τ 20 and μ 100 = K.

    Args:
        num_classes: K.
        correct: the teacher's probability of the true class, below 1.
        weight: α.
        temperature: τ.
        form: ``equation`` or ``code``.
        multiplier: μ, used only by ``code``.
    """

    def __init__(
        self,
        num_classes: int,
        correct: float,
        weight: float,
        temperature: float,
        form: Form = "equation",
        multiplier: float = 1.0,
    ) -> None:
        others = (1 - correct) / (num_classes - 1)
        super().__init__(torch.full((num_classes, num_classes), others).fill_diagonal_(correct))
        self.weight = weight
        self.temperature = temperature
        self.form = form
        self.multiplier = multiplier

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        scores = at_least_float32(logits)
        if self.form == "equation":
            teacher = (self.label_matrix.log() / self.temperature).softmax(dim=1)[labels]
            log_q, scale = (scores / self.temperature).log_softmax(dim=1), self.temperature**2
        else:
            teacher = (self.label_matrix / self.temperature).softmax(dim=1)[labels]
            log_q, scale = scores.log_softmax(dim=1), self.multiplier / scores.shape[1]
        divergence = functional.kl_div(log_q, teacher, reduction="batchmean")
        hard = functional.cross_entropy(scores, labels)
        return (1 - self.weight) * hard + self.weight * scale * divergence


class OnlineSmoothing(Objective):
    """α l_CE(q, y) + (1 − α) l_CE(q, S_y): labels from the network's predictions (Zhang et al., IEEE TIP 2021).

    S_k of an epoch is the mean of q over those training images of class k that were classified correctly in the
    previous epoch; in the first epoch it is uniform. The paper does not define S_k if no image of the class was
    classified correctly; here the class keeps its S_k. The two cross-entropies equal one with the label
    α y + (1 − α) S_y, which is row y of the label matrix.

    Args:
        num_classes: K.
        hard_share: α.

    Attributes:
        sums: q summed over the correctly classified images of each class in the current epoch, K×K; only the ratios
            within a row matter.
    """

    sums: Float[Tensor, "k k"]

    def __init__(self, num_classes: int, hard_share: float) -> None:
        super().__init__(smoothed_targets(torch.arange(num_classes), num_classes, 1 - hard_share))
        self.register_buffer("sums", torch.zeros(num_classes, num_classes))
        self.hard_share = hard_share

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """The loss of a minibatch; its predictions are accumulated for the labels of the next epoch."""
        q = at_least_float32(logits.detach()).softmax(dim=1)
        right = q.argmax(dim=1) == labels
        self.sums += functional.one_hot(labels, q.shape[1]).to(q.dtype).T @ (q * right[:, None])
        return super().forward(logits, labels)

    def counted(self) -> list[Tensor]:
        return [self.sums]

    def end_epoch(self) -> None:
        images = self.sums.sum(dim=1, keepdim=True)  # correctly classified images per class: every q sums to 1
        means = self.sums / images.clamp(min=1e-9)
        hard = torch.eye(len(means)).to(means)
        mixed = self.hard_share * hard + (1 - self.hard_share) * means
        self.label_matrix.copy_(torch.where(images > 0, mixed, self.label_matrix))
        self.sums.zero_()


class LabelConfusion(Objective):
    """l_KL(y_s ‖ q) with y_s = softmax(α y + y_c): label confusion learning (Guo et al., AAAI 2021).

    y_c = softmax(W (V f) + b) is the similarity of an image's features f to each class. The class vectors V are
    computed from an embedding of the classes, V = tanh(E A + a). E, A, a, W and b are trained together with the
    backbone, and the gradient also reaches them and f through y_s. This follows the authors' code
    (github.com/beyondguo/label_confusion_learning), where α is 4 and E has 64 columns; its option to stop after some
    epochs is not implemented.

    The label matrix is the mean of y_s over the training images of each class in the previous epoch. In the first epoch
    it is as in label smoothing (y_c uniform).

    Args:
        num_classes: K.
        num_features: n1, the length of f.
        weight: α.
        embedding_dim: number of columns of E.

    Attributes:
        sums: y_s summed over the images of each class in the current epoch, K×K; only the ratios within a row matter.
    """

    sums: Float[Tensor, "k k"]

    def __init__(self, num_classes: int, num_features: int, weight: float, embedding_dim: int) -> None:
        super().__init__((weight * torch.eye(num_classes)).softmax(dim=1))
        self.register_buffer("sums", torch.zeros(num_classes, num_classes))
        self.class_vectors = nn.Sequential(
            nn.Embedding(num_classes, embedding_dim), nn.Linear(embedding_dim, num_features), nn.Tanh()
        )
        self.similarity = nn.Linear(num_classes, num_classes)
        self.weight = weight

    def simulated_labels(self, features: Float[Tensor, "n n1"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n k"]:
        """y_s of each image."""
        classes = torch.arange(len(self.label_matrix), device=features.device)
        products = at_least_float32(features) @ self.class_vectors(classes).T
        confusion = self.similarity(products).softmax(dim=1)
        return (self.weight * functional.one_hot(labels, len(classes)) + confusion).softmax(dim=1)

    def from_features(
        self, features: Float[Tensor, "n n1"], logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """The loss of a minibatch; its labels are accumulated for the label matrix of the next epoch."""
        simulated = self.simulated_labels(features, labels)
        with torch.no_grad():
            self.sums += functional.one_hot(labels, len(self.sums)).to(simulated.dtype).T @ simulated
        log_q = at_least_float32(logits).log_softmax(dim=1)
        return (torch.xlogy(simulated, simulated) - simulated * log_q).sum(dim=1).mean()

    def counted(self) -> list[Tensor]:
        return [self.sums]

    def end_epoch(self) -> None:
        images = self.sums.sum(dim=1, keepdim=True)  # images per class: every y_s sums to 1
        means = self.sums / images.clamp(min=1e-9)
        self.label_matrix.copy_(torch.where(images > 0, means, self.label_matrix))
        self.sums.zero_()


class ClassMeans(Objective):
    """Eq. 3 with soft labels from class means instead of the CCL head's: no head and no dictionary.

    The embedding of a class in Eq. 2 is the mean of its training images' features in the previous epoch, centred on the
    mean of all class means. So classes with similar features share probability, and the class sizes have no influence.
    In the first epoch all classes are equally far from each other, at the largest possible distance.

    Args:
        num_classes: K.
        num_features: n1, the length of the features.
        temperature: divides the distances of Eq. 2.

    Attributes:
        means: the mean features of each class in the last finished epoch that had images of it, K×n1.
        sums: the features summed over the images of each class in the current epoch, K×n1.
        images: the number of these images.
    """

    means: Float[Tensor, "k n1"]
    sums: Float[Tensor, "k n1"]
    images: Float[Tensor, " k"]

    def __init__(self, num_classes: int, num_features: int, temperature: float) -> None:
        super().__init__(_labels_from_means(torch.eye(num_classes), temperature))
        self.register_buffer("means", torch.zeros(num_classes, num_features))
        self.register_buffer("sums", torch.zeros(num_classes, num_features))
        self.register_buffer("images", torch.zeros(num_classes))
        self.temperature = temperature

    def forward(self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        return classification_loss(logits, labels, self.label_matrix)

    def from_features(
        self, features: Float[Tensor, "n n1"], logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """The loss of a minibatch; its features are accumulated for the labels of the next epoch."""
        own = functional.one_hot(labels, len(self.means)).to(self.sums.dtype)
        self.sums += own.T @ features.detach().to(self.sums.dtype)
        self.images += own.sum(dim=0)
        return self(logits, labels)

    def counted(self) -> list[Tensor]:
        return [self.sums, self.images]

    def end_epoch(self) -> None:
        seen = (self.images > 0)[:, None]
        self.means.copy_(torch.where(seen, self.sums / self.images.clamp(min=1e-9)[:, None], self.means))
        self.label_matrix.copy_(_labels_from_means(self.means, self.temperature))
        self.sums.zero_()
        self.images.zero_()


def _labels_from_means(means: Float[Tensor, "k d"], temperature: float) -> Float[Tensor, "k k"]:
    """Eq. 2 of the centred means."""
    return soft_label_matrix(means - means.mean(dim=0), temperature)


def build_objective(params: TrainParams, class_counts: Int[Tensor, " k"], num_features: int) -> Objective:
    """Build the objective of an experiment with any method except ``ccl``.

    Args:
        params: the experiment.
        class_counts: number of training images of each class.
        num_features: n1, the length of the backbone's feature vector.
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
        case "maxsup":
            return MaxSuppression(num_classes, epochs=params.epochs, **dict(peers.maxsup))
        case "label_confusion":
            return LabelConfusion(num_classes, num_features, **dict(peers.label_confusion))
        case "class_means":
            return ClassMeans(num_classes, num_features, params.head.temperature)
        case "online_smoothing":
            return OnlineSmoothing(num_classes, **dict(peers.online_smoothing))
        case _:
            return Objective(torch.eye(num_classes))
