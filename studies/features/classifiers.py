"""The classifier alone at the paper's full length: every method on fixed features, by repeated cross-validation."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cclnet.ccl import CCLHead, FreezingRule, balancing_weights, classification_loss
from cclnet.dataset.isic import CLASSES
from cclnet.metrics.scores import evaluate
from cclnet.params import Params, TrainParams
from cclnet.training.objectives import build_objective
from cclnet.training.optimizer import build_optimizer, clip_and_step, set_learning_rate
from studies.features.data import FOLDS, FixedFeatures
from studies.features.heads import ALPHA_CC, CLIP_NORM, PAPER_BATCH, PAPER_RATE, distances_of, minibatches
from studies.features.records import Plan, Results, Settings, rounded
from studies.running.grid import base
from studies.running.settings import params_with

EPOCHS, MILESTONES = 200, (100, 150)
METHODS: dict[str, dict[str, object]] = {
    "baseline": {"method": "baseline"},
    "lsr_u1": {"method": "lsr", "label_smoothing.epsilon": 0.1},
    "lsr_u5": {"method": "lsr", "label_smoothing.epsilon": 0.5228},
    "class_means": {"method": "ccl", "soft_label_source": "class_means"},
    "maxsup": {"method": "maxsup"},
    "online_smoothing": {"method": "online_smoothing"},
    "label_confusion": {"method": "label_confusion"},
    "ccl": {"method": "ccl"},
    "ccl_balanced": {"method": "ccl", "head_balance": "weights"},
}
SCORES = ("accuracy", "balanced_accuracy", "f1", "kappa", "nll", "ece")

REPETITIONS = 3
"""Divisions into five folds; the folds of all are numbered on, so that 7 is the third fold of the second division."""

PLAN: Plan = {
    f"classifiers-{method}-{fold}": {"method": method, "fold": fold}
    for fold in range(REPETITIONS * FOLDS)
    for method in METHODS
}


def run(settings: Settings, data: FixedFeatures) -> Results:
    """Train a linear classifier with the paper's schedule on four folds, and score it on the fifth."""
    chosen = base().settings | {"dataset": "isic2018_64", "epochs": EPOCHS} | METHODS[settings["method"]]
    params = Params.model_validate(params_with(chosen)).stage(TrainParams)
    division, place = divmod(settings["fold"], FOLDS)
    training, validation = data.fold(place, seed=division)
    features, labels = data.features[training], data.labels[training]
    torch.manual_seed(settings["fold"])
    learner = Learner(params, features.shape[1], torch.bincount(labels, minlength=len(CLASSES)))
    generator = torch.Generator().manual_seed(settings["fold"])
    draws = minibatches(torch.ones(len(labels)), PAPER_BATCH, generator, replacement=False)
    for epoch in range(1, EPOCHS + 1):
        learner.start_epoch(epoch)
        for _ in range(len(labels) // PAPER_BATCH):
            rows = next(draws)
            learner.step(features[rows], labels[rows])
        learner.end_epoch()
    with torch.inference_mode():
        probabilities = learner.classifier(data.features[validation]).double().softmax(dim=1).numpy()
    scores = evaluate(data.labels[validation].numpy(), probabilities)
    found: Results = {name: round(value, 5) for name in SCORES if (value := scores[name]) is not None}
    found["images"] = len(validation)
    return found | learner.head_results()


class Learner:
    """A linear classifier, with a CCL head beside it if the method has one."""

    def __init__(self, params: TrainParams, num_features: int, counts: Int[Tensor, " k"]) -> None:
        self.classifier = nn.Linear(num_features, len(counts))
        self.objective = build_objective(params, counts, num_features)
        learning = [*self.classifier.parameters(), *self.objective.parameters()]
        self.optimizers = [build_optimizer(learning, params.optimizer.lr_backbone, params)]
        self.head, self.freezing, self.balance = None, None, {}
        if params.has_head:
            self.head = CCLHead(num_features, len(counts))
            self.freezing = FreezingRule(self.head, params.head.freeze_patience, params.head.freeze_at)
            self.optimizers.append(build_optimizer(self.head.parameters(), PAPER_RATE, params))
            self.balance = {"class_weights": balancing_weights(counts)} if params.head_balance == "weights" else {}

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rates."""
        for optimizer in self.optimizers:
            set_learning_rate(optimizer, epoch, MILESTONES)

    def step(self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> None:
        """One minibatch of Algorithm 1; the head stops with its dictionary, since nothing else of it is used."""
        logits = self.classifier(features)
        if self.head:
            loss = classification_loss(logits, labels, self.head.soft_labels())
            if not self.head.frozen:
                loss = loss + self.head.loss(features, labels, ALPHA_CC, **self.balance)
        else:
            loss = self.objective.from_features(features, logits, labels)
        loss.backward()
        for optimizer in self.optimizers[:1] if self.head and self.head.frozen else self.optimizers:
            clip_and_step(optimizer, CLIP_NORM)

    def end_epoch(self) -> None:
        """Update labels that depend on the epoch, and freeze the dictionary by the paper's rule."""
        self.objective.end_epoch()
        if self.head and self.freezing:
            self.freezing.end_epoch(self.head)

    def head_results(self) -> Results:
        """The head's matrix and the epoch of its freeze."""
        if not (self.head and self.freezing):
            return {}
        return {
            "distances": rounded(distances_of(self.head)),
            "frozen_after": self.freezing.convergence.converged_epoch,
        }
