"""No image at all: what class counts alone make of the dictionary."""

import torch

from cclnet.ccl import CCLHead
from studies.features.data import FixedFeatures
from studies.features.heads import PAPER_RATE, distances_of, optimum_of_counts, train_head
from studies.features.records import Plan, Results, Settings, committed_counts, rounded

NOISE_DIMENSIONS = 512
STEPS = 1008  # 16 epochs of 63 minibatches, as in the study of looks

PLAN: Plan = {
    f"counts-{kind}-{seed}": {"kind": kind, "seed": seed}
    for kind in ("optimum", "none", "weights")
    for seed in range(5)
}


def run(settings: Settings, _: FixedFeatures) -> Results:
    """The optimum from the counts; or a head trained on Gaussian noise with as many images of each class."""
    counts, seed = committed_counts(), settings["seed"]
    if settings["kind"] == "optimum":
        distances, loss = optimum_of_counts(counts, seed=seed)
        return {"counts": counts, "distances": rounded(distances), "loss": round(loss, 6)}
    torch.manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = torch.randn(len(labels), NOISE_DIMENSIONS)
    head = CCLHead(NOISE_DIMENSIONS, len(counts))
    train_head(head, noise, labels, steps=STEPS, rate=PAPER_RATE, balance=settings["kind"], seed=seed)
    return {"counts": counts, "distances": rounded(distances_of(head))}
