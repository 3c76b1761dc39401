"""Training of the paper's CCL head on fixed features, with its matrix read on the way."""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from cclnet.ccl import CCLHead, balancing_weights, class_correlation_loss, normalized_distances
from cclnet.targets import class_frequencies

ALPHA_CC = 10.0
MOMENTUM, WEIGHT_DECAY, CLIP_NORM = 0.9, 1e-4, 2.0
PAPER_RATE = 0.0005
PAPER_BATCH = 128

Balance = Literal["none", "weights", "logits", "sampling", "cross_fitted"]
"""How the head's loss is balanced over the classes. ``cross_fitted``: by weights, and the dictionary learns from images
that the embedding does not learn from, half of the lesions each."""


def train_head(
    head: CCLHead,
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    steps: int,
    rate: float,
    balance: Balance = "none",
    halves: Int[Tensor, " n"] | None = None,
    batch: int = PAPER_BATCH,
    seed: int = 0,
    after_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Train the head with the paper's optimizer at a constant rate, without a freeze.

    Args:
        head: the head.
        features, labels: of the training images.
        steps: minibatches.
        rate: lr_CCL.
        balance: see ``Balance``.
        halves: 0 or 1 for each image; 0 trains the embedding and 1 the dictionary if ``cross_fitted``.
        batch: images of a minibatch.
        seed: of the order of the images.
        after_step: called with the number of steps so far.
    """
    counts = torch.bincount(labels, minlength=len(head.class_embeddings))
    arguments = {}
    if balance in ("weights", "cross_fitted"):
        arguments["class_weights"] = balancing_weights(counts)
    if balance == "logits":
        arguments["log_prior"] = class_frequencies(counts).log()
    optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(seed)
    chances = (1 / counts)[labels] if balance == "sampling" else torch.ones(len(labels))
    sides = [torch.ones(len(labels))]
    if balance == "cross_fitted":
        if halves is None:
            raise ValueError("a cross-fitted head needs the halves of the images")
        sides = [(halves == side).float() for side in (0, 1)]
    draws = [minibatches(chances * side, batch, generator, replacement=balance == "sampling") for side in sides]
    head.train()
    for step in range(1, steps + 1):
        rows = [next(draw) for draw in draws]
        optimizer.zero_grad()
        head.loss(features[rows[0]], labels[rows[0]], ALPHA_CC, **arguments).backward()
        if len(rows) == 2:
            head.class_embeddings.grad = dictionary_gradient(head, features[rows[1]], labels[rows[1]], arguments)
        torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP_NORM)
        optimizer.step()
        after_step(step)


def dictionary_gradient(
    head: CCLHead, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], arguments: dict[str, Tensor]
) -> Float[Tensor, "k e"]:
    """The gradient of L_CCL by the dictionary alone."""
    return torch.autograd.grad(head.loss(features, labels, ALPHA_CC, **arguments), head.class_embeddings)[0]


def minibatches(
    chances: Float[Tensor, " n"], batch: int, generator: torch.Generator, *, replacement: bool
) -> Iterator[Int[Tensor, " b"]]:
    """Rows of minibatches without end: epochs in a random order, or draws with replacement by the chances."""
    rows = chances.nonzero()[:, 0]
    while True:
        if replacement:
            yield rows[torch.multinomial(chances[rows], batch, replacement=True, generator=generator)]
            continue
        order = rows[torch.randperm(len(rows), generator=generator)]
        whole = order[: max(1, len(order) // batch) * batch]
        yield from whole.split(batch)


def distances_of(head: CCLHead) -> NDArray[np.float64]:
    """f_d between the class embeddings, K×K."""
    dictionary = head.class_embeddings.detach().double()
    return normalized_distances(dictionary, dictionary).numpy()


@torch.no_grad()
def head_predictions(head: CCLHead, features: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """The class whose embedding is the nearest to each image's."""
    training = head.training
    head.eval()
    nearest = torch.cat([head(part).argmax(dim=1) for part in features.split(2048)])
    head.train(training)
    return nearest


def optimum_of_counts(
    counts: ArrayLike, alpha_cc: float = ALPHA_CC, dimensions: int = 512, steps: int = 3000, seed: int = 0
) -> tuple[NDArray[np.float64], float]:
    """The minimum of L_CCL of a head whose features carry no information about the class.

    All images then have the same embedding e, so L_CCL = −Σ_k π_k log softmax_k(2 cos(e, c)) + α_CC l_CC(c), a
    function of K + 1 unit vectors without a free parameter. Several dictionaries reach its minimum, since only the
    angles to e and pairs beyond a right angle count. Adam from a random start in n2 dimensions ends at a symmetric one.

    Returns:
        The distances f_d between the class embeddings, K×K, and the loss.
    """
    images = torch.as_tensor(np.asarray(counts), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(len(images) + 1, dimensions, generator=generator, dtype=torch.float64)
    vectors = functional.normalize(start).requires_grad_(True)
    optimizer = torch.optim.Adam([vectors], lr=0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss = torch.zeros(())
    for _ in range(steps):
        optimizer.zero_grad()
        log_q = (-normalized_distances(vectors[:1], vectors[1:])).log_softmax(dim=1)[0]
        loss = alpha_cc * class_correlation_loss(vectors[1:]) - (images / images.sum() * log_q).sum()
        loss.backward()
        optimizer.step()
        schedule.step()
    dictionary = vectors[1:].detach()
    return normalized_distances(dictionary, dictionary).numpy(), loss.item()
