"""Data-parallel training in several processes, started by torch's elastic launcher (``torchrun``).

Each process has the whole network and its share of every minibatch. Its losses are weighted by the size of the share,
so that the sum of the gradients over the processes is the gradient of the minibatch. torch's DistributedDataParallel
exchanges them while the backward pass goes on. A single process does not use ``torch.distributed``.
"""

import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from cclnet.system.errors import CCLNetError
from cclnet.system.interruption import InterruptionError
from cclnet.system.machine import started_by_torchrun

logger = logging.getLogger(__name__)

IMAGES_EACH = 2
"""The smallest number of images per process that batch normalisation needs."""

SECONDS_TO_END = 600
"""How long processes that are asked to end may take to finish the current step."""

TIME_TO_MEET = timedelta(minutes=10)
"""How long a process waits for the others at the start."""


Losses = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images and labels of a minibatch → the losses of the backbone and of the head."""


class LostProcessError(CCLNetError):
    """Another process has ended unexpectedly; the launcher reports which one."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: try again


class Processes:
    """The communication between processes that train together; for a single process, which does nothing.

    Attributes:
        rank: number of this process among all of them; the first one, 0, writes files and reports.
        count: number of processes.
    """

    rank = 0
    count = 1

    def share(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of a minibatch; the parts differ by one image at most."""
        return images

    def equal_share(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same number of images in each process, for ``gather``; the last part is padded with the first images."""
        return images

    def gather(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rows of all processes, concatenated in the order of their ranks."""
        return rows

    def sharing_gradients(self, losses: Losses, modules: Sequence[nn.Module]) -> Losses:
        """The same function; ``backward`` then sums the gradients of these modules over the processes."""
        return losses

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of the sum of all processes' losses."""
        loss.backward()

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace these tensors by their sums over the processes."""

    def largest(self, number: int) -> int:
        """The largest number of all processes."""
        return number

    def from_first(self, value: Any) -> Any:
        """The value of the first process; its tensors are on the CPU."""
        return value

    def align(self, model: nn.Module) -> None:
        """Copy the first process's weights and statistics to all processes."""

    def wait(self) -> None:
        """Wait until all processes have called this."""


ALONE = Processes()


class ProcessGroup(Processes):
    """Several processes, in torch's default process group.

    Every method except ``share`` and ``equal_share`` has to be called by all processes, in the same order.

    Raises:
        LostProcessError: raised by these methods if another process has ended.
    """

    def __init__(self) -> None:
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self._started_by = os.getppid()

    def share(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(images) < IMAGES_EACH * self.count:
            raise CCLNetError(
                f"a minibatch of {len(images)} images is too small for {self.count} processes: batch normalisation "
                f"needs {IMAGES_EACH} in each; raise batch_size or lower processes"
            )
        return np.array_split(images, self.count)[self.rank]

    def equal_share(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        size = -(-len(images) // self.count)
        return images[np.arange(self.rank * size, (self.rank + 1) * size) % len(images)]

    def gather(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        own = torch.from_numpy(rows)
        parts = [torch.empty_like(own) for _ in range(self.count)]
        with _others_alive():
            distributed.all_gather(parts, own)
        return torch.cat(parts).numpy()

    def sharing_gradients(self, losses: Losses, modules: Sequence[nn.Module]) -> Losses:
        # Asked for unused parameters (a frozen dictionary), torch keeps the gradients in the same order from the first
        # step on, so that a resumed training of three or more processes adds them up in the same order.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # its successor is new
        with _others_alive():
            return DistributedDataParallel(
                _Sharing(losses, modules),
                broadcast_buffers=False,  # ``align`` copies them before each validation
                gradient_as_bucket_view=True,
                find_unused_parameters=True,
            )

    def backward(self, loss: Tensor) -> None:
        try:
            (self.count * loss).backward()  # DistributedDataParallel averages the gradients
        except RuntimeError as error:
            if isinstance(error, distributed.DistError) or "gloo" in str(error):  # not one of this process's own
                raise LostProcessError(f"another process has ended: {error}") from None
            raise

    def add_up(self, tensors: list[Tensor]) -> None:
        message = torch.cat([tensor.flatten() for tensor in tensors])
        with _others_alive():
            distributed.all_reduce(message)
        for tensor, total in zip(tensors, message.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def largest(self, number: int) -> int:
        if os.getppid() != self._started_by:  # the launcher was killed and cannot ask its processes to end
            number = max(number, signal.SIGTERM)
        numbers = torch.tensor(number)
        with _others_alive():
            distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        return int(numbers)

    def from_first(self, value: Any) -> Any:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
        size = torch.tensor(len(content))
        with _others_alive():
            distributed.broadcast(size, 0)
            if self.rank:
                content = torch.empty(int(size), dtype=torch.uint8)
            distributed.broadcast(content, 0)
        return torch.load(io.BytesIO(content.numpy().tobytes()), weights_only=True, map_location="cpu")

    def align(self, model: nn.Module) -> None:
        for tensor in model.state_dict().values():
            flat = tensor.flatten()
            with _others_alive():
                distributed.broadcast(flat, 0)
            tensor.copy_(flat.view_as(tensor))

    def wait(self) -> None:
        self.largest(0)


class _Sharing(nn.Module):
    """A function of a minibatch as the forward pass of a module that contains all learning modules."""

    def __init__(self, losses: Losses, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.losses, self.learning = losses, nn.ModuleList(modules)
        device = next(self.learning.parameters()).device
        self.unused = nn.Parameter(torch.zeros((), device=device))  # torch warns if it looks for one and finds none

    def forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.losses(inputs, labels)


@contextmanager
def _others_alive() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(f"another process has ended: {error}") from None


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` has started together with this one, until the block ends.

    The first process to fail reports the error; the others exit silently. If the cause is external (a signal or a lost
    process), all exit silently, and the process that has started them reports it.

    Raises:
        CCLNetError: the other processes did not connect.
    """
    if not started_by_torchrun() or os.environ["WORLD_SIZE"] == "1":
        if os.environ.get("WORLD_SIZE", "1") != "1":
            logger.warning(
                "WORLD_SIZE=%s is set, but not by torchrun: this process trains alone", os.environ["WORLD_SIZE"]
            )
        yield ALONE
        return
    try:
        store, rank, count = next(rendezvous("env://", timeout=TIME_TO_MEET))
    except (RuntimeError, ValueError) as error:
        raise CCLNetError(f"the processes that torchrun has started do not find each other ({error})") from None
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
    if rank:
        logging.disable(logging.WARNING)  # the first process warns
    try:
        yield ProcessGroup()
    except (InterruptionError, LostProcessError) as error:
        raise SystemExit(error.exit_status) from None
    except Exception:
        if store.add("errors", 1) > 1:
            raise SystemExit(1) from None
        # sent once another process has ended, possibly before this one has reported its error
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    finally:
        distributed.destroy_process_group()


def processes_to_start(asked_for: int | Literal["auto"], device: torch.device) -> int:
    """The number of processes to start: 1 if this process does the work, alone or as one of ``torchrun``'s.

    Raises:
        CCLNetError: there are fewer GPUs than processes.
    """
    if started_by_torchrun():
        return 1
    if device.type != "cuda":
        return 1 if asked_for == "auto" else asked_for
    gpus = torch.cuda.device_count() if device.index is None else 1
    if asked_for == "auto":
        return gpus
    if asked_for > gpus:
        raise CCLNetError(f"processes: {asked_for} are asked for, and a GPU for each; device: {device} has {gpus}")
    return asked_for


def start_processes(count: int, module: str) -> None:
    """Run a module in ``count`` processes on this machine, like ``torchrun --standalone``, until all have ended.

    Raises:
        InterruptionError: the processes were asked to end, and have ended.
        CCLNetError: a process was killed; the others have ended.
        SystemExit: a process has reported an error.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable()  # suppresses torch's long error reports; one line is printed instead
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=module,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(os.devnull),
        signals_to_handle="SIGINT,SIGTERM",
        shutdown_timeout=SECONDS_TO_END,
    )
    try:
        with _stopped_ones_go_on():
            elastic_launch(config, sys.executable)("-m", module)
    except SignalException as asked:
        raise InterruptionError(asked.sigval) from None
    except ChildFailedError as error:
        raise _reason([failure.exitcode for failure in error.failures.values()]) from None


@contextmanager
def _stopped_ones_go_on() -> Iterator[None]:
    """Resume stopped (SIGSTOP) child processes when this process gets a signal; otherwise they would not end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    threading.Thread(target=_go_on_after_signals, args=(reading,), name="stopped ones go on", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)  # ends the thread


def _go_on_after_signals(reading: int) -> None:
    while os.read(reading, 1):
        for child in _children():
            with suppress(OSError):
                os.kill(child, signal.SIGCONT)
    os.close(reading)


def _children() -> list[int]:
    """The child processes of this one, where the system lists them."""
    lists = Path("/proc/self/task").glob("*/children")
    return [int(number) for listed in lists for number in listed.read_text(encoding="ascii").split()]


def _reason(exit_codes: list[int]) -> BaseException:
    """Why the processes ended unexpectedly; a negative code is the signal that killed a process."""
    for code in exit_codes:
        if code - 128 in (signal.SIGINT, signal.SIGTERM):
            return InterruptionError(code - 128)
    if reported := set(exit_codes) & set(range(1, 128)) - {LostProcessError.exit_status}:
        return SystemExit(max(reported))
    killed = {code for code in exit_codes if code < 0}
    if LostProcessError.exit_status in exit_codes:
        killed -= {-signal.SIGTERM}  # torch ends the remaining processes with it
    killed_by = [signal.Signals(-code).name for code in sorted(killed, reverse=True)]
    what = f"a process was ended by {killed_by[0]}" if killed_by else "the processes have lost each other"
    return CCLNetError(f"{what}; run it again to go on after the last finished epoch")
