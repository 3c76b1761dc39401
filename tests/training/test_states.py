import errno
import hashlib
import io
import json
import logging
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cclnet.networks.model import CCLNet, build_model, load_model
from cclnet.networks.model_file import save_model
from cclnet.system.errors import CCLNetError, MissingPackageError
from cclnet.training.states import StateStore
from tests.networks.builders import BACKBONE, description
from tests.training.builders import Payload

PROJECT = Path(__file__).parents[2]


def state(epoch: int) -> dict[str, Any]:
    """The kinds of things that a trainer keeps."""
    return {
        "epoch": epoch,
        "model": {"weight": torch.arange(6.0).view(2, 3) + epoch, "batches": torch.tensor(epoch)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.full((3,), 1.0 / 3)}}, "param_groups": [{"lr": 0.1}]},
        "head_optimizer": None,
        "convergence": {"best_softness": 0.1 + 0.2, "converged_epoch": None},
        "history": [{"epoch": 1, "softness": None}],
    }


def assert_same(actual: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, Tensor):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    else:
        assert actual == expected


def states_in(store: StateStore) -> list[str]:
    store.finish()
    return sorted(path.name for path in store.folder.iterdir() if path.name != "lock")


def flip_a_bit(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


# the states of a run


def test_a_new_run_has_no_state(tmp_path: Path):
    with StateStore(tmp_path, "run") as store:
        assert store.load() is None


def test_a_state_comes_back_in_another_process_as_it_was(tmp_path: Path):
    with StateStore(tmp_path, "run") as store:
        store.save(state(1), 1)
    with StateStore(tmp_path, "run") as store:
        assert_same(store.load(), state(1))
    with StateStore(tmp_path, "another run") as store:
        assert store.load() is None


def test_two_states_are_kept_and_the_newest_is_loaded(tmp_path: Path):
    with StateStore(tmp_path, "run") as store:
        for epoch in (8, 9, 10, 99, 100):
            store.save(state(epoch), epoch)
            assert_same(store.load(), state(epoch))
        assert states_in(store) == ["images-000000000099", "images-000000000100"]


@pytest.mark.parametrize("damage", ["bit", "digest", "cut", "empty"])
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str):
    with StateStore(tmp_path, "run") as store:
        for epoch in (1, 2):
            store.save(state(epoch), epoch)
        store.finish()
        newest = store.folder / "images-000000000002"
        match damage:
            case "bit":
                flip_a_bit(newest, newest.stat().st_size // 2)
            case "digest":
                flip_a_bit(newest, 0)
            case "cut":
                newest.write_bytes(newest.read_bytes()[:-1])
            case "empty":
                newest.write_bytes(b"")
        with caplog.at_level(logging.WARNING):
            assert_same(store.load(), state(1))
        assert caplog.messages == ["images-000000000002 is damaged; going on from the state before it"]
        store.save(state(2), 2)
        assert_same(store.load(), state(2))


@pytest.mark.parametrize(
    "content", [b"", b"no state", b"PK\x03\x04 and no archive", pickle.dumps(object(), protocol=2)]
)
def test_an_intact_file_that_is_no_state_is_called_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
):
    with StateStore(tmp_path, "run") as store:
        store.save(state(1), 1)
        store.finish()
        other = store.folder / "images-000000000002"
        other.write_bytes(hashlib.sha256(content).digest() + content)
        with caplog.at_level(logging.WARNING):
            assert_same(store.load(), state(1))
        assert caplog.messages == ["images-000000000002 is damaged; going on from the state before it"]


def test_a_state_for_which_memory_is_lacking_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def load(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with StateStore(tmp_path, "run") as store:
        store.save(state(1), 1)
        store.finish()
        with monkeypatch.context() as patch:
            patch.setattr(torch, "load", load)
            with pytest.raises(RuntimeError, match="allocate memory"):
                store.load()
        assert_same(store.load(), state(1))


def test_without_a_whole_state_training_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with StateStore(tmp_path, "run") as store:
        for epoch in (1, 2):
            store.save(state(epoch), epoch)
            store.finish()
            flip_a_bit(store.folder / f"images-{epoch:012}", 40)
        with caplog.at_level(logging.WARNING):
            assert store.load() is None
        assert len(caplog.messages) == 2


def test_a_state_half_written_by_a_killed_process_is_passed_over(tmp_path: Path):
    with StateStore(tmp_path, "run") as store:
        for epoch in (1, 2):
            store.save(state(epoch), epoch)
        store.finish()
        (store.folder / "images-000000000003.4711.partial").write_bytes(b"half")
    with StateStore(tmp_path, "run") as store:
        assert_same(store.load(), state(2))
        assert states_in(store) == ["images-000000000001", "images-000000000002"]


def no_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_last_state_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with StateStore(tmp_path, "run") as store:
        store.save(state(1), 1)
        store.finish()
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", no_space)
            store.save(state(2), 2)
            with pytest.raises(CCLNetError, match="No space left on device"):
                store.save(state(3), 3)
        assert states_in(store) == ["images-000000000001"]
        assert_same(store.load(), state(1))


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CCLNetError, match="No space left on device") as caught, StateStore(tmp_path, "run") as store:
        store.save(state(1), 1)
    assert "\n" not in str(caught.value)


def test_a_state_is_kept_as_it_was_when_it_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights, go_on = torch.zeros(1000), threading.Event()
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: go_on.wait(60) and flush(descriptor))
    with StateStore(tmp_path, "run") as store:
        store.save({"weights": weights}, 1)  # returns before it is written
        weights += 1
        go_on.set()
        assert_same(store.load(), {"weights": torch.zeros(1000)})


def test_a_state_that_would_run_code_is_passed_over(tmp_path: Path):
    with StateStore(tmp_path, "run") as store:
        buffer = io.BytesIO()
        torch.save({"epoch": 1, "model": Payload(tmp_path / "executed")}, buffer)
        content = buffer.getvalue()
        (store.folder / "images-000000000001").write_bytes(hashlib.sha256(content).digest() + content)
        assert store.load() is None
    assert not (tmp_path / "executed").exists()


OWNER = """
import sys
from pathlib import Path
from cclnet.training.states import StateStore
with StateStore(Path(sys.argv[1]), "run"):
    print("training", flush=True)
    sys.stdin.read()
"""


def test_a_second_trainer_is_refused_until_the_first_one_is_gone(tmp_path: Path):
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout
            assert owner.stdout.readline() == "training\n"
            with (
                pytest.raises(CCLNetError, match=f"process {owner.pid} .*kill {owner.pid}$"),
                StateStore(tmp_path, "run"),
            ):
                pass
            with StateStore(tmp_path, "another run"):
                pass
        finally:
            owner.send_signal(signal.SIGKILL)
    with StateStore(tmp_path, "run") as store:
        assert (store.folder / "lock").read_text().startswith(f"{os.getpid()} ")


def test_the_lock_is_released_at_the_end_and_after_an_error(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), StateStore(tmp_path, "run"):
        raise ZeroDivisionError
    with StateStore(tmp_path, "run"), pytest.raises(CCLNetError, match=f"process {os.getpid()} "):
        StateStore(tmp_path, "run").__enter__()
    with StateStore(tmp_path, "run"):
        pass


def test_a_finished_run_leaves_nothing(tmp_path: Path):
    with StateStore(tmp_path, "run") as store:
        store.save(state(1), 1)
        store.clear()
        assert not store.folder.exists()
    with StateStore(tmp_path, "run") as store:
        assert store.load() is None


# the finished model


@pytest.fixture(scope="module")
def models() -> dict[str, CCLNet]:
    """A model with a head and one without, whose batch norms have seen some images."""
    torch.manual_seed(0)
    made = {method: build_model(BACKBONE, None, 32, 3, with_head=method == "ccl") for method in ("ccl", "baseline")}
    images = torch.rand(4, 3, 32, 32)
    for model in made.values():
        features = model.backbone(images)
        if model.head:
            model.head(features)
        model.eval()
    return made


@pytest.mark.parametrize("method", ["ccl", "baseline"])
def test_a_model_comes_back_with_all_it_knows(tmp_path: Path, models: dict[str, CCLNet], method: str):
    save_model(tmp_path / "model.safetensors", models[method], description(method))
    loaded, described = load_model(tmp_path / "model.safetensors")
    assert described == description(method)
    assert not loaded.training
    assert_same(loaded.state_dict(), dict(models[method].state_dict()))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), models[method](images))


def test_a_model_of_before_the_groups_of_params_is_read(tmp_path: Path, models: dict[str, CCLNet]):
    old = replace(description(), params={"lr_ccl": 0.0005, "margin": 1.5, "temperature": 0.5})
    save_model(tmp_path / "model.safetensors", models["ccl"], old)
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert loaded.head is not None
    assert (loaded.head.margin, loaded.head.temperature) == (1.5, 0.5)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path, models: dict[str, CCLNet]):
    for name in ("a", "b"):
        save_model(tmp_path / name, models["ccl"], description())
    strided = build_model(BACKBONE, None, 32, 3, with_head=True)
    strided.load_state_dict(models["ccl"].state_dict())
    save_model(tmp_path / "c", strided.to(memory_format=torch.channels_last), description())  # pyright: ignore[reportCallIssue]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_the_metadata_is_one_key(tmp_path: Path, models: dict[str, CCLNet]):
    save_model(tmp_path / "model", models["ccl"], description())
    with safe_open(tmp_path / "model", framework="pt") as file:
        metadata = file.metadata()
    assert list(metadata) == ["cclnet"]
    described = json.loads(metadata["cclnet"])
    digest = hashlib.sha256(json.dumps(asdict(description()), sort_keys=True).encode())
    weights = {name: tensor for name, tensor in models["ccl"].state_dict().items() if "extra_state" not in name}
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    digest.update(safetensors.torch.save(tensors))
    assert described == asdict(description()) | {"sha256": digest.hexdigest()}


def test_metadata_without_a_number_is_refused(tmp_path: Path, models: dict[str, CCLNet]):
    with pytest.raises(ValueError, match="JSON"):
        save_model(tmp_path / "model", models["ccl"], replace(description(), softness=float("nan")))
    assert list(tmp_path.iterdir()) == []


def test_the_network_is_built_for_the_crop(tmp_path: Path):
    described = replace(description("baseline"), backbone="timm/test_vit_relpos", crop=32)
    made_for_32 = build_model(described.backbone, None, 32, 3, with_head=False).eval()
    save_model(tmp_path / "model", made_for_32, described)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model")[0](images), made_for_32(images))


def test_a_model_of_a_library_that_is_missing_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = build_model("timm/test_vit", None, 32, 3, with_head=False)
    save_model(tmp_path / "model", made, replace(description("baseline"), backbone="timm/test_vit"))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"^backbone: timm/test_vit needs timm, which is not"):
        load_model(tmp_path / "model")


def refusal(path: Path) -> str:
    with pytest.raises(CCLNetError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_model_is_named(tmp_path: Path):
    assert (
        refusal(tmp_path / "model.safetensors")
        == f"there is no model {tmp_path / 'model.safetensors'}; train one first"
    )


def test_a_folder_is_no_model(tmp_path: Path):
    assert str(tmp_path) in refusal(tmp_path)


@pytest.fixture
def saved(tmp_path: Path, models: dict[str, CCLNet]) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, models["baseline"], description("baseline"))
    return path


@pytest.mark.parametrize("length", [0, 7, 8, 100, 5000, -1])
def test_a_cut_model_is_refused(saved: Path, length: int):
    saved.write_bytes(saved.read_bytes()[:length])
    assert f"{saved} is not a model of this package, or is damaged: " in refusal(saved)


def test_flipped_bits_are_refused(saved: Path):
    content = saved.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    tensors = 8 + header
    padding = len(content[8:tensors]) - len(content[8:tensors].rstrip(b" "))
    places = [*range(8), *range(8, tensors - padding, header // 40), *range(tensors, len(content), len(content) // 20)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        saved.write_bytes(damaged)
        assert "\n" not in refusal(saved), place


def test_a_model_of_another_architecture_is_refused(tmp_path: Path, models: dict[str, CCLNet]):
    path = tmp_path / "model"
    save_model(path, models["baseline"], description("ccl"))
    assert "Missing key(s) in state_dict" in refusal(path)
    save_model(path, models["ccl"], description("baseline"))
    assert "Unexpected key(s) in state_dict" in refusal(path)
    two = replace(description("baseline"), classes=["a", "b"], label_matrix=[[0.9, 0.1], [0.1, 0.9]], softness=0.9)
    save_model(path, models["baseline"], two)
    assert "size mismatch for classifier.weight" in refusal(path)
    save_model(path, models["baseline"], replace(description("baseline"), backbone="resnet81"))
    assert "no classification model 'resnet81'" in refusal(path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"cclnet": "no JSON"},
        {"cclnet": "[]"},
        {"cclnet": "{}"},
        {"cclnet": json.dumps(asdict(description()) | {"unknown": 1})},
        {"cclnet": json.dumps(asdict(description()) | {"classes": 3})},
        {"cclnet": "[" * 100_000},
    ],
)
def test_a_safetensors_file_that_is_no_such_model_is_refused(tmp_path: Path, metadata: dict[str, str] | None):
    path = tmp_path / "model"
    save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
    assert f"{path} is not a model of this package, or is damaged: " in refusal(path)


def test_a_renamed_pickle_is_refused_and_not_executed(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    assert "is not a model of this package" in refusal(path)
    torch.save(Payload(tmp_path / "executed"), path)
    assert "is not a model of this package" in refusal(path)
    assert not (tmp_path / "executed").exists()
