"""The matrix along the training of the head: what it shows, and for how long."""

import torch

from cclnet.ccl import CCLHead, soft_label_matrix, softness
from cclnet.dataset.isic import CLASSES
from studies.features.data import FixedFeatures
from studies.features.heads import PAPER_BATCH, distances_of, head_predictions, train_head
from studies.features.records import Plan, Results, Settings, rounded

BALANCES = ("none", "weights", "logits", "sampling", "cross_fitted")
RATES = (0.0005, 0.005)
EPOCHS = 40

PLAN: Plan = {
    f"course-{balance}-{rate}-{labels}-{seed}": {"balance": balance, "rate": rate, "labels": labels, "seed": seed}
    for seed in range(3)
    for labels in ("original", "shuffled")
    for balance in BALANCES
    for rate in RATES
    if labels == "original" or (balance in ("none", "weights") and seed == 0)
}


def run(settings: Settings, data: FixedFeatures) -> Results:
    """Train a head for ``EPOCHS``, and read its matrix and its accuracy after each."""
    seed = settings["seed"]
    training, validation = data.split(seed)
    features, labels = data.features[training], data.labels[training]
    if settings["labels"] == "shuffled":
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    halves = (data.lesions[training] + seed) % 2
    torch.manual_seed(seed)
    head = CCLHead(features.shape[1], len(CLASSES))
    steps = len(features) // PAPER_BATCH
    found: Results = {"distances": [], "softness": [], "accuracy": [], "validation_accuracy": [], "recall": []}

    def read(step: int) -> None:
        if step % steps:
            return
        found["distances"].append(rounded(distances_of(head)))
        found["softness"].append(round(softness(soft_label_matrix(head.class_embeddings.detach())).item(), 5))
        found["accuracy"].append(_share(head_predictions(head, features) == labels))
        right = head_predictions(head, data.features[validation]) == data.labels[validation]
        found["validation_accuracy"].append(_share(right))
        by_class = [right[data.labels[validation] == place].float().mean() for place in range(len(CLASSES))]
        found["recall"].append(round(torch.stack(by_class).mean().item(), 4))

    train_head(
        head,
        features,
        labels,
        steps=EPOCHS * steps,
        rate=settings["rate"],
        balance=settings["balance"],
        halves=halves,
        seed=seed,
        after_step=read,
    )
    return found


def _share(right: torch.Tensor) -> float:
    return round(right.float().mean().item(), 4)
