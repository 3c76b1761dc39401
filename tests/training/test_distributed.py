"""Real processes, on the processor: torch's gloo between two of them."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes
from torch.testing import assert_close

from cclnet.networks.backbones import synchronise_batch_norm
from cclnet.networks.model import CCLNet, build_model
from cclnet.system.errors import CCLNetError
from cclnet.system.interruption import InterruptionError, interruptible
from cclnet.system.machine import select_device
from cclnet.training.batches import split_into_batches
from cclnet.training.distributed import (
    ALONE,
    LostProcessError,
    Processes,
    ProcessGroup,
    joined_processes,
    processes_to_start,
)
from cclnet.training.loop import fit
from cclnet.training.states import StateStore
from cclnet.training.trainer import Trainer
from tests.training.builders import (
    CPU,
    FREEZES_IN_EPOCH_3,
    RAN_ON,
    VALIDATION,
    K,
    build_tiny_or_real,
    params,
    subset_of,
    weights_of,
)

PROJECT = Path(__file__).parents[2]
IMAGES = subset_of([k % K for k in range(21)])  # of the last batch, 5 images, one process has 3 and the other 2
IN_CHANNELS_LAST = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
ONLINE: dict[str, Any] = {"method": "online_smoothing"}
# freezes in epoch 3, with every term of the head's loss at work
PLAIN = {"lr_ccl": 0.5, "alpha_cc": 0.2, "margin": 0.1, "head_balance": "weights"}


def without_batch_norm(*arguments: Any, **head: Any) -> CCLNet:
    """The tiny network without what depends on the other images of a batch, or on chance."""
    model = build_tiny_or_real(*arguments, **head)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout):
                setattr(module, name, nn.Identity())
    return model


def trained(
    processes: Processes, folder: Path, build: Any = build_tiny_or_real, asked_at: int | None = None, **changes: Any
) -> dict[str, Any]:
    """What a fit leaves in this process; after ``asked_at`` images the last of the processes gets a SIGTERM."""

    def report(name: str, done: int, total: int, detail: str = "") -> None:
        if done == asked_at and processes.rank == processes.count - 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cclnet.training.trainer.build_model", build)
        trainer = Trainer(params(**FREEZES_IN_EPOCH_3 | changes), IMAGES.class_counts(K), CPU, processes)
    store = StateStore(folder, "run") if processes.rank == 0 else None
    if store:
        store.__enter__()
    history = None
    with interruptible(processes.largest) as end_if_asked_to:
        try:
            history = fit(trainer, IMAGES, VALIDATION, store, RAN_ON, report, end_if_asked_to)
        except InterruptionError as error:
            assert error.exit_status == 143
    if store:
        store.__exit__()
    return {"weights": weights_of(trainer.model), "history": history, "seen": trainer.seen, "epoch": trainer.epoch}


def collectives(processes: Processes) -> dict[str, Any]:
    rank = processes.rank
    sums = [torch.full((2, 3), 1.0 + rank), torch.tensor(10.0 * rank), 4 * rank * IN_CHANNELS_LAST]
    processes.add_up(sums)
    model = nn.BatchNorm1d(2)
    model.running_mean = torch.full((2,), float(rank + 1))
    model.num_batches_tracked = torch.tensor(rank + 5)
    model.weight = nn.Parameter((1 - rank) * IN_CHANNELS_LAST)
    processes.align(model)
    return {
        "shares": [processes.share(np.arange(count)).tolist() for count in (4, 5)],
        "equal shares": [processes.equal_share(np.arange(count)).tolist() for count in (1, 4, 5)],
        "gathered": processes.gather(np.arange(4.0).reshape(2, 2) + 10 * rank).tolist(),
        "added up": sums,
        "in channels last": sums[2].is_contiguous(memory_format=torch.channels_last),
        "largest": [processes.largest(number) for number in (rank, 1 - rank, 7)],
        "from first": processes.from_first({"rank": rank, "tensor": torch.full((rank + 2,), 3.0)}),
        "nothing from first": processes.from_first(None),
        "aligned": model.state_dict(),
    }


def variables_of_torchrun(rank: int, count: int, port: int) -> dict[str, str]:
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {name: str(value) for name, value in here.items()} | {"TORCHELASTIC_RUN_ID": "1", "MASTER_ADDR": "localhost"}


def in_both(rank: int, folder: Path, port: int) -> None:
    """What each of the two processes does; it leaves what it has found in a file."""
    torch.set_num_threads(1)
    os.environ.update(variables_of_torchrun(rank, 2, port))
    found: dict[str, Any] = {}
    with joined_processes(CPU) as processes:
        found["warns"] = logging.getLogger("cclnet.training.trainer").isEnabledFor(logging.WARNING)
        found["place"] = (processes.rank, processes.count)
        found |= collectives(processes)
        try:
            processes.share(np.arange(3))
        except CCLNetError as error:
            found["too small"] = str(error)
        found["plain"] = trained(processes, folder / "plain", without_batch_norm, **PLAIN)
        found["online"] = trained(processes, folder / "online", without_batch_norm, **ONLINE)
        found["uninterrupted"] = trained(processes, folder / "uninterrupted")
        found["again"] = trained(processes, folder / "again")
        found["asked"] = trained(processes, folder / "asked", asked_at=29)  # in the second epoch, after its first step
        found["states"] = sorted(path.name for path in (folder / "asked" / "run").glob("images-*"))
        processes.wait()
        found["resumed"] = trained(processes, folder / "asked")
        if rank == 0:
            try:
                processes.largest(0)
            except LostProcessError as error:
                found["lost"] = error.exit_status
    torch.save(found, folder / f"found by {rank}")


def in_three(rank: int, folder: Path, port: int) -> None:
    """Leaves the results of an uninterrupted and of a resumed training in a file."""
    torch.set_num_threads(1)
    os.environ.update(variables_of_torchrun(rank, 3, port))
    with joined_processes(CPU) as processes:
        found = {"uninterrupted": trained(processes, folder / "uninterrupted")}
        found["asked"] = trained(processes, folder / "asked", asked_at=29)
        processes.wait()
        found["resumed"] = trained(processes, folder / "asked")
    torch.save(found, folder / f"found by {rank}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("processes")
    start_processes(in_both, (folder, free_port()), nprocs=2)
    first, second = (torch.load(folder / f"found by {rank}", weights_only=True) for rank in (0, 1))
    yield first, second


# what they do in common


def test_processes_find_each_other(found: tuple[dict[str, Any], ...]) -> None:
    assert [here["place"] for here in found] == [(0, 2), (1, 2)]
    assert [here["warns"] for here in found] == [True, False]


def test_shares_are_the_whole(found: tuple[dict[str, Any], ...]) -> None:
    assert [here["shares"] for here in found] == [[[0, 1], [0, 1, 2]], [[2, 3], [3, 4]]]
    assert [here["equal shares"] for here in found] == [[[0], [0, 1], [0, 1, 2]], [[0], [2, 3], [3, 4, 0]]]
    assert all(here["gathered"] == [[0, 1], [2, 3], [10, 11], [12, 13]] for here in found)
    assert all("a minibatch of 3 images is too small for 2 processes" in here["too small"] for here in found)


def test_shares_add_up_in_whatever_layout(found: tuple[dict[str, Any], ...]) -> None:
    for here in found:
        assert_close(here["added up"], [torch.full((2, 3), 3.0), torch.tensor(10.0), 4 * IN_CHANNELS_LAST])
        assert here["in channels last"]


def test_what_one_knows_all_know(found: tuple[dict[str, Any], ...]) -> None:
    for here in found:
        assert here["largest"] == [1, 1, 7]
        assert here["from first"]["rank"] == 0
        assert here["from first"]["tensor"].tolist() == [3, 3]
        assert here["nothing from first"] is None
        assert here["aligned"]["running_mean"].tolist() == [1, 1]
        assert here["aligned"]["num_batches_tracked"] == 5
        assert_close(here["aligned"]["weight"], IN_CHANNELS_LAST)


def test_a_process_that_has_ended_is_missed(found: tuple[dict[str, Any], ...]) -> None:
    assert found[0]["lost"] == 75


# training


def equal(weights: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def test_two_processes_train_as_one_where_images_do_not_meet(found: tuple[dict[str, Any], ...], tmp_path: Path) -> None:
    one = trained(ALONE, tmp_path, without_batch_norm, **PLAIN)
    assert [row["frozen"] for row in one["history"]] == [0, 0, 1, 1]
    for here in found:
        assert_close(here["plain"]["weights"], one["weights"], rtol=1e-4, atol=1e-6)
        for row, expected in zip(here["plain"]["history"], one["history"], strict=True):
            assert row == pytest.approx(expected, rel=1e-4)


def test_processes_have_the_online_labels_in_common(found: tuple[dict[str, Any], ...], tmp_path: Path) -> None:
    one = trained(ALONE, tmp_path, without_batch_norm, **ONLINE)
    softness = [row["softness"] for row in one["history"]]
    for here in found:
        assert_close(here["online"]["weights"], one["weights"], rtol=1e-4, atol=1e-6)
        assert [row["softness"] for row in here["online"]["history"]] == pytest.approx(softness, rel=1e-5)


def test_all_processes_have_the_same_weights_and_history(found: tuple[dict[str, Any], ...]) -> None:
    first, second = (here["uninterrupted"] for here in found)
    assert first["history"] == second["history"]
    assert equal(first["weights"], second["weights"])  # since the last epoch's validation, the statistics too


def test_training_of_two_processes_repeats_to_the_last_bit(found: tuple[dict[str, Any], ...]) -> None:
    for here in found:
        assert equal(here["uninterrupted"]["weights"], here["again"]["weights"])
        assert here["uninterrupted"]["history"] == here["again"]["history"]


def test_all_stop_at_the_step_in_which_one_is_asked_to(found: tuple[dict[str, Any], ...]) -> None:
    for here in found:
        assert (here["asked"]["epoch"], here["asked"]["seen"], here["asked"]["history"]) == (2, 8, None)
        assert here["states"] == ["images-000000000021", "images-000000000029"]


def test_processes_that_were_asked_to_end_go_on_as_if_they_had_not_been(found: tuple[dict[str, Any], ...]) -> None:
    for here in found:
        assert equal(here["resumed"]["weights"], here["uninterrupted"]["weights"])
        assert here["resumed"]["history"] == here["uninterrupted"]["history"]


def test_three_processes_add_up_in_the_same_order_after_a_resume(tmp_path: Path) -> None:
    start_processes(in_three, (tmp_path, free_port()), nprocs=3)
    for rank in range(3):
        here = torch.load(tmp_path / f"found by {rank}", weights_only=True)
        assert here["asked"]["seen"] == 8
        assert equal(here["resumed"]["weights"], here["uninterrupted"]["weights"])


class Failing(torch.autograd.Function):
    """The identity, whose backward pass ends with an error."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, message: str) -> Tensor:
        ctx.message = message
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise RuntimeError(ctx.message)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("[gloo/transport/tcp/pair.cc:547] Connection closed by peer", LostProcessError),
        ("DefaultCPUAllocator: can't allocate memory", RuntimeError),
    ],
)
def test_an_error_of_the_backward_pass_is_not_taken_for_a_lost_process(message: str, kind: type) -> None:
    group = object.__new__(ProcessGroup)  # without torch's process group, which the backward pass here does not need
    group.count = 2
    loss: Any = Failing.apply(torch.ones((), requires_grad=True), message)
    with pytest.raises(kind) as raised:
        group.backward(loss)
    assert type(raised.value) is kind


def test_no_process_gets_too_few_images() -> None:
    for count in range(6, 60):
        for batch_size in range(6, 12):
            batches = split_into_batches(np.arange(count), batch_size, smallest=6)
            np.testing.assert_array_equal(np.concatenate(batches), np.arange(count))
            assert min(len(batch) for batch in batches) >= 6
            assert {len(batch) for batch in batches[:-1]} <= {batch_size}


@pytest.mark.parametrize("backbone", ["resnet18", "timm/test_efficientnet"])
def test_synchronised_batch_norm_is_the_same_model(backbone: str) -> None:
    model, twin = (build_model(backbone, None, 32, K, with_head=True) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    synchronise_batch_norm(twin, backbone)
    kinds = {type(module) for module in twin.modules()}
    assert any(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
    assert not any(issubclass(kind, nn.BatchNorm1d | nn.BatchNorm2d) for kind in kinds)
    assert twin.state_dict().keys() == model.state_dict().keys()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert_close(twin.eval()(images), model.eval()(images))


# how many are started, and how they end


@pytest.mark.parametrize(
    ("asked_for", "device", "gpus", "expected"),
    [
        ("auto", "cpu", 0, 1),
        ("auto", "cpu", 4, 1),
        ("auto", "cuda", 4, 4),
        ("auto", "cuda:1", 4, 1),
        (1, "cuda", 4, 1),
        (3, "cpu", 0, 3),
        (3, "cuda", 4, 3),
    ],
)
def test_how_many_processes_are_started(
    asked_for: Any, device: str, gpus: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert processes_to_start(asked_for, torch.device(device)) == expected
    for name, value in variables_of_torchrun(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    assert processes_to_start(asked_for, torch.device(device)) == 1


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 2), ("cuda:1", 1)])
def test_each_process_needs_a_gpu(device: str, gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        CCLNetError, match=f"processes: 3 are asked for, and a GPU for each; device: {device} has {gpus}"
    ):
        processes_to_start(3, torch.device(device))


ENDS = """
import os, signal, sys, time
first = os.environ["RANK"] == "0"
match sys.argv[1:] or os.environ["ENDS"]:
    case "said": sys.exit(7 if first else 75)
    case "killed":
        if first: os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    case "asked": sys.exit(143)
    case "lost": sys.exit(75)
"""

LAUNCHES = """
import json, os
from cclnet.training.distributed import start_processes
said = {}
for end in ("well", "said", "killed", "asked", "lost"):
    os.environ["ENDS"] = end
    try:
        start_processes(2, "ends")
        said[end] = None
    except BaseException as error:
        said[end] = [type(error).__name__, str(error), getattr(error, "exit_status", None)]
print(json.dumps(said))
"""


def test_the_end_of_processes_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(ENDS, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-c", LAUNCHES]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert finished.stderr == ""
    again = "run it again to go on after the last finished epoch"
    assert json.loads(finished.stdout) == {
        "well": None,
        "said": ["SystemExit", "7", None],
        "killed": ["CCLNetError", f"a process was ended by SIGKILL; {again}", 1],
        "asked": ["InterruptionError", str(InterruptionError(signal.SIGTERM)), 143],
        "lost": ["CCLNetError", f"the processes have lost each other; {again}", 1],
    }


STOPPED = """
import os, signal, sys, time
from pathlib import Path
from cclnet.system.interruption import interruptible
with interruptible(insist=False) as end_if_asked_to:
    Path(f"pid{os.environ['RANK']}").write_text(str(os.getpid()))
    try:
        while True:
            time.sleep(0.1)
            end_if_asked_to()
    except Exception as error:
        Path(f"kept{os.environ['RANK']}").touch()
        sys.exit(error.exit_status)
"""


def test_a_process_that_is_stopped_ends_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(STOPPED, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}{os.pathsep}{tmp_path}"}
    code = "from cclnet.training.distributed import start_processes\nstart_processes(2, 'steps')"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as launcher:
        pids = [tmp_path / f"pid{rank}" for rank in (0, 1)]
        while launcher.poll() is None and not all(pid.exists() and pid.read_text() for pid in pids):
            time.sleep(0.05)
        os.kill(int(pids[1].read_text()), signal.SIGSTOP)
        launcher.terminate()
        _, err = launcher.communicate(timeout=60)
    assert "ended by SIGTERM; what is done is kept" in err
    assert sorted(path.name for path in tmp_path.glob("kept*")) == ["kept0", "kept1"]


class Store:
    """The store that two processes share, for one that has met an error before or after the other."""

    def __init__(self, errors: int) -> None:
        self.errors = errors

    def add(self, key: str, amount: int) -> int:
        self.errors += amount
        return self.errors


@pytest.mark.parametrize(
    ("error", "errors_before", "silent"),
    [
        (CCLNetError("the loss is not finite"), 0, False),
        (CCLNetError("the loss is not finite"), 1, True),
        (MemoryError(), 0, False),
        (MemoryError(), 1, True),
        (InterruptionError(signal.SIGINT), 0, True),
        (LostProcessError(), 0, True),
    ],
)
def test_the_first_to_meet_an_error_speaks(
    error: Exception, errors_before: int, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = SimpleNamespace(
        init_process_group=lambda *_, **__: None,
        destroy_process_group=lambda: None,
        get_rank=lambda: 0,
        get_world_size=lambda: 2,
    )
    monkeypatch.setattr("cclnet.training.distributed.distributed", group)
    monkeypatch.setattr(
        "cclnet.training.distributed.rendezvous", lambda url, timeout: iter([(Store(errors_before), 0, 2)])
    )
    for name, value in variables_of_torchrun(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit if silent else type(error)) as ended, joined_processes(CPU):
            raise error
    finally:
        signal.signal(signal.SIGTERM, handler)
    if isinstance(ended.value, SystemExit):
        assert ended.value.code == getattr(error, "exit_status", 1)


WHOLE_SET = variables_of_torchrun(1, 4, 29500)


@pytest.mark.parametrize("missing", [*WHOLE_SET, None])
def test_variables_that_a_scheduler_has_left_are_no_processes(
    missing: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cclnet.training.distributed.distributed", None)
    monkeypatch.setattr("cclnet.training.distributed.rendezvous", None)
    for name, value in WHOLE_SET.items():
        if name == missing:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    if missing is None:
        monkeypatch.setenv("LOCAL_RANK", "%t")  # a template that a scheduler has not filled in
    with caplog.at_level(logging.WARNING), joined_processes(CPU) as processes:
        assert processes is ALONE
    expected = (
        [] if missing == "WORLD_SIZE" else ["WORLD_SIZE=4 is set, but not by torchrun: this process trains alone"]
    )
    assert caplog.messages == expected
    assert processes_to_start(3, CPU) == 3
    assert select_device("cpu") == CPU


def test_processes_that_do_not_find_each_other_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables_of_torchrun(1, 2, 1).items():  # nobody listens there
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("cclnet.training.distributed.TIME_TO_MEET", timedelta(seconds=1))
    said = "the processes that torchrun has started do not find each other"
    with pytest.raises(CCLNetError, match=said), joined_processes(CPU):
        pass


def test_one_process_does_without_torch_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cclnet.training.distributed.distributed", None)
    for variables in ({}, {"WORLD_SIZE": "1"}, variables_of_torchrun(0, 1, 1)):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with joined_processes(CPU) as processes:
            assert (processes.rank, processes.count) == (0, 1)
            images, rows = np.arange(5), np.ones((5, 2))
            assert processes.share(images) is processes.equal_share(images) is images
            assert processes.gather(rows) is rows
            assert processes.largest(15) == 15
            assert processes.from_first(images) is images
