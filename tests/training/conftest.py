"""What every test of training has: a tiny network beside the real ones, and one thread."""

from collections.abc import Iterator

import pytest
import torch

from tests.training.builders import build_tiny_or_real


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
