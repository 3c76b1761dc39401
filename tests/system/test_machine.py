import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch

from cclnet.system import machine
from cclnet.system.errors import CCLNetError
from cclnet.system.machine import conditions, not_portable_because, prepare_processor, select_device

PROJECT = Path(__file__).parents[2]
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4",
    "OPENBLAS_CORETYPE": "Haswell",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def python(code: str) -> Any:
    """What new Python prints as JSON in an environment without any of these settings."""
    clean = {name: value for name, value in os.environ.items() if name not in {*PORTABLE, *THREADS}}
    command = [sys.executable, "-c", f"import json, os, sys\n{code}"]
    return json.loads(
        subprocess.run(command, cwd=PROJECT, env=clean, capture_output=True, text=True, check=True).stdout
    )


def test_the_environment_is_set_before_numpy_and_torch():
    environment, loaded = python(
        "from cclnet.system.machine import prepare_processor\n"
        "prepare_processor('portable', 2)\n"
        "print(json.dumps([dict(os.environ), sorted({'numpy', 'torch'} & {*sys.modules})]))"
    )
    assert PORTABLE.items() <= environment.items()
    assert {environment[name] for name in THREADS} == {"2"}
    assert environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert loaded == []


def test_native_leaves_the_kernels_and_the_threads_alone():
    environment = python(
        "from cclnet.system.machine import prepare_processor\n"
        "prepare_processor('native', None)\n"
        "print(json.dumps(dict(os.environ)))"
    )
    assert not {*PORTABLE, *THREADS} & {*environment}
    assert environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(
    ("chosen", "busy", "spins"),
    [
        ({}, False, "10000"),
        ({}, True, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, True, "7"),
        ({"OMP_WAIT_POLICY": "active"}, True, None),
    ],
)
def test_threads_wait_briefly_unless_the_user_has_chosen(chosen: dict[str, str], busy: bool, spins: str | None):
    found = python(
        "for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'): os.environ.pop(name, None)\n"
        f"os.environ.update({chosen})\n"
        "from cclnet.system import machine\n"
        f"machine._is_busy = lambda: {busy}\n"
        "machine.prepare_processor('native', None)\n"
        "print(json.dumps(os.environ.get('GOMP_SPINCOUNT')))"
    )
    assert found == spins


@pytest.mark.parametrize(
    ("running", "cores", "busy"),
    [
        ([5, 5, 5, 5, 5], 4, True),  # four others for four cores
        ([4, 4, 4, 4, 4], 4, False),  # three
        ([9, 9, 9, 9, 2], 4, False),  # busy for a moment
        ([65, 70, 66, 80, 65], 64, True),
    ],
)
def test_a_machine_is_busy_while_others_have_work_for_all_cores(
    monkeypatch: pytest.MonkeyPatch, running: list[int], cores: int, busy: bool
):
    lines = iter(f"0.20 3.10 7.00 {number}/412 1234\n" for number in running)
    monkeypatch.setattr(machine.Path, "read_text", lambda path, encoding: next(lines))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: cores)
    assert machine._is_busy() == busy


@pytest.mark.parametrize("text", ["", "0.20 3.10 7.00", "0.20 3.10 7.00 many/412 1234"])
def test_a_machine_without_such_a_count_is_not_called_busy(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setattr(machine.Path, "read_text", lambda path, encoding: text)
    assert not machine._is_busy()


def of_torchrun(processes: int) -> dict[str, str]:
    """The variables that torchrun sets for the first of several processes."""
    numbers = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": 1}
    texts = {"TORCHELASTIC_RUN_ID": "run", "MASTER_ADDR": "localhost"}
    return {name: str(number) for name, number in numbers.items()} | texts


@pytest.mark.parametrize(("processes", "threads"), [(1, None), (2, 3), (4, 1), (100, 1)])
def test_processes_divide_the_cores_among_them(processes: int, threads: int | None):
    found = python(
        f"os.environ.update({of_torchrun(processes)})\n"
        "os.sched_getaffinity = lambda process: set(range(7))\n"
        "from cclnet.system.machine import prepare_processor\n"
        "prepare_processor('native', None)\n"
        "left = os.environ.get('OMP_NUM_THREADS')\n"
        "prepare_processor('native', 5)\n"
        "print(json.dumps([left, os.environ['OMP_NUM_THREADS']]))"
    )
    assert found == [threads and str(threads), "5"]


@pytest.mark.parametrize("processor", ["portable", "native"])
def test_a_setting_that_comes_too_late_is_an_error(monkeypatch: pytest.MonkeyPatch, processor: Any):
    assert {"numpy", "torch"} <= {*sys.modules}
    for name in (*PORTABLE, *THREADS):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match=r"numpy and torch loaded before .*OMP_NUM_THREADS.* could be set"):
        prepare_processor(processor, 3)
    assert not set(THREADS) & set(os.environ)


def test_it_is_not_too_late_for_what_is_set_already(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for name in THREADS:
        monkeypatch.setenv(name, "3")
    prepare_processor("native", 3)


def test_freed_memory_is_handed_out_again():
    before, after = (
        python(
            "from cclnet.system.machine import keep_freed_memory\n"
            f"{preparation}\n"
            "import numpy, resource\n"
            "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
            "numpy.ones(5_000_000)\n"
            "first = faults()\n"
            "for _ in range(10): numpy.ones(5_000_000)\n"
            "print(faults() - first)"
        )
        for preparation in ("", "keep_freed_memory()")
    )
    assert before > 100
    assert after < 100 or platform.libc_ver()[0] != "glibc"


def test_portable_uses_the_kernels_of_avx2():
    capability, threads, ran_on, reason, kernels = python(
        "from cclnet.system.machine import conditions, not_portable_because, prepare_processor, select_device\n"
        "prepare_processor('portable', 2)\n"
        "import torch\n"
        "from numpy.lib.introspect import opt_func_info\n"
        "capability = torch.backends.cpu.get_cpu_capability()\n"
        "ran_on = conditions('portable', select_device('cpu'), 'torchvision')\n"
        "kernels = {kernel['current'] for kernels in opt_func_info().values() for kernel in kernels.values()}\n"
        "print(json.dumps([capability, torch.get_num_threads(), ran_on, not_portable_because(), sorted(kernels)]))"
    )
    assert threads == 2
    assert ran_on["threads"] == 2
    if platform.machine() == "x86_64":
        assert capability == "AVX2"
        assert reason is None
        assert ran_on.keys() == {"processor", "threads", "device", "processes", "versions"}
        assert not any("V4" in kernel or "512" in kernel for kernel in kernels)


def test_conditions_name_what_a_result_depends_on():
    ran_on = conditions("native", torch.device("cpu"), "torchvision")
    assert ran_on.keys() == {"processor", "threads", "device", "processes", "capability", "versions"}
    assert ran_on["device"] == "cpu"
    assert ran_on["threads"] == torch.get_num_threads()
    assert ran_on["versions"].keys() == {"numpy", "pillow", "torch", "torchvision"}
    assert ran_on["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert json.loads(json.dumps(ran_on)) == ran_on
    assert ran_on["processes"] == 1
    assert conditions("native", torch.device("cpu"), "torchvision", processes=2) == ran_on | {"processes": 2}
    with_timm = conditions("native", torch.device("cpu"), "timm")["versions"]
    assert with_timm == ran_on["versions"] | {"timm": timm.__version__}


@pytest.mark.parametrize(
    ("machine", "capability", "reason"),
    [
        ("x86_64", "AVX2", None),
        ("AMD64", "AVX2", None),
        ("x86_64", "DEFAULT", "lacks AVX2 .torch uses DEFAULT."),
        ("aarch64", "SVE256", "aarch64 processor"),
    ],
)
def test_where_portable_cannot_hold_it_says_why(
    monkeypatch: pytest.MonkeyPatch, machine: str, capability: str, reason: str | None
):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    said = not_portable_because()
    assert said is None if reason is None else re.search(reason, str(said))
    assert conditions("portable", torch.device("cpu"), "torchvision").get("capability") == (
        capability if reason else None
    )


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:7", 0), ("cuda:7", 7)])
def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, count: int):
    gpus(monkeypatch, count)
    with pytest.raises(CCLNetError, match=f"device: {name} is asked for, and torch sees {count} GPUs") as caught:
        select_device(name)
    assert "set device: auto or cpu" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_of_apple_is_taken_if_asked_for_and_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert select_device("mps") == torch.device("mps")
    assert select_device("auto").type != "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(CCLNetError, match="torch sees no GPU of Apple; set device: auto or cpu"):
        select_device("mps")


def test_auto_takes_the_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch):
    deterministic = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *given, **options: deterministic.append(given))
    monkeypatch.setattr(torch.backends, "cudnn", SimpleNamespace(benchmark=True))
    gpus(monkeypatch, 0)
    assert select_device("auto") == select_device("cpu") == torch.device("cpu")
    assert deterministic == []
    gpus(monkeypatch, 2)
    assert select_device("auto") == torch.device("cuda")
    assert select_device("cuda:1") == torch.device("cuda", 1)
    for name, value in of_torchrun(2).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert select_device("auto") == select_device("cuda") == torch.device("cuda", 1)
    assert select_device("cuda:0") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(CCLNetError, match="device: cuda:2 is asked for, and torch sees 2 GPUs"):
        select_device("auto")
    assert deterministic == [(True,)] * 5
    assert torch.backends.cudnn.benchmark is False
