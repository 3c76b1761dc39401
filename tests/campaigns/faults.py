"""The fault campaign: faults of every kind are planted, and what survived them is counted in a table.

    make faults
    python -m tests.campaigns.faults [--into FOLDER] [CAMPAIGN …]

It trains a small network (100 drawn images, 5 epochs of 4 steps, on the processor) with the stages' own code, each run
a process of its own in a folder of its own, kills or spoils it, runs it again, and compares the sha256 of all that it
leaves with what an undisturbed run left. It prints the table of ``docs/evidence/reliability.md``. It needs Linux, two
cores, 2 GB of memory and 1 GB of disk, no network and no GPU. Exit status 0: everything survived; 1 otherwise.

With ``--into`` the rows of every finished campaign are kept in a folder, and a campaign of which this code has rows
there is not run again: what was interrupted goes on, and two processes can share the work, each with some campaigns.
The table then has the rows of all campaigns in the folder.
"""

import argparse
import copy
import functools
import hashlib
import json
import logging
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import torch

from cclnet.dataset.download import CHUNK
from cclnet.dataset.isic import CLASSES, GROUND_TRUTH_ZIP
from cclnet.networks.backbones import build_backbone
from cclnet.networks.catalogue import name_problems
from cclnet.networks.model import CCLNet, load_model
from cclnet.networks.model_file import save_model
from cclnet.params import Params
from cclnet.system.errors import CCLNetError, ParamsError
from cclnet.system.files import write_json
from cclnet.training.states import StateStore
from tests.campaigns import surroundings
from tests.campaigns.bench import (
    CODE,
    HISTORY,
    MODEL,
    STATE,
    STEPS_OF_AN_EPOCH,
    TIMEOUT,
    WORKERS,
    Bench,
    Finished,
    Row,
    Run,
    environment,
    finished,
    in_parallel,
    kill_problems,
    say,
    two_processes,
    wait_for_lock,
)
from tests.campaigns.faulty_server import cut, faulty_server
from tests.campaigns.forked import Forks
from tests.campaigns.golden import PROJECT
from tests.dataset.builders import MEBIBYTE, Folders, start_fetching, zip_of
from tests.training.builders import Payload

TESTS = PROJECT / "tests"
COLUMNS = ("fault", "planted", "survived", "bytes fetched twice", "runs equal", "remark")


def markdown(rows: Sequence[Row]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# kills, signals, and states without one of their parts

KILLS: dict[str, list[tuple[str, str, str]]] = {
    "while writing a state": [
        ("write", STATE, "2"),
        ("write", STATE, "5"),
        ("write", STATE, "10"),
        ("fsync", STATE, "2"),
        ("rename", STATE, "4"),
        ("renamed", STATE, "3"),
        ("unlink", "images-????????????", "1"),
    ],
    "between the two optimizers' steps": [("step", "*", str(2 * step)) for step in (2, 7, 11, 20)],
    "while writing the results": [
        ("write", "history.csv.*", "5"),  # after the last epoch
        ("rename", "conditions.json", "1"),
        ("write", "model.*", "1"),
        ("unlink", "images-????????????", "4"),
    ],
}
KILLED_TWICE = ("write", STATE, "4")
RANDOM_KILLS = 5


def kills(bench: Bench) -> list[Row]:
    """SIGKILL, then the stage once more; every second run ends with the stages after it, two are killed twice."""
    rows = {place: Row(f"SIGKILL {place}") for place in (*KILLS, "at random moments")}
    random_kills = [("at random moments", random.Random(seed)) for seed in range(RANDOM_KILLS)]  # noqa: S311
    cases = [(place, fault) for place, faults in KILLS.items() for fault in faults] + random_kills

    def case(numbered: tuple[int, tuple[str, Any]]) -> None:
        number, (place, fault) = numbered
        run = bench.copy()
        if isinstance(fault, random.Random):
            run, name = killed_at_random(bench, fault)
            problems = []
        else:
            name = " ".join(fault)
            problems = kill_problems(run, *fault)
        if number in (0, len(cases) - 1):
            name += ", and once more"
            problems += kill_problems(run, *KILLED_TWICE)
        difference = run.difference("train", *(("evaluate", "plot", "report") if number % 4 == 0 else ()))
        rows[place].add(name, problems + difference, equal=not difference)

    in_parallel(case, list(enumerate(cases)))
    return list(rows.values())


def killed_at_random(bench: Bench, chance: random.Random) -> tuple[Run, str]:
    """A run that was killed from outside at any moment between its start and its end."""
    seconds = chance.uniform(0.3, 0.95 * bench.seconds[0])
    while True:
        run = bench.copy()
        process = run.start("train")
        try:
            process.wait(timeout=seconds)
            seconds /= 2  # it was faster than the undisturbed run
        except subprocess.TimeoutExpired:
            process.kill()
            finished(process)
            return run, f"after {seconds:.1f} s"


def signals(bench: Bench) -> list[Row]:
    """SIGTERM and SIGINT at random moments of training: the state is kept, no model is written, the run goes on."""
    rows = {kind: Row(f"{kind.name} at random moments") for kind in (signal.SIGTERM, signal.SIGINT)}
    slowest = dict.fromkeys(rows, 0.0)

    def case(which: tuple[signal.Signals, int]) -> None:
        kind, seed = which
        seconds = random.Random(f"{kind.name} {seed}").uniform(0, 0.9 * bench.seconds[1])  # noqa: S311
        while True:
            run = bench.copy()
            ended, took = signalled(run, kind, seconds)
            # all was done, and Python itself about to end
            came_too_late = ended.status == -kind and (run.folder / MODEL).exists() and not run.states()
            if ended.status and not came_too_late:
                break
            seconds /= 2
        problems = ended.refusal_problems(f"^train: ended by {kind.name}; what is done is kept", 128 + kind)
        problems += [f"{MODEL} is written"] * (run.folder / MODEL).exists()
        problems += [] if run.states() else ["no state is kept"]
        slowest[kind] = max(slowest[kind], took)
        history = run.folder / HISTORY  # of the finished epochs, for whoever looks at it meanwhile
        first_epochs = history.read_text(encoding="utf-8") if history.exists() else ""
        difference = run.difference("train")
        if not history.read_text(encoding="utf-8").startswith(first_epochs):
            problems.append(f"{HISTORY} did not go on with its first epochs")
        rows[kind].add(f"after {seconds:.1f} s, ended in {took:.2f} s", problems + difference, equal=not difference)

    in_parallel(case, [(kind, seed) for seed in range(5) for kind in rows])
    for kind, row in rows.items():
        row.remark = f"ended within {slowest[kind]:.2f} s"
    return list(rows.values())


def signalled(run: Run, kind: signal.Signals, seconds: float) -> tuple[Finished, float]:
    """A run that got a signal so long after it began to train, and how long after that it ended."""
    process = run.start("train")
    wait_for_lock(run, process)
    time.sleep(seconds)
    process.send_signal(kind)
    sent = time.monotonic()
    return finished(process), time.monotonic() - sent


def mutations(bench: Bench) -> list[Row]:
    """A state without one of its parts must not give the same run; counted from the tests."""
    noticed = Row("state without one of its parts", remark="survived: the difference is noticed")
    count_tests(noticed, "training/test_loop.py", "project/test_faults.py", chosen="without_one_of_its_parts")
    return [noticed]


# several processes

ENDS_OF_ONE = (("kill", "2"), ("kill", "13"), ("kill", "22"), ("kill", "31"), ("kill", "40"), ("terminate", "15"))
"""What one of two processes does to itself, and before which of the steps of its optimizers: 40 in all."""


def processes(bench: Bench) -> list[Row]:
    """One of two processes killed or asked to end: both end, and go on to the bytes of two that were left alone."""
    rows = {"kill": Row("SIGKILL of one of two processes"), "terminate": Row("SIGTERM to one of two processes")}
    said = {
        "kill": "^train: a process was ended by SIGKILL",
        "terminate": "^train: ended by SIGTERM; what is done is kept",
    }
    undisturbed = two_processes(bench)
    ended = undisturbed.run("train")
    if ended.status:
        raise RuntimeError(f"two undisturbed processes failed: {ended.stderr}")
    expected = undisturbed.hashes()
    for number, (action, step) in enumerate(ENDS_OF_ONE):
        rank = str(number % 2)
        run = replace(two_processes(bench), expected=expected)
        ended = run.run("train", action, "step", "*", step, rank)
        problems = ended.refusal_problems(said[action], 1 if action == "kill" else 143) + run.wrong_files()
        difference = run.difference("train")
        rows[action].add(f"process {rank} before step {step}", problems + difference, equal=not difference)
    return list(rows.values())


# the same bytes


def same_bytes(bench: Bench) -> list[Row]:
    """The whole chain under other circumstances."""
    row = Row("another folder, hash seed, time zone, locale, thread count preset")
    folders = bench.folder / "one", bench.folder / "another föld er"
    circumstances = (
        {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"},
        {"PYTHONHASHSEED": "4711", "TZ": "Pacific/Auckland", "LC_ALL": "C", "OMP_NUM_THREADS": "7"},
    )

    def chain(where: tuple[Path, dict[str, str]]) -> dict[str, str]:
        folder, changes = where
        command = [sys.executable, str(TESTS / "campaigns" / "golden.py"), str(folder)]
        inherited = environment(bench.code) | {"PYTHONPATH": ""} | changes
        ended = subprocess.run(command, env=inherited, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        return json.loads(ended.stdout[ended.stdout.index("{") :])

    with ThreadPoolExecutor(WORKERS) as pool:
        first, second = pool.map(chain, zip(folders, circumstances, strict=True))
    different = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    row.add(f"{len(first)} files", [f"{name} differs" for name in different], equal=not different)
    row.remark = f"{len(first)} files"
    return [row]


# downloads


def downloads(bench: Bench) -> list[Row]:
    """Connections cut, and the process killed, at ten places of a file; the further faults from the tests."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    data = zip_of(8 * MEBIBYTE)
    offsets = range(len(data) // 20, len(data), len(data) // 10)
    cuts = Row("download: connection cut", remark=f"a chunk has {CHUNK:,} bytes")
    twice = []
    for offset in offsets:
        folders = Folders(bench.folder / f"cut {offset}")
        with faulty_server(data) as server:
            server.script = [cut(offset)]
            folders.fetch(server.source)
            twice.append(server.sent - len(data))
        good = folders.final.read_bytes() == data
        problems = [] if twice[-1] <= CHUNK else [f"{twice[-1]:,} bytes were fetched twice"]
        cuts.add(f"after {offset:,} bytes", problems + ([] if good else ["other bytes"]), equal=good)
    cuts.fetched_twice = f"{max(twice):,}"

    killed = Row("download: SIGKILL", remark="with what was in the sockets")
    twice = []
    for offset in offsets:
        folders = Folders(bench.folder / f"killed {offset}")
        with faulty_server(data) as server:
            process = start_fetching(server.source, folders)
            server.after_sending = offset, process.kill
            process.communicate(timeout=TIMEOUT)
            problems = [] if process.returncode == -signal.SIGKILL else [f"was not killed: {process.returncode}"]
            problems += ["the final name is there"] if folders.final.exists() else []
            server.after_sending = None
            folders.fetch(server.source)
            twice.append(server.sent - len(data))
        good = folders.final.read_bytes() == data
        killed.add(f"after {offset:,} bytes", problems + ([] if good else ["other bytes"]), equal=good)
    killed.fetched_twice = f"{max(twice):,}"

    rest = Row("download: all tests of the faulty server and of wrong files")
    count_tests(rest, "dataset/test_download.py")
    return [cuts, killed, rest]


# input


def inputs(bench: Bench) -> list[Row]:
    """Damaged zips, tables and images; counted from the tests."""
    row = Row("input: all tests of damaged zips, tables and images")
    files = ("dataset/test_tables.py", "dataset/test_checks.py", "images/test_decoding.py", "images/test_reading.py")
    count_tests(row, *files)
    return [row]


def count_tests(row: Row, *files: str, chosen: str = "") -> None:
    """Run tests, each a case."""
    there = [str(TESTS / name) for name in files]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *there]
        subprocess.run(
            [*command, "-k", chosen], cwd=PROJECT, stdout=subprocess.DEVNULL, timeout=2 * TIMEOUT, check=False
        )
        cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - pytest's own file
    for case in cases:
        row.planted += 1
        for failure in (*case.iter("failure"), *case.iter("error"), *case.iter("skipped")):
            row.failures.append(f"{row.fault}: {case.get('name')}: {failure.get('message', '')[:300]}")
    if not cases:
        row.failures.append(f"{row.fault}: no test was found")
    say(f"{row.fault}: {row.planted - len(row.failures)} of {row.planted} tests passed")


# model and state files

BIT_FLIPS = 60


def refusal_of(path: Path) -> list[str]:
    """Why a model file is not refused in one line."""
    try:
        load_model(path)
    except CCLNetError as error:
        return [f"several lines: {error}"] if "\n" in str(error) else []
    return ["was loaded"]


def flipped(content: bytes, first: int, end: int, chance: random.Random) -> tuple[str, bytes]:
    """A single bit turned somewhere between two places."""
    place, bit = chance.randrange(first, end), chance.randrange(8)
    changed = content[place] ^ 1 << bit
    return f"byte {place}, bit {bit}", content[:place] + bytes([changed]) + content[place + 1 :]


def model_files(bench: Bench) -> list[Row]:
    """Damaged, foreign and malicious files in the place of the model."""
    chance = random.Random(0)  # noqa: S311
    path, executed = bench.folder / MODEL.name, bench.folder / "executed"
    content = (bench.origin.folder / MODEL).read_bytes()
    tensors = 8 + struct.unpack("<Q", content[:8])[0]
    rows = {part: Row(f"model file: bit flipped in its {part}") for part in ("header", "tensors")}
    for part, row in rows.items():
        for _ in range(BIT_FLIPS):
            bounds = (0, len(content[:tensors].rstrip(b" "))) if part == "header" else (tensors, len(content))
            where, damaged = flipped(content, *bounds, chance)
            path.write_bytes(damaged)
            row.add(where, refusal_of(path))

    short = Row("model file: cut")
    for length in (0, 7, 8, 100, tensors - 1, tensors, tensors + 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        short.add(f"to {length:,} bytes", refusal_of(path))

    model, description = load_model(bench.origin.folder / MODEL)
    foreign = Row("model file: another architecture")
    others = {"backbone": "resnet18", "method": "baseline", "classes": ["A", "B"]}
    for name, value in others.items():
        save_model(path, model, replace(description, **{name: value}))
        foreign.add(f"{name} {value}", refusal_of(path))
    network, features = build_backbone("resnet18", None)
    save_model(path, CCLNet(network, features, len(CLASSES)), description)
    foreign.add("the weights of another", refusal_of(path))

    malicious = Row("model file: malicious pickle")
    path.write_bytes(pickle.dumps(Payload(executed)))
    malicious.add("pickle", refusal_of(path) + ["was executed"] * executed.exists())
    torch.save(Payload(executed), path)
    malicious.add("torch.save", refusal_of(path) + ["was executed"] * executed.exists())

    run = bench.copy(results=True)
    _, damaged = flipped(content, tensors, len(content), chance)
    (run.folder / MODEL).write_bytes(damaged)
    stage = Row("model file: evaluate with a damaged one")
    problems = run.run("evaluate").refusal_problems("^evaluate: models/model.safetensors is not a model")
    changed = [problem for problem in run.wrong_files() if MODEL.as_posix() not in problem]
    stage.add("bit flipped", problems + changed, equal=not changed)
    return [*rows.values(), short, foreign, malicious, stage]


def state_files(bench: Bench) -> list[Row]:
    """Damaged and malicious states: the one before is taken, and nothing is executed."""
    chance = random.Random(1)  # noqa: S311
    run = bench.copy()
    problems = kill_problems(run, "step", "*", str(2 * (3 * STEPS_OF_AN_EPOCH)))
    before, newest = run.states()
    content, executed = newest.read_bytes(), bench.folder / "executed"
    with StateStore(newest.parent.parent, newest.parent.name) as store:
        damage = {"flipped": Row("state file: bit flipped"), "cut": Row("state file: cut")}
        logging.disable(logging.WARNING)
        for _ in range(BIT_FLIPS):
            where, damaged = flipped(content, 0, len(content), chance)
            newest.write_bytes(damaged)
            damage["flipped"].add(where, fallback_problems(store))
        for length in (0, 1, 31, 32, 33, len(content) // 2, len(content) - 1):
            newest.write_bytes(content[:length])
            damage["cut"].add(f"to {length:,} bytes", fallback_problems(store))
        logging.disable(logging.NOTSET)
    malicious = Row("state file: malicious pickle as the newest, the run goes on")
    torch.save({"trainer": Payload(executed)}, newest)
    pickled = newest.read_bytes()
    newest.write_bytes(hashlib.sha256(pickled).digest() + pickled)
    difference = [text for text in run.difference("train") if "is damaged; going on" not in text]
    problems += difference + ["was executed"] * executed.exists()
    malicious.add(f"with {before.name} before it", problems, equal=not difference)
    return [*damage.values(), malicious]


def fallback_problems(store: StateStore) -> list[str]:
    """Why what is loaded is not the state of the first epoch."""
    state = store.load()
    return [] if state and state["trainer"]["epoch"] == 1 else ["the state before it is not taken"]


# what goes wrong while a stage works

SAVES: dict[str, list[tuple[str, str, str]]] = {
    "train": [
        ("write", STATE, "2"),
        ("fsync", STATE, "3"),
        ("write", "history.csv.*", "1"),
        ("fsync", "conditions.json.*", "1"),
        ("write", "model.*", "1"),
    ],
    "resize": [("write", "images.npy.*", "3"), ("write", "images.csv*", "1")],
    "evaluate": [
        ("write", "metrics.json.*", "1"),
        ("fsync", "classes.csv.*", "1"),
        ("write", "confusion.json.*", "1"),
        ("fsync", "reliability.csv.*", "1"),
        ("write", "soft_labels.json.*", "1"),
        ("fsync", "predictions.csv.*", "1"),
    ],
    "plot": [("write", "confusion.png*", "1"), ("write", "history.svg*", "1")],
    "report": [("write", "report.html*", "1")],
}
LONGEST_FILE = {"train": "1000000", "resize": "10000", "evaluate": "1000"}


def full_disks(bench: Bench) -> list[Row]:
    """No space left, or no longer file allowed, at every save: one line, and nothing half-written."""
    rows = {stage: Row(f"disk full while {stage} saves") for stage in SAVES}
    limited = Row("file too large for the disk's limits")

    def case(which: tuple[Row, str, tuple[str, ...]]) -> None:
        row, stage, fault = which
        run = bench.copy(results=stage in ("evaluate", "plot", "report"))
        kept = len(run.states())
        said = "No space left on device" if fault[0] == "full" else "File too large"
        problems = run.run(stage, *fault).refusal_problems(f"^{stage}: .*{said}") + run.wrong_files()
        problems += ["a state is lost"] if len(run.states()) < kept else []
        difference = run.difference(stage)
        row.add(" ".join((stage, *fault)), problems + difference, equal=not difference)

    planted = [(rows[stage], stage, ("full", *fault)) for stage, faults in SAVES.items() for fault in faults]
    in_parallel(case, planted + [(limited, stage, ("file-size", size)) for stage, size in LONGEST_FILE.items()])
    return [*rows.values(), limited]


def training_faults(bench: Bench) -> list[Row]:
    """NaN, too little memory, no GPU, a second trainer."""
    diverged, memory = Row("loss becomes NaN"), Row("out of memory")
    absent, second = Row("device: cuda without a GPU"), Row("a second trainer in the same folder")

    run = bench.copy()
    third_epoch = str(2 * STEPS_OF_AN_EPOCH * 2 + 1)
    problems = run.run("train", "nan", "step", "*", third_epoch).refusal_problems("the loss is not finite in epoch 3")
    problems += [] if len(run.states()) == 2 and not (run.folder / MODEL).exists() else ["not two states and no model"]
    difference = run.difference("train")
    diverged.add("in epoch 3", problems + difference, equal=not difference)
    run = bench.copy(optimizer=bench.params["optimizer"] | {"lr_backbone": 1e30})
    problems = run.run("train").refusal_problems("the loss is not finite in epoch 1")
    problems += ["a result is written"] * (run.folder / MODEL).exists()
    bench.write_params(run, bench.params)
    difference = run.difference("train")
    diverged.add("by optimizer.lr_backbone: 1e30, then as before", problems + difference, equal=not difference)

    for stage in ("train", "evaluate"):
        run = bench.copy(results=stage == "evaluate")
        problems = run.run(stage, "memory", MEMORY).refusal_problems(f"^{stage}: out of memory; lower batch_size")
        problems += run.wrong_files()
        difference = run.difference(stage)
        memory.add(f"in {stage}", problems + difference, equal=not difference)

    run = bench.copy(device="cuda")
    problems = run.run("train").refusal_problems("^train: device: cuda is asked for, and torch sees 0 GPUs")
    bench.write_params(run, bench.params)
    difference = run.difference("train")
    absent.add("then device: cpu", problems + difference, equal=not difference)

    for changes in ({}, {"lr_ccl": 0.1}, {"seed": 1}, {"method": "baseline"}):
        run = bench.copy()
        first = run.start("train")
        wait_for_lock(run, first)
        first.send_signal(signal.SIGSTOP)  # it would be done before the second one has loaded torch
        bench.write_params(run, bench.params | changes)
        problems = run.run("train").refusal_problems(f"^train: process {first.pid} is training in this folder already")
        first.send_signal(signal.SIGCONT)
        ended = finished(first)
        difference = run.missing_files("train") + run.wrong_files()
        difference += [] if ended.status == 0 else [f"the first one ended with {ended.status}: {ended.stderr[-300:]!r}"]
        second.add(f"with {changes or 'the same params'}", problems + difference, equal=not difference)
    return [diverged, memory, absent, second]


MEMORY = str(2**24)


def odd_data(bench: Bench) -> list[Row]:
    """Classes that one of the subsets lacks, a class of one image, a batch of one image."""
    lacking, single = Row("a class that a subset lacks"), Row("a class of one image")
    for subset, other in (("train", "validation"), ("validation", "train")):
        run = bench.copy(block={"epochs": 1, "milestones": []})
        split = pd.read_csv(run.folder / "data/split.csv")
        split.loc[split["label"] == "VASC", "subset"] = other
        split.to_csv(run.folder / "data/split.csv", index=False)
        problems = []
        for stage in ("train", "evaluate", "plot", "report"):
            ended = run.run(stage)
            problems += [f"{stage}: {ended.status} {ended.stderr[-300:]!r}"] if ended.status or ended.messages else []
        notes = "" if problems else (run.folder / "metrics/scores.csv").read_text("utf-8")
        problems += ["no note names the class"] if subset == "validation" and "VASC" not in notes else []
        lacking.add(f"VASC is not in {subset}", problems)

    run = bench.copy()
    keep_one_image(run.folder / "data/raw" / GROUND_TRUTH_ZIP, "VASC")
    before = run.hashes()
    problems = run.run("split").refusal_problems("^split: class VASC has a single image")
    single.add("VASC", problems + ["files changed"] * (run.hashes() != before))

    last = Row("a last batch of one image")
    run = bench.copy(block={"epochs": 1, "milestones": [], "batch_size": 79})
    ended = run.run("train")
    last.add("80 images in batches of 79", [f"{ended.status} {ended.stderr!r}"] if ended.status or ended.stderr else [])
    return [lacking, single, last]


def keep_one_image(path: Path, label: str) -> None:
    """Give all images of a class but one to the class of nevi."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (member for member in archive.namelist() if member.endswith(".csv"))
        table = pd.read_csv(archive.open(name))
    others = table.index[table[label].to_numpy() == 1][1:]
    table.loc[others, label], table.loc[others, "NV"] = 0, 1
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, table.to_csv(index=False))


WRONG_PARAMS: list[tuple[str, Any]] = [
    ("lr_cll", 0.1),
    ("datasets.sample.short_sides", 8),
    ("sample.imags", 8),
    ("method", "cll"),
    ("split", "lesions"),
    ("head.freeze_at", "Best"),
    ("computation.precision", "float16"),
    ("datasets.sample.processor", "gpu"),
    ("dataset", "sampel"),
    ("device", "gpu"),
    ("backbone", "resnet81"),
    ("weights", "IMAGENET1K_V9"),
    ("lr_ccl", "fast"),
    ("lr_ccl", None),
    ("lr_ccl", True),
    ("lr_ccl", -0.1),
    ("seed", 0.5),
    ("seed", 2**32),
    ("backbone", 18),
    ("datasets.sample.milestones", 18),
    ("datasets.sample.milestones", [0.9, 0.2]),
    ("datasets.sample.crop", 4000),
    ("datasets.sample.batch_size", 1),
    ("datasets.sample.epochs", 0),
    ("optimizer.lr_backbone", float("nan")),
    ("head.margin", 4.5),
    ("jitter.hue", 0.6),
    ("validation_fraction", 1),
    ("sample.images", 5),
    ("datasets", None),
]

# these are looked at only where the keys that they depend on are right
HIDDEN_BY_OTHERS = ("datasets", "datasets.sample.crop", "datasets.sample.milestones", "weights")


def wrong_params(bench: Bench) -> list[Row]:
    """Each refused in one report; and all that do not exclude each other, by a stage that then does nothing."""
    row = Row("wrong params")
    run = bench.copy()
    file = run.folder / "params.yaml"
    for path, value in WRONG_PARAMS:
        bench.write_params(run, changed(bench.params, {path: value}))
        try:
            Params.load(file, name_problems)
            problems = ["accepted"]
        except ParamsError as error:
            key = path.split(".")[-1]
            problems = [] if key in str(error) else [f"{key} is not named: {error}"]
        row.add(f"{path}: {value}", problems)

    together = {path: value for path, value in WRONG_PARAMS if path not in HIDDEN_BY_OTHERS}
    bench.write_params(run, changed(bench.params, together))
    ended = run.run("train")
    heading, *lines = ended.stderr.splitlines()
    problems = [] if ended.status == 1 and heading == "params: params.yaml cannot be used:" else [ended.stderr[-300:]]
    problems += [f"{path} is not named" for path in together if not any(f"  {path}" in line for line in lines)]
    problems += ["something was done"] if (run.folder / ".cclnet").exists() else []
    row.add(f"{len(together)} of them together", problems)
    return [row]


def changed(params: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy with other values; a dot leads into a block."""
    params = copy.deepcopy(params)
    for path, value in values.items():
        *parents, key = path.split(".")
        functools.reduce(dict.__getitem__, parents, params)[key] = value
    return params


CAMPAIGNS: dict[str, Callable[[Bench], list[Row]]] = {
    "kills": kills,
    "signals": signals,
    "mutations": mutations,
    "processes": processes,
    "same-bytes": same_bytes,
    "downloads": downloads,
    "inputs": inputs,
    "model-files": model_files,
    "state-files": state_files,
    "full-disks": full_disks,
    "training-faults": training_faults,
    "odd-data": odd_data,
    "wrong-params": wrong_params,
    **surroundings.CAMPAIGNS,
}


def digest_of_code() -> str:
    """The sha256 of the code that is tested and of what tests it."""
    files = (path for top in (*CODE, "tests") for path in sorted((PROJECT / top).rglob("*.py")))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def kept_rows(file: Path, code: str) -> list[Row]:
    """The rows of a campaign that was run before, empty if it was not, or with other code."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return [Row(**row) for row in kept["rows"]] if kept.get("code") == code else []


def run_campaigns(names: Sequence[str], into: Path) -> None:
    """Run the campaigns that have no rows yet, and keep those of each when it ends."""
    code = digest_of_code()
    due = [name for name in names if not kept_rows(into / f"{name}.json", code)]
    if not due:
        return
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, Forks(Path(folder)) as forks:
        bench = Bench(Path(folder), forks=forks)
        for name in due:
            began = time.monotonic()
            kept = {"code": code, "rows": [vars(row) for row in CAMPAIGNS[name](bench)]}
            write_json(into / f"{name}.json", kept)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"all, or some of: {', '.join(CAMPAIGNS)}")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="keep the rows there, and go on with those there")
    options = parser.parse_args()
    if unknown := set(options.campaigns) - set(CAMPAIGNS):
        parser.error(f"no campaign is called {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="rows-") as folder:
        into = options.into or Path(folder)
        run_campaigns(options.campaigns or list(CAMPAIGNS), into)
        rows = [row for name in CAMPAIGNS for row in kept_rows(into / f"{name}.json", digest_of_code())]
    print(markdown(rows))
    failures = [failure for row in rows for failure in row.failures]
    print("\n".join([*failures, f"{len(failures)} of {sum(row.planted for row in rows)} faults were not survived"]))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
