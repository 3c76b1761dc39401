"""The sizes of the classes exchanged: what follows the size and what the class?"""

import numpy as np
import torch

from cclnet.ccl import CCLHead
from cclnet.dataset.isic import CLASSES
from cclnet.metrics.similarity import ClassSimilarity
from studies.features.data import FixedFeatures
from studies.features.heads import PAPER_RATE, distances_of, train_head
from studies.features.records import Plan, Results, Settings, rounded

SIZES = np.geomspace(92, 4, len(CLASSES)).round().astype(int)
"""Images of the classes, 92 to 4; the smallest class of ISIC 2018 has 115."""
ORDERS = 20
READ_AT = (100, 300, 1000)
BATCH = 64
RATE = 10 * PAPER_RATE

PLAN: Plan = {f"sizes-{order}": {"order": order} for order in range(ORDERS)}


def run(settings: Settings, data: FixedFeatures) -> Results:
    """Draw as many images of each class as the order gives it; train both heads on them, and measure the similarity."""
    generator = np.random.default_rng(settings["order"])
    sizes = generator.permutation(SIZES)
    labels = data.labels.numpy()
    drawn = [generator.choice(np.flatnonzero(labels == place), size, replace=False) for place, size in enumerate(sizes)]
    rows = torch.from_numpy(np.concatenate(drawn))
    features, own = data.features[rows], data.labels[rows]
    found: Results = {"sizes": sizes.tolist()}
    for balance in ("none", "weights"):
        torch.manual_seed(settings["order"])
        head = CCLHead(features.shape[1], len(CLASSES))
        matrices = {}

        def read(step: int, head: CCLHead = head, matrices: dict[str, list[float]] = matrices) -> None:
            if step in READ_AT:
                matrices[str(step)] = rounded(distances_of(head))

        train_head(
            head,
            features,
            own,
            steps=max(READ_AT),
            rate=RATE,
            balance=balance,
            batch=BATCH,
            seed=settings["order"],
            after_step=read,
        )
        found[balance] = matrices
    for estimator in ("class_means", "predictions"):
        measured = ClassSimilarity(estimator, resamples=0, shuffles=0).fit(features.numpy(), own.numpy())
        found[estimator] = rounded(measured.distances_)
    return found
