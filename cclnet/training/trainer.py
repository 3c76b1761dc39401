"""Algorithm 1: the network, its two optimizers, and the training of one epoch."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cclnet import (
    __version__,
)
from cclnet.ccl import Convergence, balancing_weights, class_correlation_loss, classification_loss, softness
from cclnet.images.augmentation import IMAGENET, Normalization, memory_layout
from cclnet.images.subset import Subset
from cclnet.networks.backbones import compile_backbone, pretrained_constants, synchronise_batch_norm
from cclnet.networks.model_file import ModelDescription, build_model
from cclnet.params import TrainParams
from cclnet.system.errors import CCLNetError
from cclnet.targets import class_frequencies
from cclnet.training.batches import training_batches
from cclnet.training.distributed import ALONE, Processes
from cclnet.training.objectives import build_objective

logger = logging.getLogger(__name__)

LEARNING_RATE_DECAY = 0.1
LAYER_STREAM = 3  # apart from those of the views and of the order: no two uses of the seed share their numbers

Row = dict[str, float | int | None]
"""One epoch of the history."""


class Trainer:
    """The network, its optimizers and the head's convergence: everything that changes from step to step.

    Args:
        params: the experiment.
        class_counts: training images of each class.
        device: where to compute.
        processes: those that train this network together.

    Attributes:
        normalization: of the images, as the backbone's weights expect it.
        layout: how images and weights lie in memory.
        epoch: the epoch that is under way, or the last finished one.
        seen: images that the epoch under way has trained on; 0 between two epochs.
    """

    def __init__(
        self, params: TrainParams, class_counts: Int[Tensor, " k"], device: torch.device, processes: Processes = ALONE
    ) -> None:
        self.params = params
        self.device = device
        self.processes = processes
        torch.manual_seed(params.seed)
        self.model = build_model(
            params.backbone,
            params.weights,
            params.crop,
            len(class_counts),
            with_head=params.method == "ccl",
            margin=params.head.margin,
            temperature=params.head.temperature,
            dictionary_init=params.head.dictionary_init,
        )
        if processes.count > 1 and device.type == "cuda":
            synchronise_batch_norm(self.model, params.backbone)
        constants = pretrained_constants(params.backbone, params.weights)
        self.normalization = Normalization(*constants) if constants else IMAGENET
        self.layout = memory_layout(params.memory_format)
        self.model.to(device=device, memory_format=self.layout)  # pyright: ignore[reportCallIssue]
        if params.computation.compile:
            compile_backbone(self.model.backbone, device)
        self.head = self.model.head
        self.lr_backbone = params.optimizer.lr_backbone * params.lr_backbone_factor
        self.lr_ccl = params.lr_ccl * params.lr_ccl_factor
        self.objective = build_objective(params, class_counts, self.model.classifier.in_features).to(device)
        learning = [*self.model.classifying_parameters(), *self.objective.parameters()]
        self.optimizer = self._optimizer(learning, self.lr_backbone)
        self.head_optimizer = self._optimizer(self.head.parameters(), self.lr_ccl) if self.head else None
        self.convergence = Convergence(params.head.freeze_patience)
        self.best_dictionary = self.head.class_embeddings.detach().clone() if self.head else None
        self.epoch = 0
        self.seen = 0
        self.sums = torch.zeros(4, device=device)

        counts = class_counts.to(device)
        self.balance = {}
        if params.head_balance == "weights":
            self.balance["class_weights"] = balancing_weights(counts)
        elif params.head_balance == "logits":
            self.balance["log_prior"] = class_frequencies(counts).log()

    def _optimizer(self, parameters: Any, learning_rate: float) -> torch.optim.SGD:
        shared = self.params.optimizer
        return torch.optim.SGD(parameters, learning_rate, shared.momentum, weight_decay=shared.weight_decay, fused=True)

    def label_matrix(self) -> Float[Tensor, "k k"]:
        """The labels that train the classifier, row k for class k: soft (Eq. 2), smoothed, or hard."""
        return self.head.soft_labels() if self.head else self.objective.label_matrix

    def train_epoch(self, images: Subset, follow: Callable[[int], None] = lambda images_seen: None) -> Row:
        """Lines 3 to 8 of Algorithm 1: go through the training images once, or through the rest of them after a resume.

        The two losses share no parameter, since the head sees the features without their gradient. So one backward of
        their sum, and then both steps, is the same as the two updates of lines 6 and 7 one after the other with the
        features of line 5.

        Args:
            images: the training images.
            follow: told of the images seen after each step; the trainer may be saved there.

        Raises:
            CCLNetError: a loss is not finite any more.
        """
        if not self.seen:
            self.epoch += 1
        self.model.train()
        self._set_learning_rates()
        half_precision = self.params.computation.precision == "bfloat16"
        batches = training_batches(
            images, self.params, self.epoch, self.device, self.seen, self.processes, self.normalization
        )
        for inputs, labels, batch in batches:  # of several processes, each has its share of the batch
            torch.manual_seed(step_seed(self.params.seed, self.epoch, self.seen + self.processes.rank))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half_precision):
                features = self.model.backbone(inputs)  # f, line 5
                logits = self.model.classifier(features)
            # with p^SL of line 4: before this minibatch's update
            loss = self.classification_loss(logits, labels, features)
            head_loss = self.head_loss(features.detach().float(), labels)
            share = len(labels) / batch
            (share * (loss + head_loss)).backward()
            losses = self._add_up_shares(share * torch.stack([loss.detach(), head_loss.detach()]))
            norm = self._step(self.optimizer)  # θ1 and θ_fc, line 6
            head_norm = self._step(self.head_optimizer)  # θ2 and θ_dict, line 7
            self.sums += batch * torch.stack([*losses, norm, head_norm])
            self.seen += batch
            follow(self.seen)
        row = self._row((self.sums / self.seen).tolist())
        self.seen, self.sums = 0, torch.zeros_like(self.sums)
        self.objective.end_epoch()
        self._freeze_dictionary_if_converged()
        row["frozen"] = int(self.convergence.converged_epoch is not None)
        return row

    def classification_loss(
        self, logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], features: Float[Tensor, "n n1"] | None = None
    ) -> Float[Tensor, ""]:
        """What trains the backbone: L_cls of Eq. 3 with a head, else the method's objective; times ``loss_factor``."""
        if self.head:
            loss = classification_loss(logits, labels, self.head.soft_labels())
        elif features is None:
            loss = self.objective(logits, labels)
        else:
            loss = self.objective.from_features(features, logits, labels)
        return self.params.optimizer.loss_factor * loss

    def head_loss(self, features: Float[Tensor, "n n1"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """L_CCL, what trains the head; zero without one."""
        if self.head:
            return self.head.loss(features, labels, self.params.alpha_cc, **self.balance)
        return features.new_zeros((), dtype=torch.float32)

    def _add_up_shares(self, losses: Float[Tensor, " 2"]) -> Float[Tensor, " 2"]:
        """Losses, gradients and what the objective counts, of the whole minibatch; each process has its share of it."""
        learning = [*self.model.parameters(), *self.objective.parameters()]
        parameters = [parameter for parameter in learning if parameter.grad is not None]
        counted = self.objective.counted()
        own = [losses, *(tensor / self.processes.count for tensor in counted), *(it.grad for it in parameters)]
        losses, *sums = self.processes.added_up(own)
        for tensor, total in zip(counted, sums, strict=False):
            tensor.copy_(total)
        for parameter, gradient in zip(parameters, sums[len(counted) :], strict=True):
            parameter.grad = gradient
        return losses

    def _step(self, optimizer: torch.optim.Optimizer | None) -> Float[Tensor, ""]:
        """Clip this optimizer's gradients, update its parameters; gives the norm of the gradient before clipping."""
        if optimizer is None:
            return torch.zeros((), device=self.device)
        parameters = optimizer.param_groups[0]["params"]
        norm = get_total_norm(parameter.grad for parameter in parameters if parameter.grad is not None)
        if norm.is_cuda or norm > self.params.optimizer.clip_norm:  # to look at a GPU's value is to wait for it
            clip_grads_with_norm_(parameters, self.params.optimizer.clip_norm, norm)
        optimizer.step()
        optimizer.zero_grad()
        return norm

    def _set_learning_rates(self) -> None:
        decay = LEARNING_RATE_DECAY ** sum(self.epoch > milestone for milestone in self.params.milestone_epochs)
        self.optimizer.param_groups[0]["lr"] = self.lr_backbone * decay
        if self.head_optimizer:
            self.head_optimizer.param_groups[0]["lr"] = self.lr_ccl * decay

    def _row(self, means: list[float]) -> Row:
        loss, head_loss, norm, head_norm = means
        if not math.isfinite(loss + head_loss):
            raise CCLNetError(
                f"the loss is not finite in epoch {self.epoch} (classification {loss}, head {head_loss}): "
                "lower optimizer.lr_backbone, lr_ccl or optimizer.clip_norm"
            )
        row: Row = {"epoch": self.epoch, "classification_loss": loss}
        row |= {"ccl_loss": None, "class_correlation_loss": None, "softness": softness(self.label_matrix()).item()}
        row |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "lr_ccl": None}
        row |= {"gradient_norm": norm, "gradient_norm_ccl": None}
        if self.head and self.head_optimizer:
            correlation = class_correlation_loss(self.head.class_embeddings.detach(), self.params.head.margin).item()
            row |= {"ccl_loss": head_loss, "class_correlation_loss": correlation}
            row |= {"lr_ccl": self.head_optimizer.param_groups[0]["lr"], "gradient_norm_ccl": head_norm}
        return row

    def _freeze_dictionary_if_converged(self) -> None:
        if not self.head or self.params.head.freeze_at == "never":
            return
        converged = self.convergence.update(softness(self.head.soft_labels()).item())
        if self.convergence.best_epoch == self.epoch:
            self.best_dictionary = self.head.class_embeddings.detach().clone()
        if converged:
            self.head.freeze_dictionary(self.best_dictionary if self.params.head.freeze_at == "best" else None)

    def describe(self, classes: Sequence[str], short_side: int, ran_on: dict[str, Any]) -> ModelDescription:
        """What the finished model's file says of it."""
        matrix, convergence = self.label_matrix(), self.convergence
        last_learned = convergence.converged_epoch or self.epoch
        restored = convergence.converged_epoch is not None and self.params.head.freeze_at == "best"
        taken_from = convergence.best_epoch if restored else last_learned
        return ModelDescription(
            classes=list(classes),
            backbone=self.params.backbone,
            method=self.params.method,
            short_side=short_side,
            crop=self.params.crop,
            mean=list(self.normalization.mean),
            standard_deviation=list(self.normalization.standard_deviation),
            label_matrix=matrix.tolist(),
            softness=softness(matrix).item(),
            softness_epoch=taken_from if self.head else None,
            lowest_softness_epoch=convergence.best_epoch or None,
            converged_epoch=convergence.converged_epoch,
            params=self.params.model_dump(),
            ran_on=ran_on,
            version=__version__,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on as if it had never stopped."""
        return {
            "epoch": self.epoch,
            "seen": self.seen,
            "sums": self.sums,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "head_optimizer": self.head_optimizer.state_dict() if self.head_optimizer else None,
            "convergence": self.convergence.state_dict(),
            "best_dictionary": self.best_dictionary,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.epoch, self.seen = state["epoch"], state["seen"]
        self.sums = state["sums"].to(self.device)
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.convergence.load_state_dict(state["convergence"])
        if self.head and self.head_optimizer:
            self.head_optimizer.load_state_dict(state["head_optimizer"])
            self.best_dictionary = state["best_dictionary"].to(self.device)
            if self.convergence.converged_epoch is not None:
                self.head.freeze_dictionary()


def step_seed(seed: int, epoch: int, seen: int) -> int:
    """What the layers with chance in them (dropout, stochastic depth) start from in one training step."""
    return int(np.random.SeedSequence([seed, LAYER_STREAM, epoch, seen]).generate_state(1, np.uint64)[0] >> 1)
