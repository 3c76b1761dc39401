"""The losses without a CCL head, against slow loops in plain Python."""

from collections.abc import Callable
from math import exp, log, sqrt, tanh

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional
from torch.testing import assert_close

from cclnet.ccl import classification_loss, soft_label_matrix
from cclnet.params import Peers
from cclnet.targets import smoothed_targets
from cclnet.training.objectives import (
    AddedLabels,
    ClassMeans,
    ConfidencePenalty,
    LabelConfusion,
    MarginSmoothing,
    MaxSuppression,
    Objective,
    OnlineSmoothing,
    VirtualTeacher,
    build_objective,
)
from tests.training.builders import params, settings_of

K = 7
LSR = smoothed_targets(torch.arange(K), K, 0.5228).double()


def batch(images: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits spread widely, and labels of which some are predicted right."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(images, K, dtype=torch.float64, generator=generator)
    labels = torch.randint(K, (images,), generator=generator)
    labels[: images // 2] = logits[: images // 2].argmax(dim=1)
    return logits, labels


def softmax(scores: list[float]) -> list[float]:
    """In plain Python."""
    powers = [exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def confidence_penalty(scores: list[float], label: int) -> float:
    q = softmax(scores)
    return -log(q[label]) - 0.3 * sum(-value * log(value) for value in q)


def margin_smoothing(scores: list[float], label: int) -> float:
    penalty = sum(max(0.0, max(scores) - score - 5.0) for score in scores)
    return -log(softmax(scores)[label]) + 0.2 * penalty


def virtual_teacher(scores: list[float], label: int) -> float:
    teacher = [0.9 if k == label else 0.1 / (K - 1) for k in range(K)]
    roots = [value ** (1 / 20) for value in teacher]  # what a temperature does to a softmax
    p = [root / sum(roots) for root in roots]
    q = softmax([score / 20 for score in scores])
    divergence = sum(ours * log(ours / theirs) for ours, theirs in zip(p, q, strict=True))
    return 0.6 * -log(softmax(scores)[label]) + 0.4 * 400 * divergence


def margin_smoothing_in_code(scores: list[float], label: int) -> float:
    penalty = sum(max(0.0, max(scores) - score - 5.0) for score in scores) / K
    return -log(softmax(scores)[label]) + 0.2 * penalty


def virtual_teacher_in_code(scores: list[float], label: int) -> float:
    p = softmax([0.9 / 20 if k == label else 0.1 / (K - 1) / 20 for k in range(K)])
    q = softmax(scores)
    divergence = sum(ours * log(ours / theirs) for ours, theirs in zip(p, q, strict=True)) / K
    return 0.6 * -log(q[label]) + 0.4 * 100 * divergence


def max_suppression(scores: list[float], label: int) -> float:
    return -log(softmax(scores)[label]) + 0.3 * (max(scores) - sum(scores) / K)


def added_labels(scores: list[float], label: int) -> float:
    q, p = softmax(scores), LSR[label].tolist()
    return -log(q[label]) + sum(ours * log(ours / theirs) for ours, theirs in zip(p, q, strict=True))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (ConfidencePenalty(K, weight=0.3), confidence_penalty),
        (MarginSmoothing(K, margin=5.0, weight=0.2), margin_smoothing),
        (MarginSmoothing(K, margin=5.0, weight=0.2, form="code"), margin_smoothing_in_code),
        (VirtualTeacher(K, correct=0.9, weight=0.4, temperature=20.0).double(), virtual_teacher),
        (VirtualTeacher(K, 0.9, 0.4, 20.0, form="code", multiplier=100.0).double(), virtual_teacher_in_code),
        (MaxSuppression(K, weight=0.3, last_weight=0.9, epochs=4), max_suppression),
        (AddedLabels(LSR), added_labels),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Objective) else "",
)
def test_losses_equal_slow_loops(objective: Objective, expected: Callable[[list[float], int], float]) -> None:
    logits, labels = batch()
    mean = sum(expected(row, label) for row, label in zip(logits.tolist(), labels.tolist(), strict=True)) / len(labels)
    assert objective(logits, labels).item() == pytest.approx(mean, rel=1e-6)
    assert gradcheck(lambda scores: objective(scores, labels), logits.clone().requires_grad_())


def test_losses_that_are_cross_entropy_at_the_end_of_their_range() -> None:
    logits, labels = batch()
    hard = functional.cross_entropy(logits, labels)
    for objective in (
        Objective(torch.eye(K, dtype=torch.float64)),
        ConfidencePenalty(K, weight=0.0),
        MarginSmoothing(K, margin=1e6, weight=1.0),
        VirtualTeacher(K, correct=0.9, weight=0.0, temperature=20.0),
        OnlineSmoothing(K, hard_share=1.0).double(),
        MarginSmoothing(K, margin=1e6, weight=1.0, form="code"),
        VirtualTeacher(K, correct=0.9, weight=0.0, temperature=20.0, form="code").double(),
        MaxSuppression(K, weight=0.0, last_weight=0.0, epochs=2),
    ):
        assert_close(objective(logits, labels), hard)


def test_the_virtual_teacher_is_the_network_s_best() -> None:
    objective = VirtualTeacher(K, correct=0.9, weight=1.0, temperature=3.0)
    labels = torch.arange(K)
    taught = objective.label_matrix.log()
    assert_close(objective.label_matrix.sum(dim=1), torch.ones(K))
    assert objective(taught, labels).item() == pytest.approx(0, abs=1e-6)
    assert objective(2 * taught, labels) > 1e-3


def test_virtual_teacher_gradient_keeps_its_size_at_high_temperatures() -> None:
    logits, labels = (batch()[0] / 10).requires_grad_(), batch()[1]
    norms = []
    for temperature in (50.0, 500.0):
        objective = VirtualTeacher(K, correct=0.9, weight=1.0, temperature=temperature).double()
        (gradient,) = torch.autograd.grad(objective(logits, labels), logits)
        norms.append(gradient.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_added_labels_equal_the_paper_s_eq_3_of_an_orthogonal_dictionary() -> None:
    """Prop. S1: seven orthogonal class embeddings give LSR(.5228)."""
    assert_close(soft_label_matrix(torch.eye(K, dtype=torch.float64)), LSR, rtol=0, atol=2e-5)  # ε is rounded


def online_matrix(batches: list[tuple[Tensor, Tensor]], hard_share: float) -> list[list[float]]:
    """α y + (1 − α) S_y by a loop over the images; classes without a right one are left out (None)."""
    right: dict[int, list[list[float]]] = {}
    for logits, labels in batches:
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            if row.index(max(row)) == label:
                right.setdefault(label, []).append(softmax(row))
    matrix = []
    for k in range(K):
        mean = [sum(column) / len(right[k]) for column in zip(*right[k], strict=True)] if k in right else [1 / K] * K
        matrix.append([hard_share * (j == k) + (1 - hard_share) * value for j, value in enumerate(mean)])
    return matrix


def test_online_labels_are_the_mean_predictions_of_the_epoch_before() -> None:
    objective = OnlineSmoothing(K, hard_share=0.3).double()
    assert_close(objective.label_matrix, smoothed_targets(torch.arange(K), K, 0.7).double())
    batches = [batch(seed=seed) for seed in (1, 2, 3)]
    batches = [(logits[labels != 4], labels[labels != 4]) for logits, labels in batches]  # of class 4 none is right
    before = objective.label_matrix.clone()
    for logits, labels in batches:
        expected = functional.cross_entropy(logits, before[labels])
        assert_close(objective(logits, labels), expected)
        assert torch.equal(objective.label_matrix, before)
    objective.end_epoch()
    expected = torch.tensor(online_matrix(batches, 0.3), dtype=torch.float64)
    assert_close(objective.label_matrix, expected, rtol=1e-6, atol=1e-8)
    assert_close(objective.label_matrix[4], before[4])
    assert_close(objective.label_matrix.sum(dim=1), torch.ones(K, dtype=torch.float64))


def test_online_labels_of_a_later_epoch_forget_the_earlier_ones() -> None:
    objective, fresh = OnlineSmoothing(K, hard_share=0.5), OnlineSmoothing(K, hard_share=0.5)
    everything = torch.arange(K)
    objective(torch.randn(K, K, generator=torch.Generator().manual_seed(0)) + 5 * torch.eye(K), everything)
    objective.end_epoch()
    for each in (objective, fresh):
        each(3 * torch.eye(K), everything)
        each.end_epoch()
    assert torch.equal(objective.label_matrix, fresh.label_matrix)


def test_online_labels_draw_no_gradient() -> None:
    objective = OnlineSmoothing(K, hard_share=0.5)
    logits, labels = batch()
    objective(logits.float().requires_grad_(), labels).backward()
    assert not objective.sums.requires_grad and not objective.label_matrix.requires_grad
    assert objective.sums.sum().item() == pytest.approx((logits.argmax(dim=1) == labels).sum().item())


def test_max_suppression_rises_with_the_epochs() -> None:
    logits, labels = batch()
    hard = functional.cross_entropy(logits, labels)
    objective = MaxSuppression(K, weight=0.1, last_weight=0.2, epochs=4)
    penalties = []
    for _ in range(4):
        penalties.append((objective(logits, labels) - hard).item())
        objective.end_epoch()
    assert [value / penalties[0] for value in penalties] == pytest.approx([1, 1.25, 1.5, 1.75])
    resumed = MaxSuppression(K, weight=0.1, last_weight=0.2, epochs=4)
    resumed.load_state_dict(objective.state_dict())
    assert torch.equal(resumed(logits, labels), objective(logits, labels))


def test_max_suppression_is_label_smoothing_where_the_prediction_is_right() -> None:
    logits, _ = batch()
    predicted = logits.argmax(dim=1)
    found = MaxSuppression(K, weight=0.3, last_weight=0.3, epochs=1)(logits, predicted)
    assert_close(found, functional.cross_entropy(logits, predicted, label_smoothing=0.3))


FEATURES = 5


def features_of(images: int, seed: int = 0) -> Tensor:
    return torch.randn(images, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def confusion_labels(objective: LabelConfusion, features: Tensor, labels: Tensor) -> list[list[float]]:
    """y_s of each image, in plain Python."""
    embedding, linear = objective.class_vectors[0], objective.class_vectors[1]
    assert isinstance(embedding, torch.nn.Embedding) and isinstance(linear, torch.nn.Linear)
    weights, biases = linear.weight.tolist(), linear.bias.tolist()

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    vectors = [
        [tanh(dot(row, weight) + bias) for weight, bias in zip(weights, biases, strict=True)]
        for row in embedding.weight.tolist()
    ]
    found = []
    for image, label in zip(features.tolist(), labels.tolist(), strict=True):
        products = [dot(vector, image) for vector in vectors]
        similarity = zip(objective.similarity.weight.tolist(), objective.similarity.bias.tolist(), strict=True)
        confusion = softmax([dot(row, products) + bias for row, bias in similarity])
        found.append(softmax([2.0 * (k == label) + value for k, value in enumerate(confusion)]))
    return found


def test_label_confusion_equals_a_slow_loop() -> None:
    torch.manual_seed(0)
    objective = LabelConfusion(K, FEATURES, weight=2.0, embedding_dim=3).double()
    logits, labels = batch()
    features = features_of(len(labels))
    simulated = confusion_labels(objective, features, labels)
    expected = 0.0
    for row, own in zip(logits.tolist(), simulated, strict=True):
        expected += sum(y * log(y / q) for y, q in zip(own, softmax(row), strict=True)) / len(labels)
    assert objective.from_features(features, logits, labels).item() == pytest.approx(expected, rel=1e-9)
    objective.end_epoch()
    for k in range(K):
        rows = [own for own, label in zip(simulated, labels.tolist(), strict=True) if label == k]
        if rows:
            mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
            assert objective.label_matrix[k].tolist() == pytest.approx(mean, rel=1e-9)
    assert_close(objective.label_matrix.sum(dim=1), torch.ones(K, dtype=torch.float64))


def test_label_confusion_teaches_the_features_and_its_own_weights() -> None:
    torch.manual_seed(0)
    objective = LabelConfusion(K, FEATURES, weight=4.0, embedding_dim=3).double()
    logits, labels = batch()
    features = features_of(len(labels)).requires_grad_()
    inputs = [features, logits.requires_grad_(), *objective.parameters()]
    gradients = torch.autograd.grad(objective.from_features(features, logits, labels), inputs)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert gradcheck(lambda f, scores: objective.from_features(f, scores, labels), (features, logits))


def mean_labels(features: list[Tensor], labels: list[Tensor]) -> list[list[float]]:
    """exp(−2 + 2 cos) of the class means about their mean, normalised; in plain Python."""
    images: dict[int, list[list[float]]] = {k: [] for k in range(K)}
    for rows, classes in zip(features, labels, strict=True):
        for row, label in zip(rows.tolist(), classes.tolist(), strict=True):
            images[label].append(row)
    means = [[sum(column) / len(rows) for column in zip(*rows, strict=True)] for rows in images.values()]
    grand = [sum(column) / K for column in zip(*means, strict=True)]
    centred = [[value - middle for value, middle in zip(mean, grand, strict=True)] for mean in means]
    lengths = [sqrt(sum(value**2 for value in mean)) for mean in centred]

    def cosine(a: int, b: int) -> float:
        return sum(x * y for x, y in zip(centred[a], centred[b], strict=True)) / lengths[a] / lengths[b]

    return [softmax([-(2 - 2 * cosine(a, b)) / 1.5 for b in range(K)]) for a in range(K)]


def test_labels_from_class_means_are_those_of_the_epoch_before() -> None:
    objective = ClassMeans(K, FEATURES, temperature=1.5).double()
    start = objective.label_matrix.clone()
    assert start[0, 1:].tolist() == pytest.approx([start[0, 1].item()] * (K - 1))
    assert start[0, 0] / start[0, 1] == pytest.approx(exp(2 * (1 + 1 / (K - 1)) / 1.5))
    logits, labels = batch(20)
    labels[:K] = torch.arange(K)
    parts = [features_of(20, seed) for seed in (1, 2)]
    for features in parts:
        expected = AddedLabels(start)(logits, labels)
        assert_close(objective.from_features(features.requires_grad_(), logits, labels), expected)
    objective.end_epoch()
    assert_close(objective.label_matrix, torch.tensor(mean_labels(parts, [labels] * 2), dtype=torch.float64))
    assert not objective.means.requires_grad
    before = objective.label_matrix.clone()
    objective.end_epoch()  # of no image: nothing is known anew
    assert torch.equal(objective.label_matrix, before)


def test_labels_from_class_means_depend_on_no_count() -> None:
    features = features_of(2 * K)
    labels = torch.arange(K).repeat(2)
    logits = torch.zeros(2 * K, K, dtype=torch.float64)
    once, often = (ClassMeans(K, FEATURES, temperature=1.0).double() for _ in range(2))
    once.from_features(features, logits, labels)
    often.from_features(features, logits, labels)
    for _ in range(9):
        often.from_features(features[labels == 3], logits[labels == 3], labels[labels == 3])
    for objective in (once, often):
        objective.end_epoch()
    assert_close(once.label_matrix, often.label_matrix)


COUNTS = torch.tensor([8, 1, 1, 1, 1, 2, 2])


@pytest.mark.parametrize("method", ["baseline", "lsr", "lsr_kl", "class_means", *Peers.model_fields])
def test_every_method_builds_its_objective_with_its_settings(method: str) -> None:
    objective = build_objective(params(**settings_of(method)), COUNTS, FEATURES)
    kinds = {
        "baseline": Objective,
        "lsr": Objective,
        "lsr_kl": AddedLabels,
        "confidence_penalty": ConfidencePenalty,
        "online_smoothing": OnlineSmoothing,
        "margin_smoothing": MarginSmoothing,
        "virtual_teacher": VirtualTeacher,
        "maxsup": MaxSuppression,
        "label_confusion": LabelConfusion,
        "class_means": ClassMeans,
    }
    assert type(objective) is kinds[method]
    for name, value in dict(getattr(params().peers, method, {})).items():
        assert name in ("correct", "embedding_dim") or getattr(objective, name) == value
    assert_close(objective.label_matrix.sum(dim=1), torch.ones(K))
    assert objective.label_matrix.argmax(dim=1).tolist() == list(range(K))


def test_soft_labels_of_a_file_are_those_of_equation_3() -> None:
    labels = torch.rand(K, K, generator=torch.Generator().manual_seed(0)) + torch.eye(K)
    labels /= labels.sum(dim=1, keepdim=True)
    objective = build_objective(params(soft_label_source="votes.csv"), COUNTS, FEATURES, labels)
    assert type(objective) is AddedLabels
    assert torch.equal(objective.label_matrix, labels)
    logits, classes = batch()
    assert_close(objective(logits, classes), classification_loss(logits, classes, labels))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["baseline", "lsr_kl", "class_means", *Peers.model_fields])
def test_losses_of_half_precision_logits_are_computed_in_float32(method: str, precision: torch.dtype) -> None:
    objective = build_objective(params(**settings_of(method)), COUNTS, FEATURES)
    logits, labels = batch()
    features = features_of(len(labels)).to(precision)
    found = objective.from_features(features, logits.to(precision), labels)
    assert found.dtype == torch.float32
    assert_close(found, objective.from_features(features.float(), logits.to(precision).float(), labels))
