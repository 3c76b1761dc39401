"""``CCLLoss`` in training loops of all kinds; what it computes is held against the functions of ``cclnet.ccl``."""

import copy
import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from torch.fx import GraphModule
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.testing import assert_close

from cclnet import CCLHead, CCLLoss, CCLNet, Convergence, classification_loss, softness
from cclnet.ccl import FreezingRule, balancing_weights, require_equal_heads

NUM_FEATURES, K = 6, 7
SMALL: dict[str, Any] = {"hidden_dim": 32, "embedding_dim": 16}
LABELS = torch.arange(14) % K


def small_loss(**options: Any) -> CCLLoss:
    torch.manual_seed(1)
    return CCLLoss(NUM_FEATURES, K, **SMALL | options)


def small_model() -> CCLNet:
    torch.manual_seed(2)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, NUM_FEATURES), nn.ReLU())
    return CCLNet(backbone, NUM_FEATURES, K)


def minibatch(seed: int = 0) -> Tensor:
    return torch.randn(14, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def outputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Features and logits that want a gradient."""
    features, logits = small_model()(minibatch(), with_features=True)
    return features.detach().to(dtype).requires_grad_(), logits.detach().to(dtype).requires_grad_()


def optimizer_of(model: nn.Module, criterion: nn.Module, lr_ccl: float = 0.1) -> SGD:
    groups = [{"params": model.parameters()}, {"params": criterion.parameters(), "lr": lr_ccl}]
    return SGD(groups, lr=0.1, momentum=0.9, weight_decay=1e-3)


def assert_equal_states(found: nn.Module, expected: nn.Module) -> None:
    expected_state = expected.state_dict()
    assert found.state_dict().keys() == expected_state.keys()
    different = [name for name, tensor in found.state_dict().items() if not torch.equal(tensor, expected_state[name])]
    assert different == []


# what it computes


def test_loss_is_the_classification_loss_plus_the_head_loss() -> None:
    criterion, (features, logits) = small_loss(alpha_cc=3.0), outputs()
    weights, prior = balancing_weights(torch.arange(1, K + 1)), torch.rand(K).log()
    for options in ({}, {"class_weights": weights}, {"log_prior": prior}):
        balanced = small_loss(alpha_cc=3.0, **options)
        expected = classification_loss(logits, LABELS, criterion.head.soft_labels())
        expected = expected + copy.deepcopy(criterion.head).loss(features, LABELS, 3.0, **options)
        assert torch.equal(balanced(features, logits, LABELS), expected)
    assert torch.equal(criterion.soft_labels(), criterion.head.soft_labels())


def test_options_reach_the_head() -> None:
    criterion = CCLLoss(5, K, hidden_dim=8, embedding_dim=6, margin=1.5, temperature=0.5, dictionary_init="positive")
    head = criterion.head
    assert (head.margin, head.temperature, head.class_embeddings.shape) == (1.5, 0.5, (K, 6))
    assert [layer.out_features for layer in head.embedding if isinstance(layer, nn.Linear)] == [8, 8, 6]
    assert head.class_embeddings.min() >= 0
    default, paper = CCLLoss(5, K), CCLHead(5, K)
    assert {name: tensor.shape for name, tensor in default.head.state_dict().items()} == {
        name: tensor.shape for name, tensor in paper.state_dict().items()
    }
    assert (default.alpha_cc, default.freezing.convergence.patience, default.freezing.freeze_at) == (10.0, 10, "best")


def test_network_and_head_get_the_gradients_of_their_own_loss() -> None:
    criterion, (features, logits) = small_loss(), outputs()
    criterion(features, logits, LABELS).backward()
    assert features.grad is None
    twin = logits.detach().requires_grad_()
    classification_loss(twin, LABELS, small_loss().head.soft_labels()).backward()
    assert_close(logits.grad, twin.grad, rtol=0, atol=0)
    head = small_loss().head
    head.loss(features.detach(), LABELS).backward()
    for found, expected in zip(criterion.head.parameters(), head.parameters(), strict=True):
        assert_close(found.grad, expected.grad, rtol=0, atol=0)


def test_evaluation_changes_nothing() -> None:
    criterion, (features, logits) = small_loss(), outputs()
    criterion(features, logits, LABELS)
    before = copy.deepcopy(criterion).eval()
    with torch.no_grad():
        first, second = (criterion.eval()(features, logits, LABELS) for _ in range(2))
    assert first == second
    assert_equal_states(criterion, before)


@pytest.mark.parametrize("options", [{"freeze_at": "bset"}, {"patience": 0}, {"dictionary_init": "x"}], ids=str)
def test_unknown_options_are_refused_in_one_line(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=rf"^{name} must be [^\n]*$"):
        small_loss(**options)


# in a loop


def trained(epochs: int, resume_from: dict[str, Any] | None = None, **options: Any) -> tuple[CCLNet, CCLLoss, SGD]:
    """So many epochs of two steps, continued from a saved state if there is one."""
    model, criterion = small_model(), small_loss(**options)
    optimizer = optimizer_of(model, criterion)
    started = 0
    if resume_from:
        for name, part in (("model", model), ("criterion", criterion), ("optimizer", optimizer)):
            part.load_state_dict(resume_from[name])
        started = resume_from["epoch"]
    for epoch in range(started, epochs):
        for step in range(2):
            features, logits = model(minibatch(2 * epoch + step), with_features=True)
            criterion(features, logits, LABELS).backward()
            optimizer.step()
            optimizer.zero_grad()
        criterion.end_epoch()
    return model, criterion, optimizer


STIFFENS: dict[str, Any] = {"dictionary_init": "positive", "alpha_cc": 0.0, "patience": 3}
"""p̄ is lowest after the first epoch; the dictionary freezes after the fourth."""


@pytest.mark.parametrize("freeze_at", ["best", "current", "never"])
def test_loop_is_the_written_out_one_to_the_last_bit(freeze_at: str) -> None:
    model, criterion, _ = trained(6, **STIFFENS, freeze_at=freeze_at)

    twin, head = small_model(), small_loss(**STIFFENS).head
    optimizer = optimizer_of(twin, head)
    convergence, best = Convergence(3), head.class_embeddings
    for epoch in range(6):
        for step in range(2):
            features = twin.backbone(minibatch(2 * epoch + step))
            loss = classification_loss(twin.classifier(features), LABELS, head.soft_labels())
            (loss + head.loss(features.detach(), LABELS, alpha_cc=0.0)).backward()
            optimizer.step()
            optimizer.zero_grad()
        if freeze_at == "never":
            continue
        converged = convergence.update(softness(head.soft_labels()).item())
        if convergence.best_epoch == epoch + 1:
            best = head.class_embeddings.detach().clone()
        if converged:
            head.freeze_dictionary(best if freeze_at == "best" else None)
    assert_equal_states(model, twin)
    assert_equal_states(criterion.head, head)
    assert criterion.head.frozen == (freeze_at != "never")
    if freeze_at != "never":
        assert (convergence.best_epoch, convergence.converged_epoch) == (1, 4)
        assert criterion.freezing.convergence.state_dict() == convergence.state_dict()
    assert criterion.freezing.dictionary_epoch(6) == {"best": 1, "current": 4, "never": 6}[freeze_at]


def test_end_epoch_is_true_in_the_epoch_of_the_freeze_alone() -> None:
    criterion = small_loss(patience=2)
    assert [criterion.end_epoch() for _ in range(6)] == [False, False, True, False, False, False]
    assert criterion.head.frozen


@pytest.mark.parametrize("interrupted_after", range(1, 6))
@pytest.mark.parametrize("through", ["torch.save", "safetensors"])
def test_resumed_loop_ends_like_the_uninterrupted_one(interrupted_after: int, through: str, tmp_path: Path) -> None:
    model, criterion, optimizer = trained(interrupted_after, **STIFFENS)
    state = {"model": model.state_dict(), "criterion": criterion.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    if through == "safetensors":
        save_file(criterion.state_dict(), tmp_path / "criterion")
        state["criterion"] = load_file(tmp_path / "criterion")
    resumed = trained(6, state | {"epoch": interrupted_after}, **STIFFENS)
    for found, expected in zip(resumed[:2], trained(6, **STIFFENS)[:2], strict=True):
        assert_equal_states(found, expected)
    assert resumed[1].head.frozen
    assert resumed[1].freezing.convergence.converged_epoch == 4


def test_rule_ignores_nan_and_keeps_its_count() -> None:
    head = CCLHead(5, K, **SMALL)
    rule, learned = FreezingRule(head, patience=2), head.class_embeddings.detach().clone()
    assert not rule.end_epoch(head)
    with torch.no_grad():
        head.class_embeddings.fill_(math.nan)
    assert [rule.end_epoch(head) for _ in range(5)] == [False] * 5
    again = FreezingRule(CCLHead(5, K, **SMALL), patience=2)
    again.load_state_dict(rule.state_dict())
    assert again.convergence.state_dict() == rule.convergence.state_dict()
    assert (again.convergence.epoch, again.convergence.best_epoch, again.convergence.converged_epoch) == (6, 1, None)
    assert torch.equal(again.best_dictionary, learned)


# as a module


def test_to_moves_everything() -> None:
    criterion = small_loss(class_weights=torch.ones(K), log_prior=torch.zeros(K))
    moved = copy.deepcopy(criterion).to("meta")
    assert {tensor.device.type for tensor in [*moved.parameters(), *moved.buffers()]} == {"meta"}
    wide = criterion.double()
    loss = wide(*outputs(torch.float64), LABELS)
    assert loss.dtype == torch.float64
    wide.end_epoch()
    assert wide.freezing.best_dictionary.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("within", [True, False], ids=["within autocast", "outside of autocast"])
def test_mixed_precision(dtype: torch.dtype, within: bool) -> None:
    criterion = small_loss()
    exact = small_loss()(*outputs(), LABELS)
    with torch.autocast("cpu", dtype, enabled=within):
        loss = criterion(*outputs(dtype), LABELS)
    assert loss.dtype == torch.float32
    assert_close(loss, exact, rtol=2e-2, atol=0)
    torch.amp.GradScaler("cpu", init_scale=256.0).scale(loss).backward()
    assert all(it.grad is not None and it.grad.isfinite().all() for it in criterion.parameters())


def test_accumulated_gradients_are_those_of_the_mean() -> None:
    criterion, twin = small_loss(), small_loss()
    parts = [outputs(), outputs()]
    for features, logits in parts:
        (criterion(features, logits, LABELS) / 2).backward()
    torch.stack([twin(features, logits, LABELS) for features, logits in parts]).mean().backward()
    for found, expected in zip(criterion.parameters(), twin.parameters(), strict=True):
        assert_close(found.grad, expected.grad)


def test_compiled_loss_is_the_plain_one_before_and_after_the_freeze() -> None:
    criterion, twin = small_loss(), small_loss()
    compiled = torch.compile(criterion, backend="aot_eager", fullgraph=True)
    for frozen in (False, True):
        if frozen:
            criterion.head.freeze_dictionary()
            twin.head.freeze_dictionary()
        found, expected = (loss(*outputs(), LABELS) for loss in (compiled, twin))
        assert_close(found, expected)
        found.backward()
        expected.backward()
        for parameter, other in zip(criterion.parameters(), twin.parameters(), strict=True):
            assert_close(parameter.grad, other.grad)
        assert (criterion.head.class_embeddings.grad is None) == frozen
    with pytest.raises(RuntimeError, match="labels must lie in 0 … 6"):
        compiled(*outputs(), torch.full_like(LABELS, -1))


def test_loss_is_compiled_once_before_and_once_after_the_freeze() -> None:
    compiled: list[GraphModule] = []

    def count(graph: GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    criterion = small_loss()
    loss_of = torch.compile(criterion, backend=count, fullgraph=True)
    for frozen in (False, True):
        if frozen:
            criterion.head.freeze_dictionary()
        for _ in range(2):
            loss_of(*outputs(), LABELS).backward()
        assert len(compiled) == 1 + frozen


def test_optimizer_without_the_frozen_dictionary_cannot_take_the_state_of_one_with_it() -> None:
    criterion = small_loss()
    optimizer = SGD(criterion.parameters(), lr=0.1)
    criterion.head.freeze_dictionary()
    SGD(criterion.parameters(), lr=0.1).load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="doesn't match the size"):
        SGD([it for it in criterion.parameters() if it.requires_grad], lr=0.1).load_state_dict(optimizer.state_dict())


def test_loss_from_the_meta_device_trains() -> None:
    with torch.device("meta"):
        criterion = CCLLoss(NUM_FEATURES, K, **SMALL)
    criterion.to_empty(device="cpu")
    for module in criterion.modules():
        getattr(module, "reset_parameters", lambda: None)()
    criterion(*outputs(), LABELS).backward()
    assert not criterion.end_epoch()
    assert torch.equal(criterion.freezing.best_dictionary, criterion.head.class_embeddings)


# in several processes


class Both(nn.Module):
    """Network and loss in one module, as Lightning and the Trainer of transformers have them."""

    def __init__(self, model: nn.Module, criterion: CCLLoss) -> None:
        super().__init__()
        self.model, self.criterion = model, criterion

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.criterion(*self.model(images, with_features=True), labels)


def without_batch_norm(criterion: CCLLoss) -> CCLLoss:
    """So that a loss does not depend on the other images, and half of a batch in each process is the whole batch."""
    for place, layer in enumerate(criterion.head.embedding):
        if isinstance(layer, nn.BatchNorm1d):
            criterion.head.embedding[place] = nn.Identity()
    return criterion


DISTRIBUTED = STIFFENS | {"patience": 1}


def train_shares(share: slice, prepare: Callable[[CCLNet, CCLLoss], Callable[[Tensor, Tensor], Tensor]]) -> Both:
    """Five epochs of two steps on this part of every minibatch; the dictionary freezes after the third."""
    model, criterion = small_model(), without_batch_norm(small_loss(**DISTRIBUTED))
    loss_of = prepare(model, criterion)
    optimizer = optimizer_of(model, criterion, lr_ccl=0.3)
    for epoch in range(5):
        for step in range(2):
            loss_of(minibatch(2 * epoch + step)[share], LABELS[share]).backward()
            optimizer.step()
            optimizer.zero_grad()
        criterion.end_epoch()
    return Both(model, criterion)


def wrap_each(model: CCLNet, criterion: CCLLoss) -> Callable[[Tensor, Tensor], Tensor]:
    """The recipe of the documentation."""
    network = DistributedDataParallel(model)
    loss = DistributedDataParallel(criterion, find_unused_parameters=True)
    return lambda images, labels: loss(*network(images, with_features=True), labels)


def wrap_both(model: CCLNet, criterion: CCLLoss) -> Callable[[Tensor, Tensor], Tensor]:
    return DistributedDataParallel(Both(model, criterion), find_unused_parameters=True)


def wrap_without_unused(model: CCLNet, criterion: CCLLoss) -> Callable[[Tensor, Tensor], Tensor]:
    return DistributedDataParallel(Both(model, criterion))


def wrap_statically(model: CCLNet, criterion: CCLLoss) -> Callable[[Tensor, Tensor], Tensor]:
    return DistributedDataParallel(Both(model, criterion), find_unused_parameters=True, static_graph=True)


def wrap_the_network_alone(model: CCLNet, criterion: CCLLoss) -> Callable[[Tensor, Tensor], Tensor]:
    network = DistributedDataParallel(model)
    return lambda images, labels: criterion(*network(images, with_features=True), labels)


def train_a_bare_head(share: slice) -> str:
    """A step on a head that is called past the wrapper of the network around it."""
    torch.manual_seed(0)
    head = DistributedDataParallel(CCLHead(16, 7)).module
    features, labels = torch.randn(14, 16), torch.arange(14) % 7
    head.loss(features[share], labels[share]).backward()
    torch.optim.SGD(head.parameters(), lr=0.1).step()
    try:
        require_equal_heads(head)
    except RuntimeError as error:
        return str(error)
    return "unnoticed"


def in_both_processes(rank: int, folder: Path, port: int) -> None:
    """What each of the two processes does; it leaves what it has found in a file."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    share = slice(7 * rank, 7 * (rank + 1))
    for prepare in (wrap_each, wrap_both, wrap_without_unused, wrap_statically, wrap_the_network_alone):
        try:
            found[prepare.__name__] = train_shares(share, prepare).state_dict()
        except (RuntimeError, ValueError) as error:
            found[prepare.__name__] = f"{type(error).__name__}: {error}"
        distributed.barrier()
    found["bare head"] = train_a_bare_head(share)
    torch.save(found, folder / f"found by {rank}")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start_processes(in_both_processes, (folder, port), nprocs=2)
    first, second = (torch.load(folder / f"found by {rank}", weights_only=True) for rank in (0, 1))
    return first, second


@pytest.mark.parametrize("recipe", ["wrap_each", "wrap_both"])
def test_processes_hold_the_same_network_and_head_before_and_after_the_freeze(
    recipe: str, found: tuple[dict[str, Any], ...]
) -> None:
    first, second = (here[recipe] for here in found)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert first["criterion.head._extra_state"]  # frozen
    alone = train_shares(slice(None), lambda model, criterion: Both(model, criterion)).state_dict()
    assert_close(dict(first), dict(alone), rtol=1e-4, atol=1e-6)


def test_wrappers_that_would_fail_after_the_freeze_are_refused_in_the_first_step(
    found: tuple[dict[str, Any], ...],
) -> None:
    for here in found:
        for recipe in ("wrap_without_unused", "wrap_statically"):
            assert here[recipe].startswith("ValueError: DistributedDataParallel around a CCLLoss needs find_unused_")
            assert "\n" not in here[recipe]


def test_heads_that_drift_apart_are_refused_at_the_end_of_the_first_epoch(found: tuple[dict[str, Any], ...]) -> None:
    for here in found:
        assert here["wrap_the_network_alone"].startswith("RuntimeError: the CCL heads of the processes differ: wrap")
        assert "\n" not in here["wrap_the_network_alone"]
        assert here["bare head"].startswith("the CCL heads of the processes differ: wrap")
