"""The description of the machine."""

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from cclnet.system.machine import processor_name

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


def machine(device: str) -> str:
    """The processor, its cores, the kernels that torch chooses on it, and the GPU."""
    import torch

    parts = [processor_name(), f"{os.cpu_count()} cores", torch.backends.cpu.get_cpu_capability()]
    parts += [f"{torch.get_num_threads()} threads"]
    if device == "cuda":
        parts += [torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}"]
    return ", ".join(parts)


def versions() -> str:
    """The versions of Python and of the numerical packages."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)])


def other_work() -> Callable[[], float]:
    """Return a function that gives the share of CPU time that other programs have used since this call (Linux)."""
    started, before = time.monotonic(), _busy_with_others()

    def share() -> float:
        return max(0.0, (_busy_with_others() - before) / (time.monotonic() - started) / (os.cpu_count() or 1))

    return share


def _busy_with_others() -> float:
    """CPU seconds of all cores since boot, without those of this process and its children."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    user, nice, system = (int(field) / os.sysconf("SC_CLK_TCK") for field in fields[:3])
    return user + nice + system - sum(os.times()[:4])
