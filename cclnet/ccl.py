"""The CCL head and the mathematics of Wei et al., MICCAI 2020 (CCL-Net), in the order of the paper's Section 2.

Symbols: K classes, n images in a minibatch, features f (n × n1), embeddings e (n × n2), class embeddings c (K × n2,
the dictionary), margin b, weight alpha_cc of the class correlation loss. Everything here is computed in float32 or
wider, whatever precision the backbone runs in.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

RIGHT_ANGLE = 2.0
"""b = (√2)²: two unit vectors less than 90° apart are closer than this (Section 2)."""

DictionaryInit = Literal["uniform", "normal", "positive"]


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, or in their own type where that is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def normalized_distances(a: Float[Tensor, "n d"], b: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
    """f_d(a, b) = ‖a/‖a‖ − b/‖b‖‖² = 2 − 2 cos(a, b) ∈ [0, 4] for every pair of rows (Section 2).

    Written as the difference of unit vectors, not by way of the cosine, so that it is exactly symmetric and never
    negative. Only the angle counts; vectors shorter than 1e-6 are scaled by 1e6 instead, which keeps their gradient
    finite.
    """
    a = functional.normalize(at_least_float32(a), dim=1, eps=1e-6)
    b = functional.normalize(at_least_float32(b), dim=1, eps=1e-6)
    return (a[:, None, :] - b[None, :, :]).square().sum(dim=2)


def class_correlation_loss(class_embeddings: Float[Tensor, "k d"], margin: float = RIGHT_ANGLE) -> Float[Tensor, ""]:
    """l_CC, Eq. 1: the mean of |f_d(c_k1, c_k2) − b|₊ over all K² ordered pairs of classes."""
    return functional.relu(normalized_distances(class_embeddings, class_embeddings) - margin).mean()


def soft_label_matrix(class_embeddings: Float[Tensor, "k d"], temperature: float = 1.0) -> Float[Tensor, "k k"]:
    """Eq. 2: row k is p_k^SL = softmax(−[f_d(c_1, c_k), …, f_d(c_K, c_k)]), the soft label of class k.

    Rows sum to 1 and have their maximum on the diagonal. The distances are symmetric, the matrix in general is not.
    """
    return (-normalized_distances(class_embeddings, class_embeddings) / temperature).softmax(dim=1)


def softness(matrix: Float[Tensor, "k k"]) -> Float[Tensor, ""]:
    """p̄ = 1/K Σ_k p_kk^SL, the average probability that a class gives to itself: the lower, the softer (Section 2)."""
    return matrix.diagonal().mean()


def kullback_leibler_loss(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], soft_labels: Float[Tensor, "k k"]
) -> Float[Tensor, ""]:
    """l_KL(p^SL ‖ q^cls) = Σ_k p_k log(p_k / q_k), averaged over the minibatch; p^SL is the row of its class."""
    log_q = at_least_float32(logits).log_softmax(dim=1)
    p = at_least_float32(soft_labels)[labels]
    return (torch.xlogy(p, p) - p * log_q).sum(dim=1).mean()


def classification_loss(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], soft_labels: Float[Tensor, "k k"]
) -> Float[Tensor, ""]:
    """L_cls = l_CE(q^cls, y) + l_KL(p^SL ‖ q^cls), Eq. 3: what trains the backbone and its classifier.

    Args:
        logits: the classifier's outputs; q^cls is their softmax.
        labels: the class of each image, 0 … K − 1.
        soft_labels: the soft-label matrix, row k for class k, as ``CCLHead.soft_labels`` gives it.
    """
    hard = functional.cross_entropy(at_least_float32(logits), labels)
    return hard + kullback_leibler_loss(logits, labels, soft_labels)


class CCLHead(nn.Module):
    """The CCL block of Fig. 1(c): the embedding f2, the dictionary of class embeddings and the distances between them.

    Attach it to any network that pools a feature vector. Prediction does not use it.

    Args:
        num_features: n1, the length of the backbone's feature vector.
        num_classes: K.
        hidden_dim: width of the two hidden layers of f2.
        embedding_dim: n2, the length of an embedding.
        margin: b of Eq. 1.
        temperature: divides every distance before the softmax; the paper's is 1.
        dictionary_init: how the dictionary starts. f_d ignores length, so the step that an update makes on the sphere
            is lr/‖c‖², and the start matters: ``uniform`` is U(±1/√n2) (‖c‖ ≈ .58, p̄ near .55), ``normal`` N(0, 1)
            (‖c‖ ≈ √n2, which learns far slower), ``positive`` U(0, 1/√n2) (p̄ starts near its lowest).
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden_dim: int = 1024,
        embedding_dim: int = 512,
        *,
        margin: float = RIGHT_ANGLE,
        temperature: float = 1.0,
        dictionary_init: DictionaryInit = "uniform",
    ) -> None:
        super().__init__()
        self.margin = margin
        self.temperature = temperature
        self.embedding = nn.Sequential(
            nn.Linear(num_features, hidden_dim),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, embedding_dim),
        )
        self.class_embeddings = nn.Parameter(initial_dictionary(num_classes, embedding_dim, dictionary_init))

    def forward(self, features: Float[Tensor, "n n1"]) -> Float[Tensor, "n k"]:
        """−d: the negative distances of the images' embeddings to the K class embeddings; q^CCL is their softmax."""
        return -normalized_distances(self.embedding(features), self.class_embeddings) / self.temperature

    def soft_labels(self) -> Float[Tensor, "k k"]:
        """The soft-label matrix of the dictionary as it stands (Eq. 2), cut off from its gradient."""
        return soft_label_matrix(self.class_embeddings.detach(), self.temperature)

    def loss(
        self,
        features: Float[Tensor, "n n1"],
        labels: Int[Tensor, " n"],
        alpha_cc: float = 10.0,
        *,
        class_weights: Float[Tensor, " k"] | None = None,
        log_prior: Float[Tensor, " k"] | None = None,
    ) -> Float[Tensor, ""]:
        """L_CCL = l_CE(q^CCL, y) + α_CC · l_CC(θ_dict): what trains the head (Section 2).

        Args:
            features: the backbone's features; detach them, since this loss is not for the backbone.
            labels: the class of each image, 0 … K − 1.
            alpha_cc: α_CC.
            class_weights: a factor on the cross-entropy of each class (not in the paper), see ``balancing_weights``.
            log_prior: added to −d before the softmax (not in the paper): Menon et al., ICLR 2021, Eq. 10.
        """
        logits = self(features)
        if log_prior is not None:
            logits = logits + log_prior
        per_image = functional.cross_entropy(logits, labels, reduction="none")
        if class_weights is not None:
            per_image = per_image * class_weights[labels]
        return per_image.mean() + alpha_cc * class_correlation_loss(self.class_embeddings, self.margin)

    @torch.no_grad()
    def freeze_dictionary(self, class_embeddings: Float[Tensor, "k d"] | None = None) -> None:
        """Stop learning the dictionary, at the given class embeddings or where it stands.

        Without a gradient an optimizer passes it over: neither momentum nor weight decay moves it any more.
        """
        if class_embeddings is not None:
            self.class_embeddings.copy_(class_embeddings)
        self.class_embeddings.requires_grad_(False)
        self.class_embeddings.grad = None


def initial_dictionary(num_classes: int, embedding_dim: int, init: DictionaryInit) -> Float[Tensor, "k d"]:
    """Random class embeddings; see ``CCLHead`` for what the choice means."""
    bound = 1 / math.sqrt(embedding_dim)
    match init:
        case "uniform":
            return torch.empty(num_classes, embedding_dim).uniform_(-bound, bound)
        case "normal":
            return torch.empty(num_classes, embedding_dim).normal_()
        case "positive":
            return torch.empty(num_classes, embedding_dim).uniform_(0, bound)


def balancing_weights(class_counts: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    """N / (K n_k): weights under which every class has the same say, and all ones where the classes are equal."""
    return class_counts.sum() / (len(class_counts) * class_counts)


class Convergence:
    """The CCL head has converged once p̄ has not dropped for ``patience`` consecutive epochs (Section 2).

    "Does not drop" is: not strictly below the lowest so far. The paper's Table 2 gives 5 "epochs of converge", which
    such a rule cannot reach by its tenth epoch: its column is the epoch of the lowest p̄, so both epochs are kept.

    Attributes:
        epoch: epochs seen so far; the first is 1.
        best_softness: the lowest p̄ so far.
        best_epoch: the epoch it was reached in.
        converged_epoch: the epoch in which the rule fired, None before.
    """

    def __init__(self, patience: int = 10) -> None:
        self.patience = patience
        self.epoch = 0
        self.best_softness = math.inf
        self.best_epoch = 0
        self.converged_epoch: int | None = None

    def update(self, softness: float) -> bool:
        """Count one more epoch that ended with this p̄; True in the one epoch in which the rule fires."""
        self.epoch += 1
        if self.converged_epoch is not None:
            return False
        if softness < self.best_softness:
            self.best_softness, self.best_epoch = softness, self.epoch
        if self.epoch - self.best_epoch < self.patience:
            return False
        self.converged_epoch = self.epoch
        return True

    def state_dict(self) -> dict[str, float | int | None]:
        """What a resumed run needs to keep the count."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float | int | None]) -> None:
        """Take up the count where ``state_dict`` left it."""
        vars(self).update(state)
