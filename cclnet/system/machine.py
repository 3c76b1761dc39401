"""Devices and threads, and settings for bitwise identical results on every x86-64 processor with AVX2.

Numerical libraries choose different kernels on different processors (AVX-512, AVX2, or special ones on Intel), which
sum in a different order and round differently; after some hundred training steps the model differs. ``portable``
restricts every library to kernels that all x86-64 processors since 2013 (Intel) and 2015 (AMD) support, at some cost of
speed on a processor with AVX-512. It does not cover another number of threads, a GPU, ARM, or versions of the libraries
other than those of ``requirements.lock``.

All settings have to be made before NumPy and torch are loaded, so this module imports torch only inside functions.
"""

import ctypes
import logging
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cclnet.system.errors import CCLNetError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Processor = Literal["portable", "native"]

_PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    "MKL_CBWR": "COMPATIBLE",  # matrix products: the same on Intel and AMD
    "NPY_DISABLE_CPU_FEATURES": "X86_V4",  # NumPy's exp, log and pow
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's and SciPy's matrix products
    "MKL_DYNAMIC": "FALSE",  # never fewer threads than requested
    "OMP_DYNAMIC": "FALSE",
}

_OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")  # integers

_WAITING, _WAITING_ON_A_BUSY_MACHINE = "10000", "1000"
"""How often a thread looks for work before it sleeps (``GOMP_SPINCOUNT``), a fraction of a millisecond.

By default torch's threads keep a core busy for many milliseconds while they wait for each other, also where other
programs need it. ``docs/evidence/performance.md`` has the speeds, alone and beside busy programs."""

_ALWAYS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # without it, the order of cuBLAS's sums varies


def started_by_torchrun() -> bool:
    """Whether ``torchrun`` has started this process: all of its variables are set, not only some by a scheduler."""
    numbers = (os.environ.get(name, "") for name in _OF_TORCHRUN)
    return {"TORCHELASTIC_RUN_ID", "MASTER_ADDR"} <= set(os.environ) and all(number.isdecimal() for number in numbers)


def prepare_processor(processor: Processor, threads: int | None) -> None:
    """Set the environment of this process for repeatable arithmetic.

    Args:
        processor: ``portable`` for the same bytes on every machine, ``native`` for this machine's fastest kernels.
        threads: number of threads; None for one per core, divided among the processes that ``torchrun`` has started on
            this machine.

    Raises:
        RuntimeError: NumPy or torch has already been loaded, so the settings would have no effect.
    """
    environment = dict(_ALWAYS)
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ) and "torch" not in sys.modules:
        os.environ["GOMP_SPINCOUNT"] = _WAITING_ON_A_BUSY_MACHINE if _is_busy() else _WAITING
    if threads is None and started_by_torchrun() and (processes := int(os.environ["LOCAL_WORLD_SIZE"])) > 1:
        threads = max(1, _cores() // processes)
    if threads is not None:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    if processor == "portable":
        environment |= _PORTABLE
    missing = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    loaded = sorted({"numpy", "torch"} & set(sys.modules))
    if missing and loaded:
        raise RuntimeError(f"{' and '.join(loaded)} loaded before {', '.join(missing)} could be set")
    os.environ.update(missing)


def keep_freed_memory() -> None:
    """Let the C library reuse freed memory instead of returning it to the kernel.

    Every training step frees and allocates the same hundreds of megabytes, and the kernel clears each new page, which
    takes a tenth of the time of a step on a CPU. This has an effect only with glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def _is_busy() -> bool:
    """Whether other threads on this machine have work for all of its cores, at each of five moments."""
    try:
        for _ in range(5):
            running = Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0]
            if int(running) - 1 < (os.cpu_count() or 1):  # one of them is this thread
                return False
            time.sleep(0.01)
    except (OSError, ValueError, IndexError):  # not Linux
        return False
    return True


def _cores() -> int:
    """The number of cores that this process may use, if the system provides it; otherwise all cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """The model name from Linux, on other systems the architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def physical_memory() -> int:
    """The memory of this machine in bytes; without a known limit if the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize


def not_portable_because() -> str | None:
    """Why ``portable`` cannot guarantee identical results on this machine; None if it can."""
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        return f"this is an {machine} processor, and the promise of equal bytes is for x86-64 with AVX2"
    import torch

    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return f"this processor lacks AVX2 (torch uses {torch.backends.cpu.get_cpu_capability()})"
    return None


def select_device(name: str) -> "torch.device":
    """The device to compute on: ``auto`` is the GPU if there is one, otherwise the CPU.

    Each of the processes that ``torchrun`` has started on this machine gets its own GPU.

    Raises:
        CCLNetError: the requested GPU does not exist.
    """
    import torch

    if name == "mps" and not torch.backends.mps.is_available():
        raise CCLNetError("device: mps is asked for, and torch sees no GPU of Apple; set device: auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and started_by_torchrun():
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CCLNetError(
            f"device: {name} is asked for, and torch sees {torch.cuda.device_count()} GPUs; set device: auto or cpu"
        )
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    return device


def conditions(
    processor: Processor, device: "torch.device", backbone_library: str, processes: int = 1
) -> dict[str, Any]:
    """What a result depends on besides code, params and data; equal on all machines that support ``portable``."""
    import torch

    on = {"processor": processor, "threads": torch.get_num_threads(), "device": device.type, "processes": processes}
    if device.type == "cuda":
        on |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    reason = not_portable_because()
    if processor == "portable" and reason:
        logger.warning("%s; `dvc metrics diff` shows by how little the numbers differ from the committed ones", reason)
    if processor == "native" or reason:
        on["capability"] = torch.backends.cpu.get_cpu_capability()
    packages = ("numpy", "pillow", "torch", "torchvision", backbone_library)
    return on | {"versions": {name: version(name) for name in packages}}
