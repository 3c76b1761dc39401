"""Algorithm 1: the network, its two optimizers, and the training of one epoch."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cclnet.ccl import FreezingRule, balancing_weights, classification_loss
from cclnet.images.augmentation import IMAGENET, Normalization, memory_layout
from cclnet.images.subset import Subset
from cclnet.networks.backbones import (
    compile_backbone,
    faster_memory_format,
    pretrained_constants,
    synchronise_batch_norm,
)
from cclnet.networks.model import CCLNet, build_model
from cclnet.params import TrainParams
from cclnet.targets import class_frequencies
from cclnet.training.batches import training_batches
from cclnet.training.distributed import ALONE, Processes
from cclnet.training.history import Means, Row, history_row
from cclnet.training.objectives import build_objective
from cclnet.training.optimizer import build_optimizer, clip_and_step, set_learning_rate

LAYER_STREAM = 3  # differs from those of views and order, so that no two uses of the seed share random numbers


class Trainer:
    """The network, its optimizers and the head's convergence: everything that changes during training.

    Args:
        params: the experiment.
        class_counts: number of training images of each class.
        device: where to compute.
        processes: the processes that train this network together.
        soft_labels: the labels of Eq. 3 where ``soft_label_source`` is a file, row k for class k.

    Attributes:
        model: the network; its ``head`` is the CCL head, None if the method or its soft labels need none.
        objective: the loss of the classifier if there is no head.
        freezing: the rule that freezes the head's dictionary.
        epoch: the current epoch, or the last finished one.
        seen: number of images that the current epoch has trained on; 0 between two epochs.
    """

    def __init__(
        self,
        params: TrainParams,
        class_counts: Int[Tensor, " k"],
        device: torch.device,
        processes: Processes = ALONE,
        soft_labels: Float[Tensor, "k k"] | None = None,
    ) -> None:
        torch.manual_seed(params.seed)
        self.model, memory_format = _network(params, len(class_counts), device, processes)  # line 1 of Algorithm 1
        self.params = params = params.model_copy(update={"memory_format": memory_format})
        self.device = device
        self.processes = processes
        self.head = self.model.head
        constants = pretrained_constants(params.backbone, params.weights)
        self.normalization = Normalization(*constants) if constants else IMAGENET
        self.layout = memory_layout(params.memory_format)
        num_features = self.model.classifier.in_features
        self.objective = build_objective(params, class_counts, num_features, soft_labels).to(device)
        self.balance = _head_balance(params, class_counts.to(device))

        learning = [*self.model.classifying_parameters(), *self.objective.parameters()]
        lr_backbone = params.optimizer.lr_backbone * params.lr_backbone_factor
        self.optimizer = build_optimizer(learning, lr_backbone, params)
        self.head_optimizer, self.freezing = None, None
        if self.head:
            lr_ccl = params.lr_ccl * params.lr_ccl_factor
            self.head_optimizer = build_optimizer(self.head.parameters(), lr_ccl, params)
            self.freezing = FreezingRule(self.head, params.head.freeze_patience, params.head.freeze_at)
        self.shared_losses = processes.sharing_gradients(self.losses, [self.model, self.objective])
        self.epoch = 0
        self.seen = 0
        self.sums = torch.zeros(len(Means._fields), device=device)

    def train_epoch(self, images: Subset, follow: Callable[[int], None] = lambda images_seen: None) -> Row:
        """Lines 3 to 8 of Algorithm 1: train on every training image once, or on the remaining ones after a resume.

        Args:
            images: the training images.
            follow: called after each step with the number of images seen; the trainer may be saved there.

        Raises:
            CCLNetError: a loss is no longer finite.
        """
        self._start_epoch()
        batches = training_batches(
            images, self.params, self.epoch, self.device, self.seen, self.processes, self.normalization
        )
        for inputs, labels, batch in batches:  # line 3
            torch.manual_seed(step_seed(self.params.seed, self.epoch, self.seen + self.processes.rank))
            self.train_step(inputs, labels, batch)
            follow(self.seen)
        return self._end_epoch()

    def train_step(self, inputs: Float[Tensor, "n 3 h w"], labels: Int[Tensor, " n"], batch: int) -> None:
        """Lines 4 to 7 of Algorithm 1 for one minibatch.

        The two losses share no parameter, because the head receives detached features. So one backward pass of their
        sum followed by both optimizer steps is equivalent to the updates of lines 6 and 7 one after the other, with the
        features of line 5.

        Args:
            inputs: this process's share of the minibatch's images.
            labels: their classes.
            batch: number of images of the whole minibatch.
        """
        loss, head_loss = self.shared_losses(inputs, labels)
        share = len(labels) / batch
        self.processes.backward(share * (loss + head_loss))
        losses = share * torch.stack([loss.detach(), head_loss.detach()])
        self._sum_over_processes(losses)

        norm = self._step(self.optimizer)  # θ1 and θ_fc, line 6
        head_norm = self._step(self.head_optimizer)  # θ2 and θ_dict, line 7
        self.sums += batch * torch.stack([*losses, norm, head_norm])
        self.seen += batch

    def losses(
        self, inputs: Float[Tensor, "n 3 h w"], labels: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Lines 4 and 5 of Algorithm 1: the losses of the backbone and of the head, which gets detached features."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.params.computation.precision == "bfloat16"):
            features, logits = self.model(inputs, with_features=True)  # f, line 5
        # with p^SL of line 4, from θ_dict before this minibatch
        loss = self.classification_loss(logits, labels, features)
        return loss, self.head_loss(features.detach(), labels)

    def label_matrix(self) -> Float[Tensor, "k k"]:
        """The labels that train the classifier, with row k for class k: soft (Eq. 2), smoothed, or hard."""
        return self.head.soft_labels() if self.head else self.objective.label_matrix

    def classification_loss(
        self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], features: Float[Tensor, "n n1"] | None = None
    ) -> Float[Tensor, ""]:
        """The loss of the backbone, times ``loss_factor``: L_cls of Eq. 3 with a head, otherwise the objective."""
        if self.head:
            loss = classification_loss(logits, labels, self.head.soft_labels())
        elif features is None:
            loss = self.objective(logits, labels)
        else:
            loss = self.objective.from_features(features, logits, labels)
        return self.params.optimizer.loss_factor * loss

    def head_loss(self, features: Float[Tensor, "n n1"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """L_CCL, the loss of the head; zero without a head."""
        if self.head:
            return self.head.loss(features, labels, self.params.alpha_cc, **self.balance)
        return features.new_zeros((), dtype=torch.float32)

    def _start_epoch(self) -> None:
        if not self.seen:
            self.epoch += 1
        self.model.train()
        for optimizer in (self.optimizer, self.head_optimizer):
            if optimizer:
                set_learning_rate(optimizer, self.epoch, self.params.milestone_epochs)

    def _end_epoch(self) -> Row:
        means = Means(*(self.sums / self.seen).tolist())
        row = history_row(self.epoch, means, self.label_matrix(), self.optimizer, self.head, self.head_optimizer)
        self.seen, self.sums = 0, torch.zeros_like(self.sums)
        self.objective.end_epoch()
        if self.head and self.freezing:
            self.freezing.end_epoch(self.head)
        return row | {"frozen": int(self.head is not None and self.head.frozen)}

    def _sum_over_processes(self, losses: Float[Tensor, " 2"]) -> None:
        """Sum the losses and the objective's accumulated sums over the processes."""
        counted = self.objective.counted()
        for tensor in counted:
            tensor /= self.processes.count  # it already contains the sum of earlier minibatches
        self.processes.add_up([losses, *counted])

    def _step(self, optimizer: torch.optim.SGD | None) -> Float[Tensor, ""]:
        """Update once; return the norm of the gradient before clipping, zero without an optimizer."""
        if optimizer is None:
            return torch.zeros((), device=self.device)
        return clip_and_step(optimizer, self.params.optimizer.clip_norm)

    def state_dict(self) -> dict[str, Any]:
        """Everything that another process needs to resume training exactly."""
        return {
            "epoch": self.epoch,
            "seen": self.seen,
            "sums": self.sums,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "head_optimizer": self.head_optimizer.state_dict() if self.head_optimizer else None,
            "freezing": self.freezing.state_dict() if self.freezing else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from ``state_dict``."""
        self.epoch, self.seen = state["epoch"], state["seen"]
        self.sums = state["sums"].to(self.device)
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.head_optimizer and self.freezing:
            self.head_optimizer.load_state_dict(state["head_optimizer"])
            self.freezing.load_state_dict(state["freezing"])


def _network(
    params: TrainParams, num_classes: int, device: torch.device, processes: Processes
) -> tuple[CCLNet, Literal["contiguous", "channels_last"]]:
    """The experiment's network on its device, with new or pretrained weights, and its memory format."""
    model = build_model(
        params.backbone,
        params.weights,
        params.crop,
        num_classes,
        with_head=params.has_head,
        margin=params.head.margin,
        temperature=params.head.temperature,
        dictionary_init=params.head.dictionary_init,
    )
    if processes.count > 1 and device.type == "cuda":
        synchronise_batch_norm(model, params.backbone)
    memory_format = params.memory_format
    if memory_format == "auto":
        memory_format = faster_memory_format(model.backbone, params.crop, device, params.processor)
    model.to(device=device, memory_format=memory_layout(memory_format))  # pyright: ignore[reportCallIssue]
    if params.computation.compile:
        compile_backbone(model.backbone, device)
    return model, memory_format


def _head_balance(params: TrainParams, class_counts: Int[Tensor, " k"]) -> dict[str, Float[Tensor, " k"]]:
    """The arguments of ``CCLHead.loss`` that balance it over the classes."""
    if params.head_balance == "weights":
        return {"class_weights": balancing_weights(class_counts)}
    if params.head_balance == "logits":
        return {"log_prior": class_frequencies(class_counts).log()}
    return {}


def step_seed(seed: int, epoch: int, seen: int) -> int:
    """The seed of one training step, for layers that use random numbers (dropout, stochastic depth)."""
    return int(np.random.SeedSequence([seed, LAYER_STREAM, epoch, seen]).generate_state(1, np.uint64)[0] >> 1)
