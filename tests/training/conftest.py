"""What every test of training has: a tiny network beside the real ones, one thread, and a training."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cclnet.training.history import Row
from cclnet.training.trainer import Trainer
from tests.training.builders import FREEZES_IN_EPOCH_3, build_tiny_or_real, run_fit


@pytest.fixture(scope="module", autouse=True)
def tiny_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cclnet.training.trainer.build_model", build_tiny_or_real)
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine several threads spend these short steps waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[Row], Trainer]:
    return run_fit(tmp_path_factory.mktemp("uninterrupted"), FREEZES_IN_EPOCH_3)
