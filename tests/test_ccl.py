import copy
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from cclnet import ccl
from cclnet.ccl import (
    CCLHead,
    Convergence,
    DictionaryInit,
    balancing_weights,
    class_correlation_loss,
    classification_loss,
    initial_dictionary,
    kullback_leibler_loss,
    normalized_distances,
    soft_label_matrix,
    softness,
)
from cclnet.targets import smoothed_targets

K = 7
COLLAPSED_OWN, COLLAPSED_OTHER, COLLAPSED_EPSILON = 0.5518728, 0.0746879, 0.5228150
SIMPLEX_DISTANCE = 7 / 3

Dictionary = Callable[[int], Tensor]
"""Makes the class embeddings of so many classes, in the default type at the time of the test."""


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def simplex_dictionary(k: int) -> Tensor:
    """Directions as far apart as k can be: the corners of a regular simplex around the origin."""
    return torch.eye(k) - 1 / k


def opposite_dictionary() -> Tensor:
    """The first class points one way, all others the other way."""
    return torch.tensor([[1.0, 0.0]] + [[-1.0, 0.0]] * (K - 1))


def slow_distance(a: Sequence[float], b: Sequence[float]) -> float:
    """2 − 2 cos, by hand."""
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return 2 - 2 * dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_softmax(values: Sequence[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def cross_entropy_of_distances(embedding: Tensor, dictionary: Tensor, label: int = 0) -> float:
    """l_CE(q^CCL, y) of one embedding."""
    distances = normalized_distances(embedding[None], dictionary)
    return functional.cross_entropy(-distances, torch.tensor([label])).item()


# R1: the distance


def test_distances_of_same_orthogonal_and_opposite_vectors() -> None:
    a = torch.tensor([[3.0, 0.0]])
    b = torch.tensor([[0.5, 0.0], [0.0, 7.0], [-2.0, 0.0]])
    assert normalized_distances(a, b).tolist() == [[0.0, 2.0, 4.0]]


def test_distances_equal_slow_loop() -> None:
    a, b = torch.randn(5, 9), torch.randn(4, 9)
    expected = [[slow_distance(row, column) for column in b.tolist()] for row in a.tolist()]
    assert_close(normalized_distances(a, b), torch.tensor(expected), rtol=0, atol=1e-14)


def test_distances_are_exactly_symmetric_with_zero_diagonal_and_within_their_range() -> None:
    for dtype in (torch.float32, torch.float64):
        vectors = torch.randn(50, 512, dtype=dtype)
        distances = normalized_distances(vectors, vectors)
        assert torch.equal(distances, distances.T)
        assert distances.diagonal().tolist() == [0.0] * 50
        assert distances.min() >= 0
        assert distances.max() <= 4


def test_distances_ignore_length() -> None:
    a, b = torch.randn(6, 8), torch.randn(3, 8)
    lengths = torch.tensor([1e-3, 0.1, 1.0, 7.0, 1e3, 1e5])[:, None]
    assert_close(normalized_distances(a * lengths, 100 * b), normalized_distances(a, b))


def test_distances_pass_gradcheck() -> None:
    a, b = torch.randn(4, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    assert torch.autograd.gradcheck(normalized_distances, (a, b))
    assert torch.autograd.gradcheck(lambda vectors: normalized_distances(vectors, vectors), (b,))


@pytest.fixture
def by_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute every distance by the matrix product, which small problems do without."""
    monkeypatch.setattr(ccl, "_LARGEST_DIFFERENCES", 0)


def difference_form(a: Tensor, b: Tensor) -> Tensor:
    """‖a/‖a‖ − b/‖b‖‖² in float64."""
    a, b = (functional.normalize(vectors.double(), dim=1, eps=1e-6) for vectors in (a, b))
    return (a[:, None, :] - b[None, :, :]).square().sum(dim=2)


def hard_vectors(dtype: torch.dtype) -> Tensor:
    """Close, equal, opposite and nearly opposite pairs among random ones, of lengths from 1e-3 to 1e3."""
    vectors = torch.randn(40, 512)
    vectors[1] = vectors[0]
    vectors[2] = -vectors[0]
    vectors[3] = vectors[0] + 1e-6 * vectors[4]
    vectors[5] = -vectors[0] + 1e-4 * vectors[4]
    return (vectors * torch.logspace(-3, 3, 40)[:, None]).to(dtype)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("within", [True, False], ids=["among each other", "to others"])
def test_both_forms_of_the_distance_agree_within_the_stated_bound(
    dtype: torch.dtype, bound: float, within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = hard_vectors(dtype)
    b = a if within else hard_vectors(dtype)
    differences = normalized_distances(a, b)
    monkeypatch.setattr(ccl, "_LARGEST_DIFFERENCES", 0)
    product = normalized_distances(a, b)
    assert product.dtype == differences.dtype == dtype
    assert (product - differences).abs().max() < bound
    assert_close(product.double(), difference_form(a, b), rtol=0, atol=bound)
    assert product.min() >= 0


@pytest.mark.usefixtures("by_product")
def test_distances_by_product_are_exactly_symmetric_with_zero_diagonal() -> None:
    for dtype in (torch.float32, torch.float64):
        vectors = hard_vectors(dtype)
        distances = normalized_distances(vectors, vectors)
        assert torch.equal(distances, distances.T)
        assert distances.diagonal().tolist() == [0.0] * 40
        assert torch.equal(soft_label_matrix(vectors).argmax(dim=1)[6:], torch.arange(6, 40))


@pytest.mark.usefixtures("by_product")
def test_distances_by_product_pass_gradcheck() -> None:
    a, b = torch.randn(4, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    assert torch.autograd.gradcheck(normalized_distances, (a, b))
    assert torch.autograd.gradcheck(lambda vectors: normalized_distances(vectors, vectors), (b,))


@pytest.mark.usefixtures("by_product")
def test_autocast_leaves_distances_by_product_in_float32() -> None:
    vectors = torch.randn(K, 64, dtype=torch.float32)
    expected = normalized_distances(vectors, vectors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(normalized_distances(vectors, vectors), expected)


def test_thousand_classes_take_memory_of_the_matrix_alone() -> None:
    class LargestTensor(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                self.bytes = max(self.bytes, result.numel() * result.element_size())
            return result

    head = CCLHead(8, 1000, hidden_dim=16).float()
    features, labels = torch.randn(128, 8, dtype=torch.float32), torch.randint(1000, (128,))
    with LargestTensor() as largest:
        matrix = head.soft_labels()
        head.loss(features, labels).backward()
    assert largest.bytes <= 8 * 1000 * 1000  # K × K in float64; the differences are 2 GB
    assert torch.equal(matrix.argmax(dim=1), torch.arange(1000))
    expected = (-difference_form(head.class_embeddings, head.class_embeddings)).softmax(dim=1)
    assert_close(matrix.double(), expected, rtol=1e-5, atol=0)


def test_the_paper_s_sizes_are_computed_from_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the committed numbers stay: 128 images, 7 classes, 512 dimensions."""
    monkeypatch.setattr(ccl, "_wide", lambda values: pytest.fail("computed by the product"))
    normalized_distances(torch.randn(128, 512), torch.randn(K, 512))


def test_gradient_is_perpendicular_to_class_embeddings() -> None:
    embeddings, dictionary = torch.randn(12, 16), torch.randn(K, 16, requires_grad=True)
    distances = normalized_distances(embeddings, dictionary)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(-distances, torch.arange(12) % K), dictionary)
    assert gradient.norm(dim=1).min() > 1e-3
    assert_close((gradient * dictionary).sum(dim=1), torch.zeros(K), rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-12, 1e-7, 1e-5])
def test_gradient_is_finite_near_zero_vector(length: float) -> None:
    for dtype in (torch.float32, torch.float64):
        direction = functional.normalize(torch.randn(2, 8, dtype=dtype), dim=1)
        near_zero = (length * direction).requires_grad_()
        distances = normalized_distances(near_zero, torch.randn(K, 8, dtype=dtype))
        (gradient,) = torch.autograd.grad(distances.sum(), near_zero)
        assert distances.isfinite().all()
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e8


# R2, R3: q^CCL and the floors of its cross-entropy


def test_probabilities_are_softmax_of_twice_the_cosine() -> None:
    embeddings, dictionary = torch.randn(20, 32), torch.randn(K, 32)
    cosines = functional.cosine_similarity(embeddings[:, None], dictionary[None], dim=2)
    q = (-normalized_distances(embeddings, dictionary)).softmax(dim=1)
    assert_close(q, (2 * cosines).softmax(dim=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("dictionary", "distance", "floor"),
    [(torch.eye, 2.0, 0.59444), (simplex_dictionary, SIMPLEX_DISTANCE, 0.45858)],
    ids=["orthogonal", "simplex"],
)
def test_cross_entropy_of_class_embedding_itself(dictionary: Dictionary, distance: float, floor: float) -> None:
    found = cross_entropy_of_distances(dictionary(K)[0], dictionary(K))
    assert found == pytest.approx(math.log(1 + 6 * math.exp(-distance)), abs=1e-14)
    assert found == pytest.approx(floor, abs=5e-6)


def test_best_cross_entropy_on_orthogonal_dictionary() -> None:
    # the best direction is cos θ towards its class and sin θ away from the mean of the others: max 2 √(7/6) − 0
    expected = math.log(1 + 6 * math.exp(-2 * math.sqrt(7 / 6)))
    best = minimize(lambda e: cross_entropy_of_distances(torch.tensor(e), torch.eye(K)), [1.0] + [0.1] * 6, tol=1e-12)
    assert best.fun == pytest.approx(expected, abs=1e-9)
    assert best.fun == pytest.approx(0.52578, abs=5e-6)


def test_absolute_bounds_of_cross_entropy() -> None:
    dictionary = opposite_dictionary()
    best = cross_entropy_of_distances(dictionary[0], dictionary)
    worst = cross_entropy_of_distances(-dictionary[0], torch.cat([dictionary[:1], -dictionary[:1].expand(6, 2)]))
    uniform = cross_entropy_of_distances(dictionary[0], dictionary[:1].expand(K, 2))
    assert best == pytest.approx(math.log(1 + 6 * math.exp(-4)), abs=1e-12)
    assert worst == pytest.approx(4 + math.log(6 + math.exp(-4)), abs=1e-12)
    assert uniform == pytest.approx(math.log(K), abs=1e-12)
    assert [best, uniform, worst] == pytest.approx([0.10426, 1.9459, 5.7948], abs=5e-5)


# R4, R5: the losses of the head


def test_class_correlation_loss_equals_slow_loop() -> None:
    for margin in (0.5, 2.0, 2.1):
        dictionary = torch.randn(K, 10)
        rows = dictionary.tolist()
        expected = sum(max(0.0, slow_distance(a, b) - margin) for a in rows for b in rows) / K**2
        assert expected > 0
        assert class_correlation_loss(dictionary, margin).item() == pytest.approx(expected, rel=1e-12)


def test_class_correlation_loss_of_simplex() -> None:
    found = class_correlation_loss(simplex_dictionary(K)).item()
    assert found == pytest.approx(K * (K - 1) * (SIMPLEX_DISTANCE - 2) / K**2, abs=1e-12)
    assert found == pytest.approx(0.285714, abs=5e-7)


def test_class_correlation_loss_is_zero_if_and_only_if_no_angle_exceeds_a_right_one() -> None:
    within = torch.rand(K, 12)
    assert normalized_distances(within, within).max() <= 2
    assert class_correlation_loss(within) == 0
    assert class_correlation_loss(torch.eye(K)) == 0

    one_pair_beyond = torch.eye(K)
    one_pair_beyond[0, 1] = -0.01
    assert normalized_distances(one_pair_beyond, one_pair_beyond).max() > 2
    assert class_correlation_loss(one_pair_beyond) > 0


@pytest.mark.parametrize("alpha_cc", [0.0, 1.0, 10.0])
def test_head_loss_is_cross_entropy_plus_weighted_class_correlation_loss(alpha_cc: float) -> None:
    head = CCLHead(5, K, hidden_dim=8, embedding_dim=6)
    with torch.no_grad():
        head.class_embeddings.copy_(torch.randn(K, 6))
    features, labels = torch.randn(9, 5), torch.randint(K, (9,))
    embeddings, dictionary = head.embedding(features).tolist(), head.class_embeddings.tolist()
    q = [slow_softmax([-slow_distance(e, c) for c in dictionary]) for e in embeddings]
    cross_entropy = -sum(math.log(q_i[y]) for q_i, y in zip(q, labels.tolist(), strict=True)) / 9
    correlation = sum(max(0.0, slow_distance(a, b) - 2) for a in dictionary for b in dictionary) / K**2
    assert correlation > 0.01
    found = head.loss(features, labels, alpha_cc).item()
    assert found == pytest.approx(cross_entropy + alpha_cc * correlation, rel=1e-12)


def test_paper_weight_of_class_correlation_loss_is_default() -> None:
    head = CCLHead(5, K, hidden_dim=8, embedding_dim=6)
    with torch.no_grad():
        head.class_embeddings.copy_(torch.randn(K, 6))
    features, labels = torch.randn(9, 5), torch.randint(K, (9,))
    assert torch.equal(head.loss(features, labels), head.loss(features, labels, 10.0))


# R6 to R8: the soft labels


def test_soft_labels_equal_slow_loop_row_by_row() -> None:
    dictionary = torch.randn(K, 9)
    rows = dictionary.tolist()
    expected = [slow_softmax([-slow_distance(column, row) for column in rows]) for row in rows]
    assert_close(soft_label_matrix(dictionary), torch.tensor(expected), rtol=0, atol=1e-14)
    warm = [slow_softmax([-slow_distance(column, row) / 0.3 for column in rows]) for row in rows]
    assert_close(soft_label_matrix(dictionary, temperature=0.3), torch.tensor(warm), rtol=0, atol=1e-14)


def test_soft_labels_are_distributions_with_maximum_on_diagonal() -> None:
    for _ in range(20):
        matrix = soft_label_matrix(torch.randn(K, 4))
        assert_close(matrix.sum(dim=1), torch.ones(K))
        assert torch.equal(matrix.argmax(dim=1), torch.arange(K))


def test_soft_labels_are_not_symmetric() -> None:
    # at 0°, 60° and 90° the distances are 2 − 2 cos of 60°, 90° and 30°: 1, 2 and 2 − √3
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 2])
    dictionary = torch.stack([angles.cos(), angles.sin()], dim=1)
    distances = [[0, 1, 2], [1, 0, 2 - math.sqrt(3)], [2, 2 - math.sqrt(3), 0]]
    matrix = soft_label_matrix(dictionary)
    assert_close(matrix, torch.tensor([slow_softmax([-d for d in row]) for row in distances]))
    assert torch.equal(normalized_distances(dictionary, dictionary), normalized_distances(dictionary, dictionary).T)
    assert matrix[0, 1] - matrix[1, 0] > 0.07


@pytest.mark.parametrize(
    ("dictionary", "expected"),
    [(lambda k: torch.ones(k, 5), 1 / 7), (torch.eye, 0.551873), (simplex_dictionary, 0.632178)],
    ids=["all equal", "orthogonal", "simplex"],
)
def test_softness_constants(dictionary: Dictionary, expected: float) -> None:
    assert softness(soft_label_matrix(dictionary(K))).item() == pytest.approx(expected, abs=5e-7)


def test_softness_is_mean_of_diagonal_and_never_above_bound() -> None:
    matrix = soft_label_matrix(torch.randn(K, 3))
    assert softness(matrix).item() == pytest.approx(sum(matrix[k, k].item() for k in range(K)) / K)
    bound = 1 / (1 + 6 * math.exp(-4))
    assert bound == pytest.approx(0.900987, abs=5e-7)
    assert soft_label_matrix(opposite_dictionary())[0, 0].item() == pytest.approx(bound, abs=1e-12)
    assert all(softness(soft_label_matrix(torch.randn(K, 2))) <= bound for _ in range(50))


def test_zero_class_correlation_loss_bounds_softness() -> None:
    for dimension in (2, 7, 40):
        for density in (0.1, 0.5, 1.0):
            # no entry is negative, so no angle exceeds 90°
            dictionary = torch.rand(K, dimension) * (torch.rand(K, dimension) < density) + 1e-3
            assert class_correlation_loss(dictionary) == 0
            assert softness(soft_label_matrix(dictionary)) <= COLLAPSED_OWN + 1e-7
    beyond = simplex_dictionary(K)
    assert class_correlation_loss(beyond) > 0
    assert softness(soft_label_matrix(beyond)) > COLLAPSED_OWN + 0.05


def test_orthogonal_embeddings_are_label_smoothing() -> None:
    a = math.exp(-2)
    total = 1 + (K - 1) * a
    epsilon = K * a / total
    constants = (COLLAPSED_OWN, COLLAPSED_OTHER, COLLAPSED_EPSILON)
    assert (1 / total, a / total, epsilon) == pytest.approx(constants, abs=5e-8)
    rotation, _ = torch.linalg.qr(torch.randn(20, 20))
    for dictionary in (torch.eye(K), 3 * rotation[:K]):
        smoothed = smoothed_targets(torch.arange(K), K, epsilon)
        assert_close(soft_label_matrix(dictionary), smoothed, rtol=0, atol=1e-15)


# R9, R10: what trains the backbone


def slow_kullback_leibler(logits: Tensor, labels: Tensor, soft_labels: Tensor) -> list[float]:
    """Σ p log(p / q) of each image."""
    divergences = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        p, q = soft_labels[label].tolist(), slow_softmax(row)
        divergences.append(sum(p_k * math.log(p_k / q_k) for p_k, q_k in zip(p, q, strict=True) if p_k > 0))
    return divergences


def test_kullback_leibler_loss_equals_slow_loop_and_not_its_usual_mistakes() -> None:
    logits, labels, soft_labels = torch.randn(11, K), torch.randint(K, (11,)), soft_label_matrix(torch.randn(K, 6))
    divergences = slow_kullback_leibler(logits, labels, soft_labels)
    found = kullback_leibler_loss(logits, labels, soft_labels).item()
    assert found == pytest.approx(sum(divergences) / 11, rel=1e-12)

    log_q, p = logits.log_softmax(dim=1), soft_labels[labels]
    of_torch = functional.kl_div(log_q, p, reduction="batchmean").item()
    reversed_direction = functional.kl_div(p.log(), log_q.exp(), reduction="batchmean").item()
    over_classes = (p * (p.log() - log_q)).mean().item()
    assert found == pytest.approx(of_torch, rel=1e-12)
    assert found != pytest.approx(reversed_direction, rel=0.01)
    assert over_classes == pytest.approx(found / K, rel=1e-12)


def test_kullback_leibler_loss_is_zero_at_its_target_and_positive_elsewhere() -> None:
    soft_labels = soft_label_matrix(torch.randn(K, 6))
    labels = torch.arange(K)
    assert kullback_leibler_loss(soft_labels.log() + 3, labels, soft_labels).item() == pytest.approx(0, abs=1e-15)
    assert all(kullback_leibler_loss(torch.randn(K, K), labels, soft_labels) > 0 for _ in range(20))


def test_kullback_leibler_loss_to_hard_labels_is_cross_entropy() -> None:
    logits, labels = torch.randn(9, K), torch.randint(K, (9,))
    assert_close(kullback_leibler_loss(logits, labels, torch.eye(K)), functional.cross_entropy(logits, labels))


def test_classification_loss_equals_slow_loop() -> None:
    logits, labels, soft_labels = torch.randn(11, K), torch.randint(K, (11,)), soft_label_matrix(torch.randn(K, 6))
    pairs = zip(logits.tolist(), labels.tolist(), strict=True)
    hard = [-math.log(slow_softmax(row)[label]) for row, label in pairs]
    expected = (sum(hard) + sum(slow_kullback_leibler(logits, labels, soft_labels))) / 11
    assert classification_loss(logits, labels, soft_labels).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_of_classification_loss_on_logits() -> None:
    logits = torch.randn(11, K, requires_grad=True)
    labels, soft_labels = torch.randint(K, (11,)), soft_label_matrix(torch.randn(K, 6))
    (gradient,) = torch.autograd.grad(classification_loss(logits, labels, soft_labels), logits)
    y = functional.one_hot(labels, K)
    assert_close(gradient, (2 * logits.softmax(dim=1) - y - soft_labels[labels]) / 11)


def test_minimum_of_classification_loss_on_collapsed_soft_labels() -> None:
    soft_labels = soft_label_matrix(torch.eye(K))

    def loss(q_y: float) -> float:
        q = torch.full((1, K), (1 - q_y) / (K - 1))
        q[0, 2] = q_y
        return classification_loss(q.log(), torch.tensor([2]), soft_labels).item()

    best = minimize_scalar(loss, bounds=(0.01, 0.99), method="bounded", options={"xatol": 1e-10})
    assert best.x == pytest.approx((1 + COLLAPSED_OWN) / 2, abs=1e-6)
    assert best.x == pytest.approx(0.775936, abs=1e-6)
    assert best.fun == pytest.approx(0.376251, abs=5e-7)


# A21: mixed precision


def small_head() -> CCLHead:
    return CCLHead(5, K, hidden_dim=8, embedding_dim=6)


def test_bfloat16_inputs_give_float32_results() -> None:
    vectors = torch.randn(6, 16, dtype=torch.bfloat16)
    labels = torch.randint(6, (6,))
    logits = torch.randn(6, 6, dtype=torch.bfloat16)
    for compute in (
        lambda vectors, logits: normalized_distances(vectors, vectors),
        lambda vectors, logits: class_correlation_loss(vectors),
        lambda vectors, logits: soft_label_matrix(vectors),
        lambda vectors, logits: kullback_leibler_loss(logits, labels, soft_label_matrix(vectors)),
        lambda vectors, logits: classification_loss(logits, labels, soft_label_matrix(vectors)),
    ):
        found = compute(vectors, logits)
        assert found.dtype == torch.float32
        assert_close(found, compute(vectors.float(), logits.float()), rtol=0, atol=0)


def test_autocast_leaves_distances_and_losses_in_float32() -> None:
    dictionary, logits = torch.randn(K, 64, dtype=torch.float32), torch.randn(9, K, dtype=torch.float32)
    labels = torch.randint(K, (9,))
    computations: list[Callable[[], Tensor]] = [
        lambda: normalized_distances(dictionary, dictionary),
        lambda: soft_label_matrix(dictionary),
        lambda: class_correlation_loss(dictionary),
        lambda: classification_loss(logits, labels, soft_label_matrix(dictionary)),
    ]
    for compute in computations:
        expected = compute()
        with torch.autocast("cpu", torch.bfloat16):
            found = compute()
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    head = small_head().float()
    with torch.autocast("cpu", torch.bfloat16):
        features = torch.randn(9, 5, dtype=torch.bfloat16)
        assert head.embedding(features).dtype == torch.bfloat16
        assert head(features).dtype == torch.float32
        assert head.loss(features, labels).dtype == torch.float32
        assert head.soft_labels().dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_head_takes_features_of_another_precision(dtype: torch.dtype) -> None:
    head = small_head().float()
    features, labels = torch.randn(9, 5).to(dtype), torch.randint(K, (9,))
    assert head.loss(features, labels).dtype == torch.float32
    assert torch.equal(head.loss(features, labels), head.loss(features.float(), labels))


# the labels and features that it is given


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16])
def test_losses_are_bit_equal_for_labels_of_every_integer_type(dtype: torch.dtype) -> None:
    head, labels = small_head(), torch.randint(K, (9,))
    features, logits, weights = torch.randn(9, 5), torch.randn(9, K), torch.rand(K)

    def losses(labels: Tensor) -> list[Tensor]:
        soft_labels = head.soft_labels()
        return [
            classification_loss(logits, labels, soft_labels),
            kullback_leibler_loss(logits, labels, soft_labels),
            head.loss(features, labels, class_weights=weights),
        ]

    assert all(map(torch.equal, losses(labels.to(dtype)), losses(labels)))


@pytest.mark.parametrize(
    "labels", [[-1] * 9, [-100] * 9, [K] * 9, [[0]] * 9, [[1] + [0] * (K - 1)] * 9, [0.0] * 9, [True] * 9], ids=str
)
def test_losses_refuse_labels_that_are_no_classes(labels: list[Any]) -> None:
    head, given = small_head(), torch.tensor(labels)
    features, logits, soft_labels = torch.randn(9, 5), torch.randn(9, K), head.soft_labels()
    for loss in (
        lambda: classification_loss(logits, given, soft_labels),
        lambda: kullback_leibler_loss(logits, given, soft_labels),
        lambda: head.loss(features, given),
    ):
        with pytest.raises(ValueError, match=r"^labels must [^\n]*$"):
            loss()


@pytest.mark.parametrize("shape", [(5,), (9, 4), (9, 5, 1), (9, 3, 5), (9, 5, 2, 5)])
def test_features_that_are_no_vectors_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^features must be one vector of 5 per image, of shape \(n, 5\), not \("):
        small_head()(torch.randn(shape))


@pytest.mark.parametrize("images", [0, 1])
def test_a_batch_of_one_in_training_is_refused_and_predicted(images: int) -> None:
    head = small_head()
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    with pytest.raises(
        ValueError, match=f"^a batch of {images} in training mode: .* needs at least 2 images; [^\\n]*$"
    ):
        head.loss(torch.randn(images, 5), torch.zeros(images, dtype=torch.int64))
    assert all(torch.equal(before[name], tensor) for name, tensor in head.state_dict().items())
    assert head.eval()(torch.randn(images, 5)).shape == (images, K)
    head.train().embedding.eval()  # a user's own choice: statistics that are not learned
    assert head(torch.randn(images, 5)).shape == (images, K)


# R19 and the head as a module


def test_layers_of_embedding() -> None:
    head = CCLHead(512, K)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in head.embedding] == kinds
    linear = [(layer.in_features, layer.out_features) for layer in head.embedding if isinstance(layer, nn.Linear)]
    assert linear == [(512, 1024), (1024, 1024), (1024, 512)]
    norms = [layer.num_features for layer in head.embedding if isinstance(layer, nn.BatchNorm1d)]
    assert norms == [1024, 1024]
    assert head.class_embeddings.shape == (K, 512)


def test_head_gives_negative_distances() -> None:
    head = CCLHead(5, K, hidden_dim=8, embedding_dim=6, temperature=0.5)
    features = torch.randn(9, 5)
    expected = -normalized_distances(head.embedding(features), head.class_embeddings) / 0.5
    assert torch.equal(head(features), expected)
    assert torch.equal(head.soft_labels(), soft_label_matrix(head.class_embeddings.detach(), 0.5))


def test_soft_labels_of_head_have_no_gradient() -> None:
    head = small_head()
    assert not head.soft_labels().requires_grad
    logits = torch.randn(4, K, requires_grad=True)
    classification_loss(logits, torch.arange(4), head.soft_labels()).backward()
    assert all(parameter.grad is None for parameter in head.parameters())


@pytest.mark.parametrize(
    ("init", "length", "starting_softness"),
    [("uniform", 1 / math.sqrt(3), 0.55), ("normal", math.sqrt(512), 0.55), ("positive", 1 / math.sqrt(3), 0.22)],
)
def test_initial_dictionary(init: DictionaryInit, length: float, starting_softness: float) -> None:
    dictionary = initial_dictionary(K, 512, init)
    assert dictionary.norm(dim=1).tolist() == pytest.approx([length] * K, rel=0.1)
    assert softness(soft_label_matrix(dictionary)).item() == pytest.approx(starting_softness, abs=0.01)
    assert torch.equal(CCLHead(5, K, dictionary_init=init).class_embeddings.sign().unique(), dictionary.sign().unique())


@pytest.mark.parametrize("init", ["unform", "Uniform", "", None])
def test_unknown_start_of_the_dictionary_is_refused(init: Any) -> None:
    with pytest.raises(ValueError, match=f"^dictionary_init must be 'uniform', 'normal' or 'positive', not {init!r}$"):
        CCLHead(5, K, dictionary_init=init)
    with pytest.raises(ValueError, match=r"^dictionary_init must be"):
        initial_dictionary(K, 5, init)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"^temperature must be positive, not {temperature}$"):
        CCLHead(5, K, temperature=temperature)


@pytest.mark.parametrize("init", ["uniform", "normal", "positive"])
def test_reset_draws_what_the_constructor_draws(init: DictionaryInit) -> None:
    torch.manual_seed(3)
    expected = CCLHead(5, K, hidden_dim=8, embedding_dim=6, dictionary_init=init).state_dict()
    torch.manual_seed(4)
    head = CCLHead(5, K, hidden_dim=8, embedding_dim=6, dictionary_init=init)
    head.loss(torch.randn(9, 5), torch.randint(K, (9,))).backward()
    head.freeze_dictionary()
    torch.manual_seed(3)
    head.reset_parameters()
    assert all(torch.equal(expected[name], tensor) for name, tensor in head.state_dict().items())
    assert head.class_embeddings.requires_grad


def test_head_from_the_meta_device_starts_like_any_other() -> None:
    torch.manual_seed(3)
    expected = CCLHead(5, K).state_dict()
    with torch.device("meta"):
        head = CCLHead(5, K)
    head.to_empty(device="cpu")
    for tensor in head.state_dict().values():
        tensor.fill_(7)  # what uninitialised memory may hold
    for module in head.embedding:
        getattr(module, "reset_parameters", lambda: None)()
    torch.manual_seed(3)
    head.reset_parameters()
    assert all(torch.equal(expected[name], tensor) for name, tensor in head.state_dict().items())
    assert head.class_embeddings.abs().max() <= 512**-0.5
    head.loss(torch.randn(9, 5), torch.randint(K, (9,))).backward()


@pytest.mark.parametrize("at", ["at present", "given class embeddings"])
def test_frozen_dictionary_never_moves_again_while_the_rest_learns(at: str) -> None:
    head = small_head()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    features, labels = torch.randn(14, 5), torch.arange(14) % K

    def train(steps: int) -> None:
        for _ in range(steps):
            head.loss(features, labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    started = head.class_embeddings.detach().clone()
    train(3)
    assert not torch.equal(head.class_embeddings, started)  # so there is momentum to move it on
    head.loss(features, labels).backward()  # and a gradient left over
    frozen_at = head.class_embeddings.detach().clone() if at == "at present" else started
    head.freeze_dictionary(None if at == "at present" else started)
    layers = [parameter.detach().clone() for parameter in head.embedding.parameters()]
    train(5)
    assert torch.equal(head.class_embeddings, frozen_at)
    for before, after in zip(layers, head.embedding.parameters(), strict=True):
        assert not torch.equal(before, after)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("through", ["memory", "torch.save", "safetensors", "meta device"])
def test_frozen_dictionary_stays_frozen_in_the_head_that_loads_it(through: str, assign: bool, tmp_path: Path) -> None:
    saved = small_head()
    saved.freeze_dictionary()
    state = saved.state_dict()
    if through == "torch.save":
        torch.save(state, tmp_path / "head")
        state = torch.load(tmp_path / "head", weights_only=True)
    elif through == "safetensors":
        save_file(state, tmp_path / "head")
        state = load_file(tmp_path / "head")
    with torch.device("meta" if through == "meta device" and assign else "cpu"):
        head = small_head()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    if not assign:  # with momentum, and a gradient left over
        for _ in range(2):
            head.loss(torch.randn(14, 5), torch.arange(14) % K).backward()
            optimizer.step()
    head.load_state_dict(state, assign=assign)
    assert head.frozen and not head.class_embeddings.requires_grad
    optimizer.add_param_group({"params": [it for it in head.parameters() if assign and it.requires_grad]})
    for _ in range(5):
        head.loss(torch.randn(14, 5), torch.arange(14) % K).backward()
        optimizer.step()
    assert torch.equal(head.class_embeddings, saved.class_embeddings)


def test_dictionary_that_learns_goes_on_learning_in_a_frozen_head_that_loads_it() -> None:
    learning, head = small_head(), small_head()
    head.freeze_dictionary()
    head.load_state_dict(learning.state_dict())
    assert head.class_embeddings.requires_grad and not head.frozen
    head.loss(torch.randn(14, 5), torch.arange(14) % K).backward()
    assert head.class_embeddings.grad is not None


@pytest.mark.parametrize("frozen", [False, True])
def test_state_that_does_not_mention_the_freeze_leaves_it_alone(frozen: bool) -> None:
    """As those that were saved by version 0.1.0."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_head()

    network = Network()
    if frozen:
        network.inner.freeze_dictionary()
    old = {name: tensor for name, tensor in Network().state_dict().items() if "extra" not in name}
    assert len(old) == len(network.state_dict()) - 1
    network.load_state_dict(old)
    assert network.inner.frozen == frozen
    assert torch.equal(network.inner.class_embeddings, old["inner.class_embeddings"])
    del old["inner.class_embeddings"]
    with pytest.raises(RuntimeError, match=r"Missing key.*class_embeddings"):
        network.load_state_dict(old)


def test_frozen_dictionary_cannot_be_woken_by_requires_grad() -> None:
    head = small_head()
    head.freeze_dictionary()
    head.requires_grad_(True)
    head.loss(torch.randn(14, 5), torch.arange(14) % K).backward()
    assert head.class_embeddings.grad is None


def test_head_and_its_freeze_can_be_copied() -> None:
    head = small_head()
    head.freeze_dictionary()
    twin = copy.deepcopy(head)
    assert twin.frozen
    twin.load_state_dict(small_head().state_dict())
    assert head.frozen and not twin.frozen
    assert pickle.loads(pickle.dumps(head)).frozen  # noqa: S301 - its own bytes


# the head's loss balanced over the classes


def test_balancing_weights_equal_slow_loop_and_give_every_class_the_same_say() -> None:
    counts = torch.tensor([890, 5364, 411, 262, 879, 92, 114])
    weights = balancing_weights(counts)
    assert weights.tolist() == pytest.approx([8012 / (7 * n) for n in counts.tolist()])
    assert (weights * counts).tolist() == pytest.approx([8012 / 7] * 7)
    assert balancing_weights(torch.full((K,), 10)).tolist() == [1.0] * K


def test_class_weights_in_head_loss_equal_slow_loop() -> None:
    head = small_head()
    features, labels, weights = torch.randn(9, 5), torch.randint(K, (9,)), torch.rand(K)
    q = head(features).softmax(dim=1).tolist()
    expected = sum(-weights[y].item() * math.log(q[i][y]) for i, y in enumerate(labels.tolist())) / 9
    assert head.loss(features, labels, 0.0, class_weights=weights).item() == pytest.approx(expected, rel=1e-12)


def test_log_prior_in_head_loss_equals_slow_loop() -> None:
    # Menon et al., Eq. 10: −log of π_y e^(−d_y) / Σ π_k e^(−d_k)
    head = small_head()
    features, labels, prior = torch.randn(9, 5), torch.randint(K, (9,)), torch.rand(K).softmax(dim=0)
    expected = 0.0
    for row, label in zip(head(features).tolist(), labels.tolist(), strict=True):
        masses = [share * math.exp(logit) for share, logit in zip(prior.tolist(), row, strict=True)]
        expected -= math.log(masses[label] / sum(masses)) / 9
    assert head.loss(features, labels, 0.0, log_prior=prior.log()).item() == pytest.approx(expected, rel=1e-12)


def test_balanced_losses_are_the_paper_one_on_balanced_classes() -> None:
    head = small_head()
    features, labels = torch.randn(14, 5), torch.arange(14) % K
    paper = head.loss(features, labels)
    weighted = head.loss(features, labels, class_weights=balancing_weights(torch.full((K,), 2)))
    adjusted = head.loss(features, labels, log_prior=torch.full((K,), 1 / K).log())
    assert torch.equal(weighted, paper)
    assert_close(adjusted, paper, rtol=1e-14, atol=0)


# R16: when the dictionary freezes


def firings(sequence: Sequence[float], patience: int = 3) -> tuple[list[int], Convergence]:
    """The epochs in which the rule fires."""
    convergence = Convergence(patience)
    return [epoch for epoch, value in enumerate(sequence, start=1) if convergence.update(value)], convergence


def test_convergence_never_fires_on_monotone_fall() -> None:
    fired, convergence = firings([1 / epoch for epoch in range(1, 200)], patience=1)
    assert fired == []
    assert convergence.converged_epoch is None
    assert (convergence.best_epoch, convergence.best_softness) == (199, 1 / 199)


@pytest.mark.parametrize(
    ("sequence", "fires_in", "best_epoch"),
    [
        ([0.5, 0.4, 0.45, 0.46, 0.47], 5, 2),  # rises for three epochs
        ([0.5, 0.4, 0.4, 0.4, 0.4], 5, 2),  # a plateau does not drop
        ([0.5, 0.4, 0.45, 0.41, 0.405], 5, 2),  # falls, but never below the best
        ([0.5, 0.6, 0.7, 0.49, 0.6, 0.6, 0.6], 7, 4),  # a new best at the last moment starts the count anew
        ([0.5, 0.5, 0.5, 0.5 - 1e-12, 0.5, 0.5, 0.5], 7, 4),  # by however little
        ([0.5, 0.5, 0.5, 0.5], 4, 1),
    ],
)
def test_convergence_fires_once(sequence: list[float], fires_in: int, best_epoch: int) -> None:
    fired, convergence = firings([*sequence, 0.9, 0.9, 0.9, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert fired == [fires_in]
    assert (convergence.best_epoch, convergence.converged_epoch) == (best_epoch, fires_in)
    assert convergence.best_softness == sequence[best_epoch - 1]


def test_nan_counts_neither_as_a_drop_nor_as_none() -> None:
    assert firings([math.nan] * 50)[0] == []
    fired, convergence = firings([0.5, math.nan, 0.4, math.nan, math.nan, 0.45, math.nan, 0.46, 0.47, 0.48])
    assert fired == [9]
    assert (convergence.best_epoch, convergence.best_softness) == (3, 0.4)


@pytest.mark.parametrize("patience", [0, -1])
def test_patience_below_one_epoch_is_refused(patience: int) -> None:
    with pytest.raises(ValueError, match=f"^patience must be at least 1 epoch, not {patience}$"):
        Convergence(patience)


def test_paper_patience_is_default_and_cannot_fire_before_it_is_spent() -> None:
    convergence = Convergence()
    assert [convergence.update(0.3) for _ in range(12)] == [False] * 10 + [True, False]
    assert convergence.best_epoch == 1


@pytest.mark.parametrize("interrupted_after", range(9))
def test_convergence_goes_on_counting_after_a_restart(interrupted_after: int) -> None:
    sequence = [0.5, 0.4, 0.45, 0.39, 0.4, 0.41, 0.42, 0.43, 0.2]
    uninterrupted, _ = firings(sequence)
    assert uninterrupted == [7]
    before = Convergence(3)
    fired = [epoch for epoch in range(1, interrupted_after + 1) if before.update(sequence[epoch - 1])]
    after = Convergence(3)
    after.load_state_dict(before.state_dict())
    fired += [epoch for epoch in range(interrupted_after + 1, 10) if after.update(sequence[epoch - 1])]
    assert fired == uninterrupted
    assert after.state_dict() == {
        "patience": 3,
        "epoch": 9,
        "best_softness": 0.39,
        "best_epoch": 4,
        "waited": 3,
        "converged_epoch": 7,
    }


def test_softness_falls_as_angles_close() -> None:
    spread = [torch.eye(K) + share for share in (0.0, 0.1, 0.3, 1.0, 10.0)]
    values = [softness(soft_label_matrix(dictionary)).item() for dictionary in spread]
    assert all(wider > closer for wider, closer in pairwise(values))
