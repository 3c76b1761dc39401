import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
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
from cclnet.system.errors import CCLNetError
from cclnet.targets import smoothed_targets
from cclnet.training.batches import training_batches
from cclnet.training.description import describe
from cclnet.training.trainer import Trainer, step_seed
from tests.training.builders import (
    BALANCED,
    CPU,
    IMAGES,
    NUM_FEATURES,
    PAPER_BACKBONES,
    RAN_ON,
    TIMM_BACKBONES,
    UNBALANCED,
    VALIDATION,
    K,
    buffer_names,
    changed,
    convergence_of,
    parameter_names,
    params,
    settings_of,
    subset_of,
    trainer_of,
    weights_of,
)

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


# batches, normalisation, memory format


def test_last_batch_of_one_image_trains() -> None:
    images = subset_of([k % K for k in range(9)])
    trainer = trainer_of(images)
    seen: list[int] = []
    trainer.train_epoch(images, seen.append)
    assert seen == [9]


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


# what goes wrong


def test_learning_rate_beyond_reason_is_said() -> None:
    trainer = trainer_of(lr_backbone=1e30)
    with pytest.raises(CCLNetError, match="the loss is not finite in epoch 1"):
        trainer.train_epoch(IMAGES)


def test_a_network_that_never_learns_keeps_its_weights_while_the_head_learns() -> None:
    trainer = trainer_of(lr_backbone=0.0)
    before = weights_of(trainer.model)
    trainer.train_epoch(IMAGES)
    learned = {name for name, _ in trainer.model.named_parameters()} & changed(weights_of(trainer.model), before)
    assert learned
    assert all(name.startswith("head.") for name in learned)


def test_methods_start_from_the_same_backbone_and_classifier() -> None:
    with_head, without = (trainer_of(method=method, backbone="resnet18").model for method in ("ccl", "baseline"))
    start = without.state_dict()
    assert all(torch.equal(with_head.state_dict()[name], tensor) for name, tensor in start.items())
