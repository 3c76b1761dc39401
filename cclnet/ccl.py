"""The mathematics of Wei et al., MICCAI 2020 (CCL-Net), in the order of the paper's Section 2; the CCL head; the loss.

Symbols: K classes, n images in a minibatch, features f (n × n1), embeddings e (n × n2), class embeddings c (K × n2,
the dictionary), margin b, weight alpha_cc of the class correlation loss. Distances and losses are computed in float32
or wider, whatever precision the network runs in.
"""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from cclnet.targets import class_indices

RIGHT_ANGLE = 2.0
"""b = (√2)²: two unit vectors less than 90° apart are closer than this (Section 2)."""

DictionaryInit = Literal["uniform", "normal", "positive"]
FreezeAt = Literal["best", "current", "never"]

_LARGEST_DIFFERENCES = 2**22
"""Elements of the n × k × d array of differences (16 MiB in float32) up to which distances are computed from it."""


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, or in their own type where that is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def normalized_distances(a: Float[Tensor, "n d"], b: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
    """f_d(a, b) = ‖a/‖a‖ − b/‖b‖‖² = 2 − 2 cos(a, b) ∈ [0, 4] for every pair of rows (Section 2).

    Never negative; the distances of vectors to themselves, ``normalized_distances(a, a)``, are exactly symmetric with
    an exactly zero diagonal. Only the angle counts; vectors shorter than 1e-6 are scaled by 1e6 instead, which keeps
    their gradient finite.

    A small problem is computed from the n × k × d differences of the unit vectors. Where these would take more than
    16 MiB, as with a thousand classes, a matrix product replaces them, in memory of n × k. The two differ by less than
    2e-6 in float32 and 1e-14 in float64.
    """
    unit_a = functional.normalize(at_least_float32(a), dim=1, eps=1e-6)
    unit_b = functional.normalize(at_least_float32(b), dim=1, eps=1e-6)
    if len(a) * len(b) * a.shape[1] <= _LARGEST_DIFFERENCES:
        return (unit_a[:, None, :] - unit_b[None, :, :]).square().sum(dim=2)
    if a is b:
        return _distances_within(unit_a)
    return _distances_by_product(unit_a, unit_b)


def _distances_by_product(a: Float[Tensor, "n d"], b: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
    """‖a‖² + ‖b‖² − 2 a·b for every pair of rows."""
    wide_a, wide_b = _wide(a), _wide(b)
    squares_a, squares_b = wide_a.square().sum(dim=1), wide_b.square().sum(dim=1)
    distances = squares_a[:, None] + squares_b[None, :] - 2 * (wide_a @ wide_b.T)
    return distances.clamp(min=0).to(a.dtype)


def _distances_within(a: Float[Tensor, "k d"]) -> Float[Tensor, "k k"]:
    """The same of every two rows, exactly symmetric: a matrix product may round a·b and b·a differently."""
    products = _wide(a) @ _wide(a).T
    products = (products + products.T) / 2
    squares = products.diagonal()
    return (squares[:, None] + squares[None, :] - 2 * products).clamp(min=0).to(a.dtype)


def _wide(values: Tensor) -> Tensor:
    """The values in float64: no cancellation in their products, and not the lower precision of autocast or TF32.

    MPS has no float64; there they stay as they are.
    """
    return values if values.device.type == "mps" else values.double()


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
    """l_KL(p^SL ‖ q^cls) = Σ_k p_k log(p_k / q_k), averaged over the minibatch; p^SL is the row of its class.

    Raises:
        ValueError: the labels are not the classes of n images, see ``cclnet.targets.class_indices``.
    """
    return _kullback_leibler(logits, class_indices(labels, len(soft_labels)), soft_labels)


def _kullback_leibler(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], soft_labels: Float[Tensor, "k k"]
) -> Float[Tensor, ""]:
    log_q = at_least_float32(logits).log_softmax(dim=1)
    p = at_least_float32(soft_labels)[labels]
    return (torch.xlogy(p, p) - p * log_q).sum(dim=1).mean()


def classification_loss(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], soft_labels: Float[Tensor, "k k"]
) -> Float[Tensor, ""]:
    """L_cls = l_CE(q^cls, y) + l_KL(p^SL ‖ q^cls), Eq. 3: what trains the backbone and its classifier.

    Args:
        logits: the classifier's outputs; q^cls is their softmax.
        labels: the class of each image, 0 … K − 1, as integers of any type.
        soft_labels: the soft-label matrix, row k for class k, as ``CCLHead.soft_labels`` gives it.

    Raises:
        ValueError: the labels are not the classes of n images, see ``cclnet.targets.class_indices``.
    """
    indices = class_indices(labels, len(soft_labels))
    hard = functional.cross_entropy(at_least_float32(logits), indices)
    return hard + _kullback_leibler(logits, indices, soft_labels)


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

    Attributes:
        class_embeddings: θ_dict, the dictionary, K × n2.
        embedding: f2, from n × n1 features to n × n2 embeddings.
        frozen: whether the dictionary has stopped learning; ``state_dict`` keeps it.

    Raises:
        ValueError: ``dictionary_init`` is unknown, or ``temperature`` is not positive.
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
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.num_features = num_features
        self.margin = margin
        self.temperature = temperature
        self.dictionary_init: DictionaryInit = dictionary_init
        self.frozen = False
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
        self.register_load_state_dict_pre_hook(_keep_freeze_if_unknown)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights anew, as the constructor does, and let the dictionary learn.

        It also fills a head that was built on the meta device and given memory by ``to_empty``.
        """
        for layer in self.embedding:
            if isinstance(layer, nn.Linear | nn.BatchNorm1d):
                layer.reset_parameters()
        num_classes, embedding_dim = self.class_embeddings.shape
        self.class_embeddings.copy_(initial_dictionary(num_classes, embedding_dim, self.dictionary_init))
        self._set_frozen(False)

    def forward(self, features: Float[Tensor, "n n1"]) -> Float[Tensor, "n k"]:
        """−d: the negative distances of the images' embeddings to the K class embeddings; q^CCL is their softmax.

        Raises:
            ValueError: the features are not n × n1, or are those of one image in training mode, which batch
                normalization cannot use.
        """
        self._check_features(features)
        embeddings = self.embedding(features.to(self.class_embeddings.dtype))
        return -normalized_distances(embeddings, self._learning_dictionary()) / self.temperature

    def soft_labels(self) -> Float[Tensor, "k k"]:
        """The soft-label matrix of the present dictionary (Eq. 2), without a gradient."""
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
            labels: the class of each image, 0 … K − 1, as integers of any type.
            alpha_cc: α_CC.
            class_weights: a factor on the cross-entropy of each class (not in the paper), see ``balancing_weights``.
            log_prior: added to −d before the softmax (not in the paper): Menon et al., ICLR 2021, Eq. 10.

        Raises:
            ValueError: as ``forward``, or the labels are not the classes of n images.
        """
        indices = class_indices(labels, len(self.class_embeddings))
        logits = self(features)
        if log_prior is not None:
            logits = logits + log_prior
        per_image = functional.cross_entropy(logits, indices, reduction="none")
        if class_weights is not None:
            per_image = per_image * class_weights[indices]
        return per_image.mean() + alpha_cc * class_correlation_loss(self._learning_dictionary(), self.margin)

    @torch.no_grad()
    def freeze_dictionary(self, class_embeddings: Float[Tensor, "k d"] | None = None) -> None:
        """Stop learning the dictionary, at the given class embeddings or at the present ones.

        Without a gradient an optimizer skips it: neither momentum nor weight decay moves it any more.
        """
        if class_embeddings is not None:
            self.class_embeddings.copy_(class_embeddings)
        self._set_frozen(True)

    def get_extra_state(self) -> Tensor:
        """Whether the dictionary is frozen; a tensor, so that safetensors can hold every value of ``state_dict``."""
        return torch.tensor(self.frozen, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Freeze the dictionary, or let it learn, as in the state that is loaded."""
        self._set_frozen(bool(state))

    def _set_frozen(self, frozen: bool) -> None:
        self.frozen = frozen
        self.class_embeddings.requires_grad_(not frozen)
        self.class_embeddings.grad = None

    def _learning_dictionary(self) -> Float[Tensor, "k d"]:
        """The class embeddings, without a gradient if frozen, even if a caller has set ``requires_grad`` since."""
        return self.class_embeddings.detach() if self.frozen else self.class_embeddings

    def _check_features(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(
                f"features must be one vector of {self.num_features} per image, of shape (n, {self.num_features}), "
                f"not {tuple(features.shape)}"
            )
        if len(features) < 2 and any(isinstance(it, nn.BatchNorm1d) and it.training for it in self.embedding.modules()):
            raise ValueError(
                f"a batch of {len(features)} in training mode: the head's batch normalization needs at least 2 images; "
                "use drop_last=True in the DataLoader, or eval() where nothing is trained"
            )


def _keep_freeze_if_unknown(head: CCLHead, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """A state that was saved without the freeze can be loaded, too, and leaves it as it is."""
    state_dict.setdefault(f"{prefix}_extra_state", head.get_extra_state())


def initial_dictionary(num_classes: int, embedding_dim: int, init: DictionaryInit) -> Float[Tensor, "k d"]:
    """Random class embeddings; see ``CCLHead`` for what the choice means.

    Raises:
        ValueError: ``init`` is unknown.
    """
    bound = 1 / math.sqrt(embedding_dim)
    match init:
        case "uniform":
            return torch.empty(num_classes, embedding_dim).uniform_(-bound, bound)
        case "normal":
            return torch.empty(num_classes, embedding_dim).normal_()
        case "positive":
            return torch.empty(num_classes, embedding_dim).uniform_(0, bound)
        case _:
            raise ValueError(f"dictionary_init must be 'uniform', 'normal' or 'positive', not {init!r}")


def balancing_weights(class_counts: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    """N / (K n_k): weights under which every class has the same say, and all ones where the classes are equal."""
    return class_counts.sum() / (len(class_counts) * class_counts)


class Convergence:
    """The CCL head has converged once p̄ has not dropped for ``patience`` consecutive epochs (Section 2).

    "Does not drop" is: not strictly below the lowest so far; an epoch whose p̄ is NaN counts neither as a drop nor as
    none. The paper's Table 2 gives 5 "epochs of converge", which such a rule cannot reach by its tenth epoch: its
    column is the epoch of the lowest p̄, so both epochs are kept.

    Args:
        patience: 1 or more.

    Attributes:
        epoch: epochs seen so far; the first is 1.
        best_softness: the lowest p̄ so far.
        best_epoch: the epoch it was reached in.
        waited: consecutive epochs without a drop.
        converged_epoch: the epoch in which the rule fired, None before.

    Raises:
        ValueError: ``patience`` is below 1.
    """

    def __init__(self, patience: int = 10) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1 epoch, not {patience}")
        self.patience = patience
        self.epoch = 0
        self.best_softness = math.inf
        self.best_epoch = 0
        self.waited = 0
        self.converged_epoch: int | None = None

    def update(self, softness: float) -> bool:
        """Count one more epoch that ended with this p̄; True in the one epoch in which the rule fires."""
        self.epoch += 1
        if self.converged_epoch is not None or math.isnan(softness):
            return False
        if softness < self.best_softness:
            self.best_softness, self.best_epoch, self.waited = softness, self.epoch, 0
        else:
            self.waited += 1
        if self.waited < self.patience:
            return False
        self.converged_epoch = self.epoch
        return True

    def state_dict(self) -> dict[str, float | int | None]:
        """What a resumed run needs to keep the count."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float | int | None]) -> None:
        """Continue the count of ``state_dict``."""
        vars(self).update(state)


class FreezingRule(nn.Module):
    """Freezes a head's dictionary in the epoch in which p̄ has converged (Section 2).

    Args:
        head: the head whose dictionary it keeps; ``end_epoch`` takes it again, for it is no part of this module.
        patience: epochs without a drop of p̄.
        freeze_at: ``best`` restores the dictionary of the epoch with the lowest p̄, ``current`` keeps the one of the
            epoch that ends, ``never`` lets it learn to the end.

    Attributes:
        convergence: the count of epochs.
        best_dictionary: the class embeddings of the epoch with the lowest p̄, K × n2.

    Raises:
        ValueError: ``freeze_at`` is unknown, or ``patience`` is below 1.
    """

    best_dictionary: Float[Tensor, "k d"]

    def __init__(self, head: CCLHead, patience: int = 10, freeze_at: FreezeAt = "best") -> None:
        super().__init__()
        if freeze_at not in ("best", "current", "never"):
            raise ValueError(f"freeze_at must be 'best', 'current' or 'never', not {freeze_at!r}")
        self.freeze_at: FreezeAt = freeze_at
        self.convergence = Convergence(patience)
        self.register_buffer("best_dictionary", head.class_embeddings.detach().clone())

    def end_epoch(self, head: CCLHead) -> bool:
        """Count one more epoch; True in the one epoch at whose end the dictionary freezes."""
        if self.freeze_at == "never":
            return False
        converged = self.convergence.update(softness(head.soft_labels()).item())
        if self.convergence.best_epoch == self.convergence.epoch:
            self.best_dictionary.copy_(head.class_embeddings.detach())
        if converged:
            head.freeze_dictionary(self.best_dictionary if self.freeze_at == "best" else None)
        return converged

    def dictionary_epoch(self, epochs: int) -> int:
        """The epoch whose dictionary the head has after so many epochs."""
        convergence = self.convergence
        if convergence.converged_epoch is None:
            return epochs
        return convergence.best_epoch if self.freeze_at == "best" else convergence.converged_epoch

    def get_extra_state(self) -> Tensor:
        """The count: epoch, lowest p̄ and its epoch, epochs without a drop, epoch of convergence or 0."""
        convergence = self.convergence
        found = convergence.best_softness, convergence.best_epoch, convergence.waited, convergence.converged_epoch or 0
        return torch.tensor([convergence.epoch, *found], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the count."""
        epoch, best_softness, best_epoch, waited, converged_epoch = state.tolist()
        counts = {"epoch": int(epoch), "best_epoch": int(best_epoch), "waited": int(waited)}
        converged = {"converged_epoch": int(converged_epoch) or None}
        self.convergence.load_state_dict({"best_softness": best_softness, **counts, **converged})


class CCLLoss(nn.Module):
    """L_cls (Eq. 3) + L_CCL as one loss for an existing training loop; it contains the CCL head and freezes it.

    ::

        criterion = CCLLoss(num_features=512, num_classes=7)
        optimizer = SGD([{"params": model.parameters()}, {"params": criterion.parameters(), "lr": 0.0005}], lr=0.1)
        ...
        loss = criterion(features, logits, labels)  # in each step
        criterion.end_epoch()  # after each epoch

    L_cls trains the network through the logits, with the soft labels of the present dictionary. L_CCL trains the head
    alone, since the features are detached here. ``state_dict`` holds the head, whether it is frozen, and the count of
    epochs. Call ``eval()`` before a validation loss, as on every module with batch normalization.

    Mixed precision: features and logits may be float16 or bfloat16, within autocast or outside of it. Gradient
    accumulation: divide the loss as usual; the soft labels change with the optimizer's step only.

    ``DistributedDataParallel``: wrap the loss, too, and call it through the wrapper, so that the heads of all processes
    stay equal; with ``find_unused_parameters``, because a frozen dictionary gets no gradient any more. Every process
    ends its epochs (it is a collective operation)::

        model = DistributedDataParallel(model)
        criterion = DistributedDataParallel(CCLLoss(512, 7), find_unused_parameters=True)
        ...
        criterion.module.end_epoch()

    Args:
        num_features: n1, the length of the feature vector that the network's last layer gets.
        num_classes: K.
        alpha_cc: α_CC.
        patience: epochs without a drop of p̄ after which the dictionary freezes.
        freeze_at: ``best``, ``current`` or ``never``, see ``FreezingRule``.
        class_weights: K factors that balance the head's loss over the classes, see ``balancing_weights``.
        log_prior: K numbers added to the head's −d, see ``CCLHead.loss``.
        hidden_dim: of ``CCLHead``.
        embedding_dim: the same.
        margin: the same.
        temperature: the same.
        dictionary_init: the same.

    Attributes:
        head: the CCL head.
        freezing: the rule by which its dictionary freezes.

    Raises:
        ValueError: as ``CCLHead`` and ``FreezingRule``.
    """

    class_weights: Float[Tensor, " k"] | None
    log_prior: Float[Tensor, " k"] | None

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        alpha_cc: float = 10.0,
        *,
        patience: int = 10,
        freeze_at: FreezeAt = "best",
        class_weights: Float[Tensor, " k"] | None = None,
        log_prior: Float[Tensor, " k"] | None = None,
        hidden_dim: int = 1024,
        embedding_dim: int = 512,
        margin: float = RIGHT_ANGLE,
        temperature: float = 1.0,
        dictionary_init: DictionaryInit = "uniform",
    ) -> None:
        super().__init__()
        self.alpha_cc = alpha_cc
        self.head = CCLHead(
            num_features,
            num_classes,
            hidden_dim,
            embedding_dim,
            margin=margin,
            temperature=temperature,
            dictionary_init=dictionary_init,
        )
        self.freezing = FreezingRule(self.head, patience, freeze_at)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("log_prior", log_prior, persistent=False)

    def forward(
        self, features: Float[Tensor, "n n1"], logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """L_cls + L_CCL of a minibatch.

        Args:
            features: what the network's last layer gets.
            logits: what it gives.
            labels: the class of each image, 0 … K − 1, as integers of any type.

        Raises:
            ValueError: as ``CCLHead.loss``, or ``DistributedDataParallel`` would fail once the dictionary freezes.
        """
        self._check_wrapper()
        balance = {"class_weights": self.class_weights, "log_prior": self.log_prior}
        head_loss = self.head.loss(features.detach(), labels, self.alpha_cc, **balance)
        return classification_loss(logits, labels, self.soft_labels()) + head_loss

    def soft_labels(self) -> Float[Tensor, "k k"]:
        """The soft-label matrix of the present dictionary (Eq. 2), without a gradient."""
        return self.head.soft_labels()

    def end_epoch(self) -> bool:
        """Count one more epoch; True in the one epoch at whose end the dictionary freezes.

        Raises:
            RuntimeError: the heads of the processes that train together differ, see ``require_equal_heads``.
        """
        require_equal_heads(self.head)
        return self.freezing.end_epoch(self.head)

    def _check_wrapper(self) -> None:
        """Refuse in the first step what would fail in the first one after the freeze, perhaps hours later."""
        if torch.compiler.is_compiling() or not self.head.class_embeddings.requires_grad:
            return
        wrapper = getattr(DistributedDataParallel, "_active_ddp_module", None)
        fails = wrapper is not None and (wrapper.static_graph or not wrapper.find_unused_parameters)
        if fails and self.freezing.freeze_at != "never":
            raise ValueError(
                "DistributedDataParallel around a CCLLoss needs find_unused_parameters=True and no static_graph, since "
                "its dictionary gets no gradient once it is frozen (or freeze_at='never')"
            )


def require_equal_heads(head: CCLHead) -> None:
    """Refuse heads that differ between the processes that train together; every process has to call it.

    ``CCLLoss.end_epoch`` does. With a bare ``CCLHead``, call it once an epoch. Without several processes it does
    nothing.

    Raises:
        RuntimeError: the dictionaries differ.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    class_embeddings = head.class_embeddings.detach()
    # the largest of every number and of its negative must be this process's own
    own = torch.stack([class_embeddings, -class_embeddings]).nan_to_num()
    largest = own.clone()
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    if not torch.equal(largest, own):
        raise RuntimeError(
            "the CCL heads of the processes differ: wrap the CCLLoss, or the CCLHead, in DistributedDataParallel and "
            "call it through the wrapper, not through .module"
        )
