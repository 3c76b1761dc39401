"""What was measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


def machine(device: str) -> str:
    """The processor, its cores, the kernels that torch chooses on it, and the GPU."""
    import torch

    parts = [processor_name(), f"{os.cpu_count()} cores", torch.backends.cpu.get_cpu_capability()]
    parts += [f"{torch.get_num_threads()} threads"]
    if device == "cuda":
        parts += [torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}"]
    return ", ".join(parts)


def processor_name() -> str:
    """The model as Linux calls it, elsewhere the architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> str:
    """Of Python and of what computes."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)])
