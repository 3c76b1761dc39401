"""The classifier alone at the paper's full length: every method on fixed features, by five-fold cross-validation."""

import torch
from torch import nn

from cclnet.ccl import CCLHead, FreezingRule, balancing_weights, classification_loss
from cclnet.dataset.isic import CLASSES
from cclnet.metrics.scores import evaluate
from cclnet.params import Params, TrainParams
from cclnet.training.objectives import build_objective
from cclnet.training.optimizer import build_optimizer, set_learning_rate
from studies.features.data import FOLDS, FixedFeatures
from studies.features.heads import ALPHA_CC, CLIP_NORM, PAPER_BATCH, PAPER_RATE, distances_of, minibatches
from studies.features.records import Plan, Results, Settings, rounded
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

PLAN: Plan = {
    f"classifiers-{method}-{fold}": {"method": method, "fold": fold} for fold in range(FOLDS) for method in METHODS
}


def run(settings: Settings, data: FixedFeatures) -> Results:
    """Train a linear classifier with the paper's schedule on four folds, and score it on the fifth."""
    fold = settings["fold"]
    chosen = {"dataset": "isic2018_64", "epochs": EPOCHS, **METHODS[settings["method"]]}
    params = Params.model_validate(params_with(chosen)).stage(TrainParams)
    training, validation = data.fold(fold)
    features, labels = data.features[training], data.labels[training]
    counts = torch.bincount(labels, minlength=len(CLASSES))
    torch.manual_seed(fold)
    classifier = nn.Linear(features.shape[1], len(CLASSES))
    objective = build_objective(params, counts, features.shape[1])
    optimizer = build_optimizer(
        [*classifier.parameters(), *objective.parameters()], params.optimizer.lr_backbone, params
    )
    head, balance = None, {}
    if params.has_head:
        head = CCLHead(features.shape[1], len(CLASSES))
        freezing = FreezingRule(head, params.head.freeze_patience, params.head.freeze_at)
        head_optimizer = build_optimizer(head.parameters(), PAPER_RATE, params)
        balance = {"class_weights": balancing_weights(counts)} if params.head_balance == "weights" else {}
    generator = torch.Generator().manual_seed(fold)
    draws = minibatches(torch.ones(len(labels)), PAPER_BATCH, generator, replacement=False)
    steps = len(labels) // PAPER_BATCH
    for epoch in range(1, EPOCHS + 1):
        set_learning_rate(optimizer, epoch, MILESTONES)
        if head:
            set_learning_rate(head_optimizer, epoch, MILESTONES)
        for _ in range(steps):
            rows = next(draws)
            inputs, own = features[rows], labels[rows]
            logits = classifier(inputs)
            if head:
                loss = classification_loss(logits, own, head.soft_labels())
                if not head.frozen:  # what a frozen dictionary's embedding learns changes nothing
                    loss = loss + head.loss(inputs, own, ALPHA_CC, **balance)
            else:
                loss = objective.from_features(inputs, logits, own)
            loss.backward()
            for each in (optimizer, head_optimizer) if head and not head.frozen else (optimizer,):
                for group in each.param_groups:
                    nn.utils.clip_grad_norm_(group["params"], CLIP_NORM)
                each.step()
                each.zero_grad()
        objective.end_epoch()
        if head:
            freezing.end_epoch(head)
    with torch.inference_mode():
        probabilities = classifier(data.features[validation]).double().softmax(dim=1).numpy()
    scores = evaluate(data.labels[validation].numpy(), probabilities)
    found: Results = {name: round(float(scores[name]), 5) for name in SCORES}
    found["images"] = len(validation)
    if head:
        found["distances"] = rounded(distances_of(head))
        found["frozen_after"] = freezing.convergence.converged_epoch
    return found
