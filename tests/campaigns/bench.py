"""What the fault campaigns share: a row of the table, a run in a folder of its own, and the bench that gives them."""

import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tests.campaigns.forked import PLANTED, Forks, Process
from tests.campaigns.golden import PROJECT, STAGES, small_params

CODE = ("cclnet", "stages")
TIMEOUT = 300
WORKERS = 2

CHANGES = {
    # with dropout and batch norm; the dictionary of epoch 1 is frozen in epoch 3
    "backbone": "mobilenet_v2",
    "lr_ccl": 0.05,
    "alpha_cc": 0.0,
}
HEAD = {"dictionary_init": "positive", "freeze_patience": 2}
BLOCK = {"epochs": 5, "batch_size": 20, "milestones": [0.8], "lr_backbone_factor": 1.0, "lr_ccl_factor": 1.0}
STEPS_OF_AN_EPOCH = 4
MODEL, HISTORY = Path("models/model.safetensors"), Path("metrics/history.csv")
STATE = "images-*"
MADE_BY = {
    "resize": r"data/images\.",
    "train": r"models/|metrics/history\.csv",
    "evaluate": r"metrics/[^/]+\.(json|csv)(?<!leakage\.csv)",
    "plot": r"metrics/figures/",
    "report": r"metrics/report\.html",
}


# the table


@dataclass
class Row:
    """One kind of fault.

    Attributes:
        fault: what was planted.
        planted: how often.
        failures: what did not survive, and how it failed.
        equal: how many runs gave the undisturbed run's bytes in the end, None where nothing is compared.
        fetched_twice: bytes of a download, the most of any case.
        remark: what else was measured.
    """

    fault: str
    planted: int = 0
    failures: list[str] = field(default_factory=list)
    equal: int | None = None
    fetched_twice: str = ""
    remark: str = ""

    def add(self, case: str, problems: Sequence[str], equal: bool | None = None) -> None:
        """Count a case; it survived if there are no problems."""
        self.planted += 1
        if problems:
            self.failures.append(f"{self.fault}: {case}: {'; '.join(problems)}")
        if equal is not None:
            self.equal = (self.equal or 0) + equal
        say(f"{self.fault}: {case}: {'; '.join(problems) or 'survived'}", at_once=bool(problems))

    def cells(self) -> list[str]:
        survived = self.planted - len(self.failures)
        equal = "" if self.equal is None else f"{self.equal}/{self.planted}"
        return [self.fault, str(self.planted), str(survived), self.fetched_twice, equal, self.remark]


STARTED = time.monotonic()
SECONDS_BETWEEN_LINES = 2.0
_said_at = [-SECONDS_BETWEEN_LINES]


def say(text: str, at_once: bool = False) -> None:
    """A line of progress, unless there was one a moment ago."""
    now = time.monotonic() - STARTED
    if at_once or now - _said_at[0] >= SECONDS_BETWEEN_LINES:
        _said_at[0] = now
        print(f"{now:4.0f} s  {text}", flush=True)


# a run in a folder of its own


@dataclass(frozen=True)
class Finished:
    """A process that has ended; ``messages`` are the lines of stderr without the warnings of a run that goes on."""

    status: int
    stderr: str

    @property
    def messages(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if not line.startswith(("going on after", "images-"))]

    def refusal_problems(self, said: str, status: int = 1) -> list[str]:
        """Why this is no end with one clear line that says so."""
        problems = [] if self.status == status else [f"exit status {self.status} instead of {status}"]
        if "Traceback" in self.stderr or len(self.messages) != 1 or not re.search(said, self.stderr):
            problems.append(f"no line that says {said!r}: {self.stderr[-300:]!r}")
        return problems


def environment(code: Path) -> dict[str, str]:
    """What a run inherits. Its threads wait without spinning: two runs share the cores."""
    left_out = ("DVC_ROOT", "DVC_STAGE", "OMP_NUM_THREADS", "WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | {"PYTHONPATH": str(code), "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class Run:
    """A folder with params and data in which stages run.

    Attributes:
        folder: where.
        code: the folder with the code, which nobody edits meanwhile.
        expected: path → sha256 of what the undisturbed chain left under ``data``, ``models`` and ``metrics``.
        seconds: how long undisturbed training took, from its beginning and from when it held its lock.
        forks: starts its stages, None where each process loads its libraries itself.
    """

    folder: Path
    code: Path
    expected: dict[str, str]
    seconds: tuple[float, float] = (0.0, 0.0)
    forks: Forks | None = None

    def start(self, stage: str, *fault: str) -> subprocess.Popen[str] | Process:
        if self.forks:
            return self.forks.start(self.folder, environment(self.code), stage, *fault)
        command = [sys.executable, str(PLANTED), stage, *fault] if fault else [sys.executable, "-m", f"stages.{stage}"]
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=environment(self.code), **pipes)

    def run(self, stage: str, *fault: str) -> Finished:
        """Run a stage to its end, perhaps with a fault planted in it."""
        return finished(self.start(stage, *fault))

    def hashes(self) -> dict[str, str]:
        tops = (self.folder / top for top in ("data", "models", "metrics"))
        files = sorted(path for top in tops for path in top.rglob("*") if path.is_file())
        names = {path.relative_to(self.folder).as_posix(): path for path in files}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in names.items()
            if not name.startswith("data/raw/")
        }

    def wrong_files(self) -> list[str]:
        """Files that no undisturbed run leaves: half-written ones, leftovers, other bytes.

        The history of a training without a model yet is left out, because it has the finished epochs only.
        """
        found = self.hashes()
        growing = set() if MODEL.as_posix() in found else {HISTORY.as_posix()}
        wrong = [name for name, digest in found.items() if self.expected.get(name) != digest]
        return [f"{name} is wrong" for name in wrong if name not in growing]

    def missing_files(self, *stages: str) -> list[str]:
        """Files that these stages make and that are not there."""
        found = self.hashes()
        due = (name for name in self.expected if any(re.match(MADE_BY[stage], name) for stage in stages))
        return [f"{name} is missing" for name in due if name not in found]

    def difference(self, *stages: str) -> list[str]:
        """Run stages to their ends, the train stage first; gives what is not as the undisturbed run left it."""
        whole_states = bool(self.states())
        for stage in stages:
            ended = self.run(stage)
            if ended.status or ended.messages:
                return [f"{stage} ended with {ended.status}: {ended.stderr[-300:]!r}"]
            if stage == "train" and whole_states != ("going on after" in ended.stderr):
                return [f"states kept: {whole_states}, but: {ended.stderr!r}"]
        left = [f"the state {path.name} is left" for path in self.states()]
        return self.missing_files(*stages) + self.wrong_files() + left

    def states(self) -> list[Path]:
        return sorted((self.folder / ".cclnet" / "training").glob("*/images-????????????"))

    def lock(self) -> Path | None:
        """The lock that a training process holds or held, None before."""
        return next((self.folder / ".cclnet" / "training").glob("*/lock"), None)


def finished(process: subprocess.Popen[str] | Process) -> Finished:
    _, stderr = process.communicate(timeout=TIMEOUT)
    return Finished(process.wait(), stderr)


def wait_for_lock(run: Run, process: subprocess.Popen[str] | Process) -> None:
    """Until the process trains, or has ended."""
    while process.poll() is None and not ((lock := run.lock()) and lock.read_text(encoding="ascii")):
        time.sleep(0.01)
    time.sleep(0.2)  # signals wait for the end of a step from here on


class Bench:
    """Makes the data, runs the undisturbed chain, and gives folders with copies of the data.

    Args:
        folder: where all of it goes.
        stages: those of the chain.
        forks: starts the stages of all runs, None where each process loads its libraries itself.
        block: changes of the params of the dataset's block.
    """

    def __init__(self, folder: Path, stages: Sequence[str] = STAGES, forks: Forks | None = None, **block: Any) -> None:
        self.folder, self.code, self.forks = folder, folder / "code", forks
        for package in CODE:
            shutil.copytree(PROJECT / package, self.code / package, ignore=shutil.ignore_patterns("__pycache__"))
        self.params = small_params("portable") | CHANGES
        self.params["head"] |= HEAD
        self.params["datasets"]["sample"] |= BLOCK | block
        self.origin = Run(folder / "undisturbed", self.code, {}, forks=forks)
        self.origin.folder.mkdir()
        self.write_params(self.origin, self.params)
        for stage in stages:
            begun = locked = time.monotonic()
            process = self.origin.start(stage)
            if stage == "train":
                wait_for_lock(self.origin, process)
                locked = time.monotonic()
            ended = finished(process)
            if ended.status:
                raise RuntimeError(f"the undisturbed {stage} failed: {ended.stderr}")
            if stage == "train":
                self.seconds = time.monotonic() - begun, time.monotonic() - locked
        self.expected = self.origin.hashes()
        self._numbers = itertools.count(1)
        say(f"undisturbed training: {self.seconds[0]:.1f} s, {self.seconds[1]:.1f} s of them with the images")

    @staticmethod
    def write_params(run: Run, params: dict[str, Any]) -> None:
        (run.folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    def copy(self, *, results: bool = False, block: dict[str, Any] | None = None, **changes: Any) -> Run:
        """A folder of its own with the data, perhaps with the results too, and with other values in its params."""
        run = Run(self.folder / f"run {next(self._numbers)}", self.code, self.expected, self.seconds, self.forks)
        for top in ("data", "models", "metrics") if results else ("data",):
            shutil.copytree(self.origin.folder / top, run.folder / top)
        sample = self.params["datasets"]["sample"] | (block or {})
        self.write_params(run, self.params | changes | {"datasets": {"sample": sample}})
        return run


def in_parallel(function: Callable[..., None], cases: Sequence[Any]) -> None:
    """As many cases at a time as there are workers; an error of one ends the campaign."""
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(function, cases))


def kill_problems(run: Run, *fault: str) -> list[str]:
    """Let the train stage kill itself."""
    ended = run.run("train", "kill", *fault)
    return [] if ended.status == -signal.SIGKILL else [f"was not killed: {ended.status} {ended.stderr[-300:]!r}"]


def two_processes(bench: Bench) -> Run:
    """A folder in which the train stage runs as two processes of one thread."""
    return replace(bench.copy(block={"threads": 1}, processes=2), forks=None)  # the libraries were loaded for two
