import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from cclnet.targets import class_frequencies, smoothed_targets

K = 7
NV, DF = 1, 5
# the training images of the 80:20 split: all of ISIC 2018 less the validation images
TRAINING_COUNTS = torch.tensor([1113, 6705, 514, 327, 1099, 115, 142]) - torch.tensor([223, 1341, 103, 65, 220, 23, 28])
EPSILONS = (0.1, 0.5228)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("prior", ["uniform", "frequency"])
def test_smoothed_targets_equal_slow_loop(epsilon: float, prior: str) -> None:
    labels = torch.tensor([0, 6, 3, 3, 1])
    u = [1 / K] * K if prior == "uniform" else [count / 8012 for count in TRAINING_COUNTS.tolist()]
    expected = [[(1 - epsilon) * (k == y) + epsilon * u[k] for k in range(K)] for y in labels.tolist()]
    given = None if prior == "uniform" else class_frequencies(TRAINING_COUNTS)
    found = smoothed_targets(labels, K, epsilon, given)
    assert_close(found, torch.tensor(expected))
    assert_close(found.sum(dim=1), torch.ones(5))


def test_no_smoothing_gives_hard_labels() -> None:
    labels = torch.tensor([2, 0, 6])
    assert torch.equal(smoothed_targets(labels, K, 0.0), functional.one_hot(labels, K).float())


def test_whole_smoothing_gives_the_prior() -> None:
    prior = class_frequencies(TRAINING_COUNTS)
    assert torch.equal(smoothed_targets(torch.arange(K), K, 1.0, prior), prior.expand(K, K))


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_uniform_smoothing_is_that_of_torch(epsilon: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, K, dtype=torch.float64, generator=generator)
    labels = torch.randint(K, (20,), generator=generator)
    u = torch.full((K,), 1 / K, dtype=torch.float64)
    found = functional.cross_entropy(logits, smoothed_targets(labels, K, epsilon, u))
    assert_close(found, functional.cross_entropy(logits, labels, label_smoothing=epsilon), rtol=1e-14, atol=0)


def test_targets_of_lsr_a5() -> None:
    assert TRAINING_COUNTS.sum() == 8012
    targets = smoothed_targets(torch.arange(K), K, 0.5228, class_frequencies(TRAINING_COUNTS))
    assert targets[DF, DF].item() == pytest.approx(0.4832, abs=5e-5)
    assert targets[DF, NV].item() == pytest.approx(0.35, abs=5e-5)
    # a dermatofibroma is hardly more itself than a nevus; a nevus is nearly hard
    assert targets[NV, NV].item() == pytest.approx(1 - 0.5228 * (8012 - 5364) / 8012, abs=1e-6)


def test_class_frequencies_sum_to_one() -> None:
    frequencies = class_frequencies(TRAINING_COUNTS)
    assert frequencies.tolist() == pytest.approx([count / 8012 for count in TRAINING_COUNTS.tolist()])
    assert frequencies.sum().item() == pytest.approx(1)
