import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from cclnet.targets import class_frequencies, class_indices, smoothed_targets

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


SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)


@pytest.mark.parametrize("dtype", [*SIGNED, *UNSIGNED])
def test_labels_of_every_integer_type_are_the_same_classes(dtype: torch.dtype) -> None:
    labels = torch.tensor([2, 0, 6, 6])
    indices = class_indices(labels.to(dtype), K)
    assert indices.dtype == torch.int64
    assert torch.equal(indices, labels)
    assert torch.equal(smoothed_targets(labels.to(dtype), K, 0.1), smoothed_targets(labels, K, 0.1))


NO_CLASSES = {
    "negative": (torch.tensor([0, -1, 2]), "labels must lie in 0 … 6, found -1"),
    "ignore_index": (torch.tensor([0, -100, 2]), "labels must lie in 0 … 6, found -100"),
    "too large": (torch.tensor([0, 7, 2]), "labels must lie in 0 … 6, found 7"),
    "column": (torch.tensor([[0], [1], [2]]), "not (3, 1); of n × 1 labels use labels.squeeze(1)"),
    "one-hot": (torch.eye(K, dtype=torch.int64), "not (7, 7)"),
    "scalar": (torch.tensor(3), "of shape (n,), not ()"),
    "float": (torch.tensor([0.0, 1.0, 2.0]), "labels must be integers, not torch.float32"),
    "complex": (torch.tensor([0j, 1j]), "labels must be integers, not torch.complex64"),
    "bool": (torch.tensor([True, False, True]), "labels must be integers, not torch.bool"),
    "uint64 beyond int64": (torch.tensor([2**63 - 1], dtype=torch.uint64) * 2, "labels must lie in 0 … 6, found -2"),
}


@pytest.mark.parametrize("kind", NO_CLASSES)
def test_labels_that_are_no_classes_are_refused_in_one_line(kind: str) -> None:
    labels, reason = NO_CLASSES[kind]
    for check in (lambda: class_indices(labels, K), lambda: smoothed_targets(labels, K, 0.1)):
        with pytest.raises(ValueError, match=r"^labels ") as caught:
            check()
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_compiled_code_checks_the_labels_without_reading_them() -> None:
    """The same operations check labels on a GPU, where reading a value would wait for all that it has to compute."""
    compiled = torch.compile(lambda labels: class_indices(labels, K) + 1, backend="aot_eager", fullgraph=True)
    assert compiled(torch.tensor([2, 0, 6])).tolist() == [3, 1, 7]
    for labels in ([0, -1, 2], [0, 7, 2]):
        with pytest.raises(RuntimeError, match="labels must lie in 0 … 6"):
            compiled(torch.tensor(labels))


def test_labels_on_the_meta_device_have_no_values_to_check() -> None:
    assert class_indices(torch.empty(3, dtype=torch.int32, device="meta"), K).dtype == torch.int64
