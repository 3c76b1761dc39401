import logging
import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from cclnet.ccl import (
    Convergence,
    class_correlation_loss,
    classification_loss,
    normalized_distances,
    soft_label_matrix,
)
from cclnet.images.augmentation import MEAN, STANDARD_DEVIATION, Normalization
from cclnet.images.subset import Subset
from cclnet.images.transfer import copied_pixels
from cclnet.inference.probabilities import predict, prediction_batches
from cclnet.params import TrainParams
from cclnet.system.errors import CCLNetError
from cclnet.system.interruption import InterruptionError
from cclnet.targets import smoothed_targets
from cclnet.training.batches import epoch_order, split_into_batches, training_batches
from cclnet.training.description import describe
from cclnet.training.history import Row
from cclnet.training.loop import fit
from cclnet.training.states import StateStore
from cclnet.training.trainer import Trainer, step_seed
from tests.training.builders import (
    BALANCED,
    CPU,
    FREEZES_IN_EPOCH_3,
    IMAGES,
    NUM_FEATURES,
    PAPER_BACKBONES,
    RAN_ON,
    TIMM_BACKBONES,
    VALIDATION,
    K,
    params,
    settings_of,
    subset_of,
    weights_of,
)

UNBALANCED = subset_of([0] * 8 + [1, 2, 3, 4, 5, 5, 6, 6])


def trainer_of(images: Subset = IMAGES, **changes: Any) -> Trainer:
    return Trainer(params(**changes), images.class_counts(K), CPU)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The parameters and buffers that are not the same to the last bit."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def parameter_names(model: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def buffer_names(model: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_buffers() if name.startswith(prefixes)}


# R12 to R15: Algorithm 1


def algorithm_1(
    changes: dict[str, Any], images: Subset, order: str = "paper"
) -> tuple[dict[str, Tensor], float, float]:
    """One epoch of Algorithm 1 written out line by line, or in an order that is not the paper's.

    Returns:
        The weights after it, and the mean over the images of L_cls and of L_CCL.
    """
    asked = params(**changes)
    model = trainer_of(images, **changes).model.train()  # line 1
    head = model.head
    assert head is not None
    classifying = [*model.backbone.parameters(), *model.classifier.parameters()]
    settings: dict[str, Any] = {"momentum": 0.9, "weight_decay": 1e-4}
    optimizer = torch.optim.SGD(classifying, lr=asked.optimizer.lr_backbone, fused=True, **settings)
    head_optimizer = torch.optim.SGD(head.parameters(), lr=asked.lr_ccl, fused=True, **settings)
    sums = [0.0, 0.0]
    seen = 0

    def update_head(features: Tensor, labels: Tensor) -> None:
        logits = -normalized_distances(head.embedding(features.detach()), head.class_embeddings)
        correlation = class_correlation_loss(head.class_embeddings)
        loss = functional.cross_entropy(logits, labels) + asked.alpha_cc * correlation
        loss.backward()
        clip_grad_norm_(head.parameters(), asked.optimizer.clip_norm)
        head_optimizer.step()
        head_optimizer.zero_grad()
        sums[1] += len(labels) * loss.item()

    for inputs, labels, _ in training_batches(images, asked, 1, CPU):
        torch.manual_seed(step_seed(asked.seed, 1, seen))
        soft_labels = soft_label_matrix(head.class_embeddings.detach())  # line 4
        features = model.backbone(inputs)  # line 5
        if order == "head first":
            update_head(features, labels)
            soft_labels = soft_label_matrix(head.class_embeddings.detach())
        loss = classification_loss(model.classifier(features), labels, soft_labels)
        loss.backward()
        clip_grad_norm_(classifying, asked.optimizer.clip_norm)
        optimizer.step()  # line 6
        optimizer.zero_grad()
        if order == "features twice":
            features = model.backbone(inputs)
        if order != "head first":
            update_head(features, labels)  # line 7
        sums[0] += len(labels) * loss.item()
        seen += len(labels)
    return weights_of(model), sums[0] / seen, sums[1] / seen


FIVE_STEPS = subset_of([k % K for k in range(20)])


@pytest.mark.parametrize("backbone", [*PAPER_BACKBONES, *TIMM_BACKBONES])
def test_epoch_is_algorithm_1_to_the_last_bit(backbone: str) -> None:
    changes = {"backbone": backbone, "batch_size": 4}
    trainer = trainer_of(FIVE_STEPS, **changes)
    row = trainer.train_epoch(FIVE_STEPS)
    expected, loss, head_loss = algorithm_1(changes, FIVE_STEPS)
    found = weights_of(trainer.model)
    assert changed(expected, found) == set()
    assert {int(tensor) for name, tensor in found.items() if name.endswith("num_batches_tracked")} == {5}
    assert row["classification_loss"] == pytest.approx(loss, rel=1e-5)
    assert row["ccl_loss"] == pytest.approx(head_loss, rel=1e-5)


@pytest.mark.parametrize("order", ["head first", "features twice"])
def test_other_orders_than_the_paper_one_give_other_weights(order: str) -> None:
    changes = {"batch_size": 4}
    trainer = trainer_of(FIVE_STEPS, **changes)
    trainer.train_epoch(FIVE_STEPS)
    found = weights_of(trainer.model)
    expected, *_ = algorithm_1(changes, FIVE_STEPS, order)
    touched = parameter_names(trainer.model, "backbone.") if order == "head first" else {"backbone.1.running_mean"}
    assert touched <= changed(expected, found)


@pytest.mark.parametrize("backbone", PAPER_BACKBONES)
def test_each_update_touches_its_own_parameters_only(backbone: str) -> None:
    images = subset_of([k % K for k in range(8)])
    trainer = trainer_of(images, backbone=backbone)
    assert trainer.head_optimizer is not None
    moments = {"start": weights_of(trainer.model)}

    def remember(moment: str) -> Callable[..., None]:
        return lambda *_: moments.update({moment: weights_of(trainer.model)})

    trainer.optimizer.register_step_pre_hook(remember("before line 6"))
    trainer.optimizer.register_step_post_hook(remember("after line 6"))
    trainer.head_optimizer.register_step_pre_hook(remember("before line 7"))
    trainer.head_optimizer.register_step_post_hook(remember("after line 7"))
    trainer.train_epoch(images)  # one step

    assert list(moments) == ["start", "before line 6", "after line 6", "before line 7", "after line 7"]
    classifying = parameter_names(trainer.model, "backbone.", "classifier.")
    head = parameter_names(trainer.model, "head.")
    forward = changed(moments["start"], moments["before line 6"])
    assert forward == buffer_names(trainer.model, "backbone.", "head.")
    assert changed(moments["before line 6"], moments["after line 6"]) == classifying
    assert changed(moments["after line 6"], moments["before line 7"]) == set()
    assert changed(moments["before line 7"], moments["after line 7"]) == head
    assert changed(moments["after line 7"], weights_of(trainer.model)) == set()


def test_each_loss_has_gradients_for_its_own_parameters_only() -> None:
    trainer = trainer_of()
    assert trainer.head is not None
    inputs, labels, _ = next(training_batches(IMAGES, trainer.params, 1, CPU))
    features = trainer.model.train().backbone(inputs)
    names, parameters = zip(*trainer.model.named_parameters(), strict=True)

    def reached(loss: Tensor) -> set[str]:
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}

    loss = trainer.classification_loss(trainer.model.classifier(features), labels)
    head_loss = trainer.head_loss(features.detach(), labels)
    assert reached(loss) == parameter_names(trainer.model, "backbone.", "classifier.")
    assert reached(head_loss) == parameter_names(trainer.model, "head.")


# R16, R17: the frozen dictionary


def convergence_of(trainer: Trainer) -> Convergence:
    assert trainer.freezing
    return trainer.freezing.convergence


def script_softness(trainer: Trainer, sequence: Sequence[float], patience: int) -> None:
    """Let the trainer believe that its epochs end with these p̄."""

    class Scripted(Convergence):
        def update(self, softness: float) -> bool:
            return super().update(sequence[self.epoch])

    assert trainer.freezing
    trainer.freezing.convergence = Scripted(patience)


@pytest.mark.parametrize("freeze_at", ["best", "current", "never"])
def test_dictionary_freezes_where_it_should_and_stays(freeze_at: str) -> None:
    trainer = trainer_of(freeze_at=freeze_at)
    script_softness(trainer, [0.5, 0.4, 0.45, 0.46, 0.1, 0.1], patience=2)
    rows, weights = [], []
    for _ in range(6):
        rows.append(trainer.train_epoch(IMAGES))
        weights.append(weights_of(trainer.model))
    layers = parameter_names(trainer.model, "head.embedding.", "backbone.", "classifier.")
    assert all(layers <= changed(before, after) for before, after in pairwise(weights))

    dictionaries = [state["head.class_embeddings"] for state in weights]
    moved = [not torch.equal(*pair) for pair in pairwise(dictionaries)]
    frozen = [row["frozen"] for row in rows]
    if freeze_at == "never":
        assert moved == [True] * 5
        assert frozen == [0] * 6
        return
    assert frozen == [0, 0, 0, 1, 1, 1]
    assert moved == [True, True, True, False, False]
    assert torch.equal(dictionaries[3], dictionaries[1]) == (freeze_at == "best")
    assert (convergence_of(trainer).best_epoch, convergence_of(trainer).converged_epoch) == (2, 4)
    if freeze_at == "current":  # the row of an epoch has the p̄ that the epoch ended with, before anything is restored
        matrix = soft_label_matrix(dictionaries[3])
        assert rows[3]["softness"] == matrix.diagonal().mean().item()


@pytest.mark.parametrize(
    ("backbone", "frozen"), [*((backbone, True) for backbone in PAPER_BACKBONES), ("tiny", True), ("tiny", False)]
)
def test_head_without_learning_leaves_backbone_alone_once_dictionary_is_frozen(backbone: str, frozen: bool) -> None:
    images = subset_of([k % K for k in range(8)])
    found = []
    for head_learns in (True, False):
        trainer = trainer_of(images, backbone=backbone)
        script_softness(trainer, [0.4, 0.5, 0.5, 0.5] if frozen else [0.5, 0.4, 0.3, 0.2], patience=1)
        trainer.train_epoch(images)
        trainer.train_epoch(images)
        if not head_learns:
            trainer.head_optimizer = None
        trainer.train_epoch(images)
        trainer.train_epoch(images)
        found.append(weights_of(trainer.model))
    different = changed(*found)
    assert parameter_names(trainer.model, "head.embedding.") <= different
    others = {name for name in different if name.startswith(("backbone.", "classifier."))}
    assert (others == set()) == frozen


# R18: prediction


@pytest.mark.parametrize("backbone", PAPER_BACKBONES)
def test_prediction_is_identical_without_the_head(backbone: str) -> None:
    images = subset_of([k % K for k in range(8)])
    trainer = trainer_of(images, backbone=backbone)
    trainer.train_epoch(images)
    with_head = predict(trainer.model, VALIDATION, 32, CPU)
    trainer.model.head = None
    np.testing.assert_array_equal(predict(trainer.model, VALIDATION, 32, CPU), with_head)


def test_prediction_equals_slow_loop_over_central_crops() -> None:
    trainer = trainer_of()
    trainer.train_epoch(IMAGES)
    before = weights_of(trainer.model)
    probabilities = predict(trainer.model, VALIDATION, 32, CPU)
    assert changed(before, weights_of(trainer.model)) == set()
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    for row, found in zip(VALIDATION.rows, probabilities, strict=True):
        image = VALIDATION.cache[row] / 255
        left = (image.shape[1] - 32) // 2
        normalised = (image[2:34, left : left + 32] - MEAN) / STANDARD_DEVIATION
        logits = trainer.model(torch.from_numpy(normalised).float().permute(2, 0, 1)[None])
        np.testing.assert_allclose(found, logits.softmax(dim=1)[0].detach(), rtol=1e-4)


# the methods


def logits_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, K, generator=generator), torch.from_numpy(IMAGES.labels)


def test_baseline_loss_is_cross_entropy() -> None:
    logits, labels = logits_and_labels()
    trainer = trainer_of(method="baseline", epsilon=0.5)
    assert_close(trainer.classification_loss(logits, labels), functional.cross_entropy(logits, labels))
    assert torch.equal(trainer.label_matrix(), torch.eye(K))


@pytest.mark.parametrize("epsilon", [0.1, 0.5228])
def test_lsr_loss_is_label_smoothing_of_torch(epsilon: float) -> None:
    logits, labels = logits_and_labels()
    trainer = trainer_of(method="lsr", epsilon=epsilon)
    expected = functional.cross_entropy(logits, labels, label_smoothing=epsilon)
    assert_close(trainer.classification_loss(logits, labels), expected)


@pytest.mark.parametrize("epsilon", [0.1, 0.5228])
def test_lsr_loss_with_class_frequencies_equals_slow_loop(epsilon: float) -> None:
    logits, labels = logits_and_labels()
    trainer = trainer_of(UNBALANCED, method="lsr", epsilon=epsilon, prior="frequency")
    u = [8 / 16, 1 / 16, 1 / 16, 1 / 16, 1 / 16, 2 / 16, 2 / 16]
    expected = 0.0
    for row, label in zip(logits.log_softmax(dim=1).tolist(), labels.tolist(), strict=True):
        expected -= sum(((1 - epsilon) * (k == label) + epsilon * u[k]) * row[k] for k in range(K)) / 16
    assert trainer.classification_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", ["ccl", "baseline", "margin_smoothing"])
def test_loss_factor_multiplies_the_loss_of_the_classifier_alone(method: str) -> None:
    logits, labels = logits_and_labels()
    features = torch.randn(16, NUM_FEATURES, generator=torch.Generator().manual_seed(1))
    once, twice = (trainer_of(method=method, loss_factor=factor) for factor in (1.0, 2.0))
    assert_close(twice.classification_loss(logits, labels), 2 * once.classification_loss(logits, labels))
    assert_close(twice.head_loss(features, labels), once.head_loss(features, labels))


def test_online_labels_change_between_epochs_and_not_within() -> None:
    trainer = trainer_of(method="online_smoothing")
    matrices = []
    for _ in range(3):
        seen = []
        trainer.train_epoch(IMAGES, lambda images_seen, seen=seen: seen.append(trainer.label_matrix().clone()))
        assert len(seen) > 1 and all(torch.equal(matrix, seen[0]) for matrix in seen)
        matrices.append(seen[0])
    assert_close(matrices[0], torch.full((K, K), 0.5 / K) + 0.5 * torch.eye(K))
    assert not torch.equal(matrices[1], matrices[2])


@pytest.mark.parametrize("method", ["class_means", "label_confusion"])
def test_labels_from_features_change_between_epochs_and_not_within(method: str) -> None:
    trainer = trainer_of(IMAGES, **settings_of(method))
    matrices = []
    for _ in range(3):
        seen = []
        trainer.train_epoch(IMAGES, lambda images_seen, seen=seen: seen.append(trainer.label_matrix().clone()))
        assert len(seen) > 1 and all(torch.equal(matrix, seen[0]) for matrix in seen)
        matrices.append(seen[0])
    assert not torch.equal(matrices[0], matrices[1])
    assert not torch.equal(matrices[1], matrices[2])
    assert_close(matrices[2].sum(dim=1), torch.ones(K))


def test_label_confusion_learns_beside_the_network() -> None:
    trainer = trainer_of(method="label_confusion")
    before = weights_of(trainer.objective)
    trainer.train_epoch(IMAGES)
    learned = {name for name, _ in trainer.objective.named_parameters()}
    assert changed(before, weights_of(trainer.objective)) == learned | {"label_matrix"}


@pytest.mark.parametrize("method", ["baseline", "lsr"])
def test_methods_without_head_train_as_written_out(method: str) -> None:
    trainer = trainer_of(method=method)
    assert trainer.model.head is None and trainer.head_optimizer is None
    row = trainer.train_epoch(IMAGES)

    model = trainer_of(method=method).model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    for step, (inputs, labels, _) in enumerate(training_batches(IMAGES, params(), 1, CPU)):
        torch.manual_seed(step_seed(0, 1, 8 * step))
        targets = smoothed_targets(labels, K, 0.1 if method == "lsr" else 0.0)
        functional.cross_entropy(model(inputs), targets).backward()
        clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()
    assert changed(weights_of(model), weights_of(trainer.model)) == set()
    head_columns = ("ccl_loss", "class_correlation_loss", "lr_ccl", "gradient_norm_ccl")
    assert [row[name] for name in head_columns] == [None] * 4
    assert row["frozen"] == 0


def test_methods_of_one_seed_start_from_one_backbone() -> None:
    states = [weights_of(trainer_of(method=method).model.backbone) for method in ("baseline", "lsr", "ccl")]
    assert changed(states[0], states[1]) == changed(states[0], states[2]) == set()


# balancing the head


@pytest.mark.parametrize("head_balance", ["none", "weights", "logits"])
def test_head_loss_equals_slow_loop(head_balance: str) -> None:
    trainer = trainer_of(UNBALANCED, head_balance=head_balance, alpha_cc=10.0)
    head = trainer.head
    assert head is not None
    features, labels = torch.randn(16, NUM_FEATURES), torch.from_numpy(UNBALANCED.labels)
    counts = [8, 1, 1, 1, 1, 2, 2]
    expected = 10 * class_correlation_loss(head.class_embeddings).item()
    for row, label in zip(head(features).tolist(), labels.tolist(), strict=True):
        priors = [count / 16 for count in counts] if head_balance == "logits" else [1.0] * K
        weight = 16 / (K * counts[label]) if head_balance == "weights" else 1.0
        masses = [prior * math.exp(logit) for prior, logit in zip(priors, row, strict=True)]
        expected -= weight * math.log(masses[label] / sum(masses)) / 16
    assert trainer.head_loss(features, labels).item() == pytest.approx(expected, rel=1e-5)


def test_balanced_heads_train_like_the_paper_one_on_balanced_classes() -> None:
    found = {}
    for head_balance in ("none", "weights", "logits"):
        trainer = trainer_of(BALANCED, head_balance=head_balance, batch_size=14)
        trainer.train_epoch(BALANCED)
        found[head_balance] = weights_of(trainer.model)
    assert changed(found["weights"], found["none"]) == set()
    for name, expected in found["none"].items():
        assert_close(found["logits"][name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("head_balance", ["weights", "logits", "sampling"])
def test_balance_matters_on_unbalanced_classes(head_balance: str) -> None:
    found = []
    for balance in ("none", head_balance):
        trainer = trainer_of(UNBALANCED, head_balance=balance)
        trainer.train_epoch(UNBALANCED)
        found.append(weights_of(trainer.model))
    assert "head.class_embeddings" in changed(*found)


@pytest.mark.parametrize("head_balance", ["none", "weights", "logits", "sampling"])
def test_class_without_training_images_does_no_harm(head_balance: str) -> None:
    images = subset_of([0, 1, 2, 3, 4, 5] * 2 + [0, 0])
    trainer = trainer_of(images, head_balance=head_balance)
    row = trainer.train_epoch(images)
    assert all(value is None or math.isfinite(value) for value in row.values())
    assert all(tensor.isfinite().all() for tensor in weights_of(trainer.model).values())


# learning rates, clipping, precision


@pytest.mark.parametrize(
    ("milestones", "decays"),
    [
        ([], [1, 1, 1, 1]),
        ([0.25, 0.75], [1, 0.1, 0.1, 0.01]),
        ([0.1, 0.9], [1, 1, 1, 1]),  # the nearest epochs are 0 and the last one
        ([0.7, 0.8], [1, 1, 1, 0.01]),  # both after epoch 3
    ],
)
def test_both_learning_rates_fall_after_the_milestones(milestones: list[float], decays: list[float]) -> None:
    trainer = trainer_of(milestones=milestones, lr_backbone_factor=0.25, lr_ccl=0.02, lr_ccl_factor=0.5)
    assert trainer.head_optimizer is not None
    used: list[tuple[float, float]] = []
    head_optimizer = trainer.head_optimizer

    def remember(*_: Any) -> None:
        used.append((trainer.optimizer.param_groups[0]["lr"], head_optimizer.param_groups[0]["lr"]))

    head_optimizer.register_step_pre_hook(remember)
    rows = [trainer.train_epoch(IMAGES) for _ in decays]
    expected = [(0.025 * decay, 0.01 * decay) for decay in decays]
    assert [rate for rates in used[::2] for rate in rates] == pytest.approx(
        [rate for pair in expected for rate in pair]
    )
    assert [(row["learning_rate"], row["lr_ccl"]) for row in rows] == used[::2] == used[1::2]


def total_norm(parameters: Sequence[nn.Parameter]) -> float:
    return math.sqrt(sum(p.grad.double().square().sum().item() for p in parameters if p.grad is not None))


@pytest.mark.parametrize("clip_norm", [1e-3, 0.5, 1e9])
def test_gradients_of_each_group_are_clipped_for_themselves(clip_norm: float) -> None:
    images = subset_of([k % K for k in range(8)])
    trainer = trainer_of(images, clip_norm=clip_norm)
    assert trainer.head_optimizer is not None
    norms: list[float] = []
    for optimizer in (trainer.optimizer, trainer.head_optimizer):
        optimizer.register_step_pre_hook(lambda it, *_: norms.append(total_norm(it.param_groups[0]["params"])))
    row = trainer.train_epoch(images)
    unclipped = [row["gradient_norm"], row["gradient_norm_ccl"]]
    assert unclipped[0] != pytest.approx(unclipped[1], rel=0.1)
    expected = [min(norm, clip_norm) for norm in unclipped if norm is not None]
    assert norms == pytest.approx(expected, rel=1e-3)
    assert max(norms) <= clip_norm * (1 + 1e-5)  # the norm itself is a float32


def test_bfloat16_trains_float32_weights() -> None:
    trainer = trainer_of(precision="bfloat16")
    row = trainer.train_epoch(IMAGES)
    tensors = [*trainer.model.parameters(), *trainer.model.buffers()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32, torch.int64}
    exact = trainer_of().train_epoch(IMAGES)
    assert row["classification_loss"] == pytest.approx(exact["classification_loss"], rel=0.1)
    assert row["classification_loss"] != exact["classification_loss"]
    assert row["ccl_loss"] == pytest.approx(exact["ccl_loss"], rel=0.1)


def test_compiled_backbone_trains_as_the_plain_one() -> None:
    compiled, plain = trainer_of(compile=True), trainer_of()
    for trainer in (compiled, plain):
        for layer in trainer.model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0  # what is compiled draws other numbers
    found, expected = compiled.train_epoch(IMAGES), plain.train_epoch(IMAGES)
    assert found["classification_loss"] == pytest.approx(expected["classification_loss"], rel=1e-4)
    assert_close(weights_of(compiled.model), weights_of(plain.model), rtol=1e-3, atol=1e-4)
    probabilities = predict(compiled.model, VALIDATION, 32, CPU)
    assert_close(probabilities, predict(plain.model, VALIDATION, 32, CPU), rtol=1e-3, atol=1e-4)


def test_without_a_compiler_it_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(_: Any) -> Any:
        def compiled(_: Tensor) -> Tensor:
            raise RuntimeError("InvalidCxxCompiler:\nno working C++ compiler")

        return compiled

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(CCLNetError, match=r"no working C[+][+] compiler.*or set it to false") as caught:
        trainer_of(compile=True)
    assert "\n" not in str(caught.value)


class ValuesRead(TorchDispatchMode):
    """Counts the values that are looked at, each of which waits on a GPU for all that it was given to compute."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("method", "norms", "labels"), [("ccl", 2, 2), ("baseline", 1, 0), ("lsr_kl", 1, 1), ("virtual_teacher", 1, 0)]
)
def test_steps_read_no_value_but_norms_and_labels_on_a_processor(method: str, norms: int, labels: int) -> None:
    trainer = trainer_of(method=method, batch_size=4)
    with ValuesRead() as read:
        between: list[int] = []
        trainer.train_epoch(IMAGES, lambda seen: between.append(read.count))
    steps = np.diff(between)
    assert len(steps) == 3
    assert (steps == norms + labels).all()  # one per optimizer and per check of the labels; on a GPU none


# order and batches


def test_epoch_order_is_a_permutation_of_its_own_in_every_epoch() -> None:
    labels = np.arange(50) % K
    orders = [epoch_order(labels, seed, epoch) for seed in (0, 1) for epoch in (1, 2)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(epoch_order(labels, 0, 1), orders[0])


def test_balanced_order_gives_every_class_and_every_image_of_it_the_same_chance() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 2, 5], [9000, 90, 10]))
    order = epoch_order(labels, seed=0, epoch=1, balanced=True)
    assert len(order) == 9100
    drawn = np.bincount(labels[order], minlength=6)
    assert set(np.flatnonzero(drawn)) == {0, 2, 5}
    # five standard deviations of a binomial count
    np.testing.assert_allclose(drawn[[0, 2, 5]], 9100 / 3, atol=5 * math.sqrt(9100 * 2 / 9))
    times = np.bincount(order, minlength=9100)[labels == 5]
    np.testing.assert_allclose(times, 9100 / 3 / 10, atol=5 * math.sqrt(9100 / 30))


def test_balanced_order_of_balanced_classes_keeps_their_shares() -> None:
    labels = np.arange(7000) % K
    drawn = np.bincount(labels[epoch_order(labels, 0, 1, balanced=True)])
    np.testing.assert_allclose(drawn, np.bincount(labels), atol=5 * math.sqrt(1000))


def test_batches_lose_nothing_and_are_never_of_one_image() -> None:
    for count in range(2, 70):
        order = np.random.default_rng(count).permutation(count)
        for batch_size in range(2, 12):
            batches = split_into_batches(order, batch_size)
            sizes = [len(batch) for batch in batches]
            np.testing.assert_array_equal(np.concatenate(batches), order)
            assert min(sizes) >= 2
            assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
            assert sizes[-1] <= batch_size + 1


def test_sizes_of_batches() -> None:
    sizes = {count: [len(batch) for batch in split_into_batches(np.arange(count), 4)] for count in (3, 4, 5, 8, 9, 10)}
    assert sizes == {3: [3], 4: [4], 5: [5], 8: [4, 4], 9: [4, 5], 10: [4, 4, 2]}
    assert [len(batch) for batch in split_into_batches(np.arange(8012), 128)] == [128] * 62 + [76]


def test_last_batch_of_one_image_trains() -> None:
    images = subset_of([k % K for k in range(9)])
    trainer = trainer_of(images)
    seen: list[int] = []
    trainer.train_epoch(images, seen.append)
    assert seen == [9]


def test_training_batches_hold_each_image_once_with_its_own_label() -> None:
    plain = params(brightness=0, contrast=0, saturation=0, hue=0, crop=36, batch_size=5)
    sides = subset_of([k % K for k in range(11)])
    square = np.flatnonzero(sides.cache.widths == 36)
    images = Subset(sides.cache, square, np.arange(len(square)) % K)
    mean_of = {}
    for row, label in zip(images.rows, images.labels, strict=True):
        normalised = (images.cache[row] / 255 - MEAN) / STANDARD_DEVIATION
        mean_of[round(float(normalised.mean()), 4)] = label  # neither a flip nor the order changes it
    found = [
        (round(image.mean().item(), 4), int(label))
        for inputs, labels, _ in training_batches(images, plain, 1, CPU)
        for image, label in zip(inputs, labels, strict=True)
    ]
    assert len(found) == len(images)
    assert {mean for mean, _ in found} == set(mean_of)
    assert all(mean_of[mean] == label for mean, label in found)


def test_images_are_normalised_as_the_weights_expect(tmp_path: Path) -> None:
    whole = timm.create_model("test_resnet", num_classes=3)
    torch.save(whole.state_dict(), tmp_path / "a.pt")
    scratch = trainer_of(backbone="timm/test_resnet")
    trainer = trainer_of(backbone="timm/test_resnet", weights=str(tmp_path / "a.pt"))
    described = describe(trainer, [str(k) for k in range(K)], 36, RAN_ON)
    assert (described.mean, described.standard_deviation) == ([0.5] * 3, [0.5] * 3)
    assert trainer.normalization == described.normalization == Normalization((0.5,) * 3, (0.5,) * 3)
    assert scratch.normalization == Normalization(MEAN, STANDARD_DEVIATION)
    seen: list[Tensor] = []
    for each in (trainer, scratch):
        each.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        each.train_epoch(IMAGES)
    ours, theirs = torch.cat(seen[:2]), torch.cat(seen[2:])
    as_values = theirs * torch.tensor(STANDARD_DEVIATION)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert_close(ours, (as_values - 0.5) / 0.5, rtol=0, atol=1e-5)
    seen.clear()
    predict(trainer.model, VALIDATION, 32, CPU, normalization=trainer.normalization)
    image = VALIDATION.cache[VALIDATION.rows[0]]
    left = (image.shape[1] - 32) // 2
    middle = torch.from_numpy(image[2:34, left : left + 32] / 127.5 - 1).permute(2, 0, 1)
    assert_close(seen[0][0], middle.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_images_and_weights_lie_in_memory_as_they_are_asked_to(memory_format: str) -> None:
    layout = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[memory_format]
    trainer = trainer_of(memory_format=memory_format)
    weight = trainer.model.get_parameter("backbone.0.weight")
    inputs = []
    trainer.model.backbone.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    trainer.train_epoch(IMAGES)
    predict(trainer.model, VALIDATION, 32, CPU, layout=trainer.layout)
    assert trainer.layout == describe(trainer, ["a"] * K, 36, RAN_ON).layout == layout
    assert len(inputs) == 3
    assert all(tensor.is_contiguous(memory_format=layout) for tensor in (*inputs, weight))


def test_the_chosen_memory_format_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cclnet.training.trainer.faster_memory_format", lambda *arguments: "channels_last")
    trainer = trainer_of(memory_format="auto")
    assert trainer.layout == torch.channels_last
    assert describe(trainer, ["a"] * K, 36, RAN_ON).params["memory_format"] == "channels_last"


def test_the_memory_format_changes_rounding_alone() -> None:
    trainers = [trainer_of(memory_format=layout) for layout in ("contiguous", "channels_last")]
    for trainer in trainers:
        trainer.train_epoch(IMAGES)
    first, second = (weights_of(trainer.model) for trainer in trainers)
    for name, tensor in first.items():
        assert_close(tensor, second[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [4, 16])
def test_images_that_lie_on_the_device_are_trained_on_alike(batch_size: int) -> None:
    there = replace(IMAGES, resident=copied_pixels(IMAGES.cache, CPU))
    trainers = [trainer_of(batch_size=batch_size) for _ in range(2)]
    rows = [trainer.train_epoch(images) for trainer, images in zip(trainers, (IMAGES, there), strict=True)]
    assert rows[0] == rows[1]
    assert changed(*(weights_of(trainer.model) for trainer in trainers)) == set()


def test_images_that_lie_on_the_device_are_predicted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cclnet.inference.probabilities.PREDICTION_BATCH", 4)
    there = replace(VALIDATION, resident=copied_pixels(VALIDATION.cache, CPU))
    for crop in (32, 33, 35, 36):
        found, expected = (list(prediction_batches(images, crop, CPU)) for images in (there, VALIDATION))
        assert [len(batch) for batch in found] == [4, 4, 1]
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


# repeatability


@pytest.mark.parametrize("backbone", ["tiny", "mobilenet_v2"])
def test_training_depends_on_its_seed_alone(backbone: str) -> None:
    found = []
    for seed, disturbance in ((3, 0), (3, 12345), (4, 0)):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)
        trainer = trainer_of(backbone=backbone, seed=seed)
        trainer.train_epoch(IMAGES)
        torch.rand(disturbance)
        trainer.train_epoch(IMAGES)
        found.append(weights_of(trainer.model))
    assert changed(found[0], found[1]) == set()
    assert parameter_names(trainer.model, "") <= changed(found[0], found[2])


def test_steps_have_seeds_of_their_own() -> None:
    seeds = {step_seed(seed, epoch, seen) for seed in range(3) for epoch in range(1, 20) for seen in range(0, 640, 32)}
    assert len(seeds) == 3 * 19 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)


# fit: going on after an interruption


class SuddenDeathError(Exception):
    """Whatever ends a process."""


def run_fit(
    folder: Path,
    changes: dict[str, Any],
    interrupted_at: int | None = None,
    ran_on: dict[str, Any] = RAN_ON,
    asked_after: int | None = None,
) -> tuple[dict[str, Tensor], list[Row], Trainer]:
    """A fit by a new trainer, as a new process would do it.

    It falls dead once so many images are trained on, or is asked to end after so many steps of training and validation.
    """
    trainer = trainer_of(**changes)
    steps = 0

    def report(name: str, done: int, total: int, detail: str = "") -> None:
        assert total == trainer.params.epochs * len(IMAGES)
        if interrupted_at is not None and done >= interrupted_at:
            raise SuddenDeathError

    def between_steps() -> None:
        nonlocal steps
        steps += 1
        if steps == asked_after:
            raise InterruptionError(signal.SIGTERM)

    with StateStore(folder, "run") as store:
        history = fit(trainer, IMAGES, VALIDATION, store, ran_on, report, between_steps)
    return weights_of(trainer.model), history, trainer


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[Row], Trainer]:
    return run_fit(tmp_path_factory.mktemp("uninterrupted"), FREEZES_IN_EPOCH_3)


def test_history_has_one_row_an_epoch(uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer]) -> None:
    _, history, trainer = uninterrupted
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert [row["frozen"] for row in history] == [0, 0, 1, 1]
    assert (convergence_of(trainer).best_epoch, convergence_of(trainer).converged_epoch) == (1, 3)
    assert len({tuple(row) for row in history}) == 1
    assert {"validation_accuracy", "validation_kappa", "validation_nll", "softness", "gradient_norm"} <= set(history[0])
    assert history[3]["softness"] == history[0]["softness"]  # the best epoch's dictionary is back


@pytest.mark.parametrize("interrupted_at", [8, 24, 40, 48, 56, 64])
def test_interrupted_fit_ends_like_the_uninterrupted_one(
    interrupted_at: int, uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer], tmp_path: Path
) -> None:
    with pytest.raises(SuddenDeathError):
        run_fit(tmp_path, FREEZES_IN_EPOCH_3, interrupted_at)
    weights, history, trainer = run_fit(tmp_path, FREEZES_IN_EPOCH_3)
    assert changed(weights, uninterrupted[0]) == set()
    assert history == uninterrupted[1]
    assert convergence_of(trainer).state_dict() == convergence_of(uninterrupted[2]).state_dict()


STEPS_OF_AN_EPOCH = 3  # two of training, one of validation


@pytest.mark.parametrize("asked_after", range(1, 4 * STEPS_OF_AN_EPOCH + 1))
def test_fit_that_is_asked_to_end_loses_no_step(
    asked_after: int,
    uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(InterruptionError) as ended:
        run_fit(tmp_path, FREEZES_IN_EPOCH_3, asked_after=asked_after)
    assert ended.value.exit_status == 143
    left = 4 * STEPS_OF_AN_EPOCH - asked_after
    again = asked_after % STEPS_OF_AN_EPOCH == 0  # asked in validation: it is done again, training is not
    with pytest.raises(InterruptionError), caplog.at_level(logging.WARNING):
        run_fit(tmp_path, FREEZES_IN_EPOCH_3, asked_after=left + again)
    place = f"image {8 if asked_after % STEPS_OF_AN_EPOCH == 1 else 16} of epoch {-(-asked_after // STEPS_OF_AN_EPOCH)}"
    assert caplog.messages == [f"going on after {place}"]
    weights, history, trainer = run_fit(tmp_path, FREEZES_IN_EPOCH_3)
    assert changed(weights, uninterrupted[0]) == set()
    assert history == uninterrupted[1]
    assert convergence_of(trainer).state_dict() == convergence_of(uninterrupted[2]).state_dict()


def test_interruption_before_and_after_the_freeze_of_a_network_with_dropout(tmp_path: Path) -> None:
    changes = FREEZES_IN_EPOCH_3 | {"backbone": "mobilenet_v2", "epochs": 3, "freeze_patience": 1}
    expected, expected_history, _ = run_fit(tmp_path / "uninterrupted", changes)
    assert [row["frozen"] for row in expected_history] == [0, 1, 1]
    for interrupted_at in (24, 40):
        with pytest.raises(SuddenDeathError):
            run_fit(tmp_path / "interrupted", changes, interrupted_at)
    weights, history, _ = run_fit(tmp_path / "interrupted", changes)
    assert changed(weights, expected) == set()
    assert history == expected_history


@pytest.mark.parametrize("method", ["baseline", "lsr", "online_smoothing", "maxsup", "label_confusion", "class_means"])
def test_interrupted_fit_without_head(method: str, tmp_path: Path) -> None:
    expected, expected_history, _ = run_fit(tmp_path / "uninterrupted", settings_of(method))
    with pytest.raises(SuddenDeathError):
        run_fit(tmp_path / "interrupted", settings_of(method), 40)
    weights, history, _ = run_fit(tmp_path / "interrupted", settings_of(method))
    assert changed(weights, expected) == set()
    assert history == expected_history


PARTS = ("epoch", "seen", "sums", "model", "optimizer", "head_optimizer", "freezing")


def test_state_has_no_parts_but_those_below() -> None:
    assert set(trainer_of().state_dict()) == {*PARTS, "objective"}


@pytest.mark.parametrize("part", PARTS)
def test_state_without_one_of_its_parts_ends_otherwise(
    part: str, uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer], tmp_path: Path
) -> None:
    with pytest.raises(InterruptionError):
        run_fit(tmp_path, FREEZES_IN_EPOCH_3, asked_after=STEPS_OF_AN_EPOCH + 1)
    with StateStore(tmp_path, "run") as store:
        state = store.load()
        assert state is not None
        assert (state["trainer"]["epoch"], state["trainer"]["seen"]) == (2, 8)
        state["trainer"][part] = trainer_of(**FREEZES_IN_EPOCH_3).state_dict()[part]
        store.save(state, 24)
    weights, history, _ = run_fit(tmp_path, FREEZES_IN_EPOCH_3)
    assert history != uninterrupted[1]
    assert part == "sums" or "backbone.0.weight" in changed(weights, uninterrupted[0])  # they are for the history alone


@pytest.mark.parametrize("without", [{"history": []}, {"row": None}], ids=str)
def test_state_without_one_of_its_parts_outside_the_trainer_ends_otherwise(
    without: dict[str, Any], uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer], tmp_path: Path
) -> None:
    assert history_after_changing_the_state(tmp_path, without) != uninterrupted[1]


def test_state_with_all_of_its_parts_ends_alike(
    uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer], tmp_path: Path
) -> None:
    assert history_after_changing_the_state(tmp_path, {}) == uninterrupted[1]


def history_after_changing_the_state(folder: Path, changes: dict[str, Any]) -> list[Row]:
    """What a run goes on to that ended in the validation of its third epoch, and whose state was changed then."""
    with pytest.raises(InterruptionError):
        run_fit(folder, FREEZES_IN_EPOCH_3, asked_after=3 * STEPS_OF_AN_EPOCH)
    with StateStore(folder, "run") as store:
        state = store.load()
        assert state is not None
        assert state["row"] is not None
        assert len(state["history"]) == 2
        store.save(state | changes, 48)
    return run_fit(folder, FREEZES_IN_EPOCH_3)[1]


def test_state_without_the_online_labels_ends_otherwise(tmp_path: Path) -> None:
    method: dict[str, Any] = {"method": "online_smoothing"}
    expected, _, _ = run_fit(tmp_path / "uninterrupted", method)
    with pytest.raises(InterruptionError):
        run_fit(tmp_path, method, asked_after=STEPS_OF_AN_EPOCH + 1)
    with StateStore(tmp_path, "run") as store:
        state = store.load()
        assert state is not None
        state["trainer"]["objective"] = trainer_of(**method).state_dict()["objective"]
        store.save(state, 24)
    weights, _, _ = run_fit(tmp_path, method)
    assert "backbone.0.weight" in changed(weights, expected)


def test_finished_fit_is_not_trained_any_further(tmp_path: Path) -> None:
    weights, history, _ = run_fit(tmp_path, {"epochs": 2})
    again, same_history, _ = run_fit(tmp_path, {"epochs": 2}, interrupted_at=0)
    assert changed(weights, again) == set()
    assert history == same_history


def test_going_on_under_other_conditions_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for ran_on, said in ((RAN_ON, False), (RAN_ON | {"threads": 8}, True)):
        caplog.clear()
        with pytest.raises(SuddenDeathError):
            run_fit(tmp_path / str(said), {}, 24)
        with caplog.at_level(logging.WARNING):
            run_fit(tmp_path / str(said), {}, ran_on=ran_on)
        assert "going on after image 16 of epoch 1" in caplog.text
        assert ("another threads" in caplog.text) == said
        assert "versions" not in caplog.text


# what goes wrong


@pytest.mark.parametrize("damaged", ["classifier.weight", "head.class_embeddings"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_ends_training_and_keeps_the_last_good_state(
    damaged: str, value: float, tmp_path: Path
) -> None:
    trainer = trainer_of()

    def damage(name: str, done: int, total: int, detail: str = "") -> None:
        if done == 24:  # in the middle of the second epoch
            trainer.model.get_parameter(damaged).data.fill_(value)

    with StateStore(tmp_path, "run") as store:
        with pytest.raises(CCLNetError, match="the loss is not finite in epoch 2") as error:
            fit(trainer, IMAGES, VALIDATION, store, RAN_ON, damage)
        state = store.load()
    assert "lower optimizer.lr_backbone, lr_ccl or optimizer.clip_norm" in str(error.value)
    assert "\n" not in str(error.value)
    assert state is not None
    assert state["trainer"]["epoch"] == len(state["history"]) == 1
    assert all(tensor.isfinite().all() for tensor in state["trainer"]["model"].values())


def test_learning_rate_beyond_reason_is_said() -> None:
    trainer = trainer_of(lr_backbone=1e30)
    with pytest.raises(CCLNetError, match="the loss is not finite in epoch 1"):
        trainer.train_epoch(IMAGES)


# the images of a split, the finished model's description


def test_subset_of_a_split() -> None:
    cache = IMAGES.cache
    rows = [(cache.images[4], "NV", "train"), (cache.images[0], "DF", "validation"), (cache.images[2], "DF", "train")]
    split = pd.DataFrame(rows, columns=["image", "label", "subset"])
    training = Subset.of_split(cache, split, "train", ["DF", "MEL", "NV"])
    assert training.rows.tolist() == [4, 2]
    assert training.labels.tolist() == [2, 0]
    assert len(training) == 2
    assert training.class_counts(4).tolist() == [1, 0, 1, 0]
    assert Subset.of_split(cache, split, "validation", ["DF", "MEL", "NV"]).rows.tolist() == [0]


def test_shuffled_labels_keep_the_images_and_the_class_sizes() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    images = Subset(IMAGES.cache, np.arange(1000), labels)
    shuffled = images.with_shuffled_labels(seed=1)
    assert shuffled.rows is images.rows
    assert shuffled.class_counts(3).tolist() == [600, 300, 100]
    own = shuffled.labels == labels
    assert abs(own.mean() - (0.6**2 + 0.3**2 + 0.1**2)) < 0.05  # as many as two independent draws share
    assert (images.with_shuffled_labels(seed=1).labels == shuffled.labels).all()
    assert (images.with_shuffled_labels(seed=2).labels != shuffled.labels).any()


def test_a_network_that_never_learns_keeps_its_weights_while_the_head_learns() -> None:
    trainer = trainer_of(lr_backbone=0.0)
    before = weights_of(trainer.model)
    trainer.train_epoch(IMAGES)
    learned = {name for name, _ in trainer.model.named_parameters()} & changed(weights_of(trainer.model), before)
    assert learned
    assert all(name.startswith("head.") for name in learned)


def test_description_of_a_frozen_dictionary(uninterrupted: tuple[dict[str, Tensor], list[Row], Trainer]) -> None:
    weights, history, trainer = uninterrupted
    classes = ["a", "b", "c", "d", "e", "f", "g"]
    description = describe(trainer, classes, 36, RAN_ON)
    matrix = soft_label_matrix(weights["head.class_embeddings"])
    assert description.label_matrix == matrix.tolist()
    assert description.softness == history[0]["softness"]
    assert (description.softness_epoch, description.converged_epoch) == (1, 3)
    assert (description.classes, description.short_side, description.crop) == (classes, 36, 32)
    assert (description.backbone, description.method) == ("tiny", "ccl")
    assert TrainParams.model_validate(description.params) == trainer.params


def test_description_without_head() -> None:
    trainer = trainer_of(UNBALANCED, method="lsr", prior="frequency")
    description = describe(trainer, list("abcdefg"), 36, RAN_ON)
    assert (description.softness_epoch, description.converged_epoch) == (None, None)
    assert description.label_matrix[1][0] == pytest.approx(0.1 * 8 / 16)
    assert description.softness == pytest.approx(0.9 + 0.1 / K)


@pytest.mark.parametrize(
    ("freeze_at", "softness_by_epoch", "expected"),
    [
        ("best", [0.5, 0.4, 0.45, 0.44], (2, 2, 4)),  # converged in epoch 4: the dictionary of epoch 2 is back
        ("current", [0.5, 0.4, 0.45, 0.44], (4, 2, 4)),
        ("best", [0.5, 0.4, 0.45], (3, 2, None)),  # not converged: the dictionary is the last epoch's
        ("never", [0.5, 0.4, 0.45], (3, None, None)),
    ],
)
def test_description_names_the_epoch_of_the_dictionary(
    freeze_at: str, softness_by_epoch: list[float], expected: tuple[int, int | None, int | None]
) -> None:
    trainer = trainer_of(freeze_at=freeze_at, freeze_patience=2)
    for value in softness_by_epoch:
        trainer.epoch += 1
        if freeze_at != "never":
            convergence_of(trainer).update(value)
    found = describe(trainer, list("abcdefg"), 36, RAN_ON)
    assert (found.softness_epoch, found.lowest_softness_epoch, found.converged_epoch) == expected


def test_methods_start_from_the_same_backbone_and_classifier() -> None:
    with_head, without = (trainer_of(method=method, backbone="resnet18").model for method in ("ccl", "baseline"))
    start = without.state_dict()
    assert all(torch.equal(with_head.state_dict()[name], tensor) for name, tensor in start.items())
