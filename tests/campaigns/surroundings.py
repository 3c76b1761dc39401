"""Faults of what surrounds a run: outputs of every kind, other writers, DVC, files, file systems, streams, schedulers.

Part of ``faults.py``, which runs these campaigns and counts.
"""

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.campaigns.bench import (
    MODEL,
    TIMEOUT,
    Bench,
    Finished,
    Row,
    Run,
    environment,
    finished,
    in_parallel,
    two_processes,
    wait_for_lock,
)
from tests.campaigns.golden import PROJECT, STAGES
from tests.system.builders import IS_KILLED, TWO_WRITERS

PIPELINE: dict[str, Any] = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def problems_of(expected: Any, found: Any, what: str) -> list[str]:
    return [] if found == expected else [f"{what} is {found!r} instead of {expected!r}"]


def no_traceback(text: str) -> list[str]:
    return [f"a traceback: {text[-300:]!r}"] if "Traceback" in text or "Exception ignored" in text else []


# outputs of every kind


def command(bench: Bench, folder: Path, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run ``cclnet`` in a folder, with the undisturbed run's model as ``model``."""
    line = [sys.executable, "-m", "cclnet", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(line, cwd=folder, env=environment(bench.code), timeout=TIMEOUT, check=False, **options)


def outputs(bench: Bench) -> list[Row]:
    """What ``cclnet compare`` finds into links, pipes, devices, what cannot be written, and what must not be."""
    folder = bench.folder / "outputs"
    make_experiments(folder)
    command(bench, folder, *COMPARE, "expected.json")
    expected = (folder / "expected.json").read_bytes()

    written = Row("output into a link, pipe or device")
    for name, write in WRITTEN.items():
        written.add(name, write(lambda *given, **options: command(bench, folder, *given, **options), folder, expected))

    refused = Row("output that cannot or must not be written")
    for name, (prepare, output) in REFUSED.items():
        prepare(folder)
        before = contents(folder)
        ended = command(bench, folder, *COMPARE, output)
        problems = Finished(ended.returncode, ended.stderr.decode()).refusal_problems("^cclnet: ")
        refused.add(name, problems + problems_of(before, contents(folder), "the folder"))
    return [written, refused]


COMPARE = ("compare", "a.csv", "b.csv", "--labels", "labels.csv", "--json")


def make_experiments(folder: Path) -> None:
    """Two experiments on two images each, for a command that needs no torch."""
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.csv").write_text("image,MEL,NV\none,0.75,0.25\ntwo,0.5,0.5\n")
    rows = "one,MEL,L1,validation\ntwo,NV,L2,validation\nthree,NV,L3,train\n"
    (folder / "labels.csv").write_text(f"image,label,lesion,subset\n{rows}")


def contents(folder: Path) -> dict[str, Any]:
    """What every path of a folder is and holds."""
    return {path.relative_to(folder).as_posix(): content(path) for path in folder.rglob("*")}


def content(path: Path) -> Any:
    if path.is_symlink():
        return path.readlink()
    return path.read_bytes() if path.is_file() else None


Write = Callable[..., subprocess.CompletedProcess[bytes]]


def through_link(run: Write, folder: Path, expected: bytes) -> list[str]:
    (folder / "real.csv").write_bytes(b"before")
    (folder / "real.csv").chmod(0o640)
    (folder / "link.csv").symlink_to("real.csv")
    ended = run(*COMPARE, "link.csv")
    mode = oct((folder / "real.csv").stat().st_mode & 0o777)
    problems = problems_of(0, ended.returncode, "status") + problems_of("0o640", mode, "mode")
    problems += problems_of(expected, (folder / "real.csv").read_bytes(), "the file")
    return problems + ([] if (folder / "link.csv").is_symlink() else ["the link is replaced"])


def through_dangling_link(run: Write, folder: Path, expected: bytes) -> list[str]:
    (folder / "dangling.csv").symlink_to("new/real.csv")
    run(*COMPARE, "dangling.csv")
    return problems_of(expected, (folder / "new" / "real.csv").read_bytes(), "the file")


def through_link_into_a_cache(run: Write, folder: Path, expected: bytes) -> list[str]:
    """A link of DVC's to its cache is refused by a command; the cache stays as it is."""
    (folder / "cached").write_bytes(b"in the cache")
    (folder / "cached").chmod(0o444)
    (folder / "output.csv").symlink_to("cached")
    ended = run(*COMPARE, "output.csv")
    problems = problems_of(1, ended.returncode, "status")
    return problems + problems_of(b"in the cache", (folder / "cached").read_bytes(), "the cache")


def into_fifo(run: Write, folder: Path, expected: bytes) -> list[str]:
    os.mkfifo(folder / "fifo")
    with subprocess.Popen(["cat", folder / "fifo"], stdout=subprocess.PIPE) as reader:
        run(*COMPARE, "fifo")
        read, _ = reader.communicate(timeout=TIMEOUT)
    return problems_of(expected, read, "what was read") + problems_of(True, (folder / "fifo").is_fifo(), "a pipe")


def into_standard_output(name: str) -> Callable[..., list[str]]:
    def write(run: Write, folder: Path, expected: bytes) -> list[str]:
        ended = run(*COMPARE, name)
        problems = problems_of(expected, ended.stdout, "standard output")
        return problems + problems_of(True, Path("/dev/stdout").is_symlink(), "/dev/stdout is a link")

    return write


def into_a_file_that_is_appended_to(run: Write, folder: Path, expected: bytes) -> list[str]:
    (folder / "appended").write_bytes(b"before\n")
    with (folder / "appended").open("ab") as stream:
        run(*COMPARE, "/dev/stdout", stdout=stream)
    return problems_of(b"before\n" + expected, (folder / "appended").read_bytes(), "the file")


def into_descriptor(run: Write, folder: Path, expected: bytes) -> list[str]:
    """As bash's ``>(…)`` does."""
    reading, writing = os.pipe()
    run(*COMPARE, f"/dev/fd/{writing}", pass_fds=[writing])
    os.close(writing)
    with os.fdopen(reading, "rb") as reader:
        return problems_of(expected, reader.read(), "what was read")


def into_terminal(run: Write, folder: Path, expected: bytes) -> list[str]:
    mine, theirs = pty.openpty()
    run(*COMPARE, os.ttyname(theirs))
    read = os.read(mine, 2**16)
    os.close(mine)
    os.close(theirs)
    return problems_of(expected.replace(b"\n", b"\r\n"), read, "the terminal")


def into_full_device(run: Write, folder: Path, expected: bytes) -> list[str]:
    ended = run(*COMPARE, "/dev/full")
    return Finished(ended.returncode, ended.stderr.decode()).refusal_problems("^cclnet: /dev/full cannot be written")


def over_what_a_killed_writer_has_left(run: Write, folder: Path, expected: bytes) -> list[str]:
    subprocess.run([sys.executable, "-c", IS_KILLED, str(folder / "m.csv")], cwd=PROJECT, check=False)
    left = len(list(folder.glob("m.csv.*.partial")))
    run(*COMPARE, "m.csv")
    problems = problems_of(1, left, "what was left") + problems_of(expected, (folder / "m.csv").read_bytes(), "m.csv")
    return problems + problems_of([], list(folder.glob("m.csv.*")), "what is left")


WRITTEN: dict[str, Callable[[Write, Path, bytes], list[str]]] = {
    "link": through_link,
    "dangling link": through_dangling_link,
    "link into DVC's cache": through_link_into_a_cache,
    "named pipe": into_fifo,
    "-": into_standard_output("-"),
    "/dev/stdout": into_standard_output("/dev/stdout"),
    "/dev/stdout of a file that is appended to": into_a_file_that_is_appended_to,
    "/dev/fd": into_descriptor,
    "terminal": into_terminal,
    "/dev/full": into_full_device,
    "partial file of a killed writer": over_what_a_killed_writer_has_left,
}


def nothing(folder: Path) -> None:
    """No preparation."""


def a_protected_file(folder: Path) -> None:
    (folder / "protected").write_bytes(b"precious")
    (folder / "protected").chmod(0o444)


def a_circle(folder: Path) -> None:
    (folder / "circle").symlink_to("circle")


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "its own input": (nothing, "a.csv"),
    "below a file": (nothing, "a.csv/m.json"),
    "write-protected": (a_protected_file, "protected"),
    "links in a circle": (a_circle, "circle"),
    "too long a name": (nothing, "n" * 256),
    "/proc": (nothing, "/proc/m.json"),
}


# several writers


def writers(bench: Bench) -> list[Row]:
    """Files that several processes write at the same time, and whose writers are killed at random."""
    together, killed = Row("a file read while three processes write it"), Row("SIGKILL of a writer at random moments")
    path = bench.folder / "written"
    pipes: dict[str, Any] = {"cwd": PROJECT, "stdout": subprocess.PIPE, "text": True}
    line = [sys.executable, "-c", TWO_WRITERS, str(path)]
    whole = [letter * 8 * 4096 for letter in (b"a", b"b", b"c")]
    processes = [subprocess.Popen([*line, letter, "5"], **pipes) for letter in "abc"]
    while any(process.poll() is None for process in processes):
        with suppress(FileNotFoundError):
            together.add("read", [] if path.read_bytes() in whole else ["a mixture"])
    together.remark = f"{sum(int(process.communicate()[0]) for process in processes):,} times written"

    chance = random.Random(2)  # noqa: S311
    for number in range(40):
        process = subprocess.Popen([*line, "a", "60"], **pipes)
        time.sleep(chance.uniform(0.0, 0.5))
        process.kill()
        process.communicate()
        problems = [] if path.read_bytes() in whole else ["half a file"]
        left = len(list(path.parent.glob("written.*.partial")))
        problems += [f"{left} partial files"] if left > 1 else []
        killed.add(f"the {number + 1}th", problems)
    subprocess.run([*line, "b", "0"], cwd=PROJECT, stdout=subprocess.DEVNULL, check=True)
    killed.add("then a writer that is left alone", problems_of([], list(path.parent.glob("written.*")), "what is left"))
    return [together, killed]


# DVC


def orphans(bench: Bench) -> list[Row]:
    """DVC killed while its stage trains: the stage ends after its step. What DVC has not started goes on."""
    row, seconds = Row("DVC killed while its train stage runs"), []
    for kill in (signal.SIGKILL, signal.SIGTERM):
        for shell in ("/bin/bash", "/bin/sh"):
            run = bench.copy(block={"epochs": 400, "milestones": []})
            under_dvc(run)
            dvc = start_dvc(run, shell)
            trainer = trainer_of(run, dvc)
            dvc.send_signal(kill)
            killed = time.monotonic()
            dvc.wait()
            problems = [] if ends_within(trainer, 60) else ["the trainer goes on"]
            seconds.append(time.monotonic() - killed)
            problems += problems_of(True, bool(run.states()), "a state is kept") + no_traceback(
                (run.folder / "stderr").read_text()
            )
            problems += ["a result is written"] * (run.folder / MODEL).exists()
            row.add(f"{kill.name}, {shell}", problems)
    row.remark = f"the trainer ended within {max(seconds):.1f} s"

    by_hand = Row("the parent of a trainer that was started by hand killed")
    run = bench.copy()
    script = f"{sys.executable} -m stages.train & echo $! > pid; wait"
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    parent = subprocess.Popen(["sh", "-c", script], cwd=run.folder, env=environment(bench.code), **pipes)
    while not ((run.folder / "pid").exists() and (run.folder / "pid").read_text()):
        time.sleep(0.05)
    trainer = int((run.folder / "pid").read_text())
    time.sleep(1)
    parent.kill()
    parent.wait()
    ends_within(trainer, TIMEOUT)
    difference = run.missing_files("train") + run.wrong_files()
    by_hand.add("SIGKILL", difference, equal=not difference)
    return [row, by_hand]


def under_dvc(run: Run) -> None:
    """Make a run's folder a DVC project with the code in it."""
    for package in ("cclnet", "stages"):
        shutil.copytree(run.code / package, run.folder / package)
    shutil.copy(PROJECT / "dvc.yaml", run.folder)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=run.folder, check=True)


def start_dvc(run: Run, shell: str) -> subprocess.Popen[str]:
    inherited = environment(run.folder) | {
        "SHELL": shell,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    line = [sys.executable, "-m", "dvc", "repro", "--single-item", "train"]
    with (run.folder / "stderr").open("w") as stderr:
        return subprocess.Popen(
            line, cwd=run.folder, env=inherited, stdout=subprocess.DEVNULL, stderr=stderr, text=True
        )


def trainer_of(run: Run, dvc: subprocess.Popen[str]) -> int:
    """The process that trains, once it has kept a state."""
    while not run.states():
        if dvc.poll() is not None:
            raise RuntimeError(f"DVC ended: {(run.folder / 'stderr').read_text()}")
        time.sleep(0.05)
    return int((run.folder / ".cclnet" / "training.lock").read_text().split()[0])


def ends_within(process: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if b") Z " in Path(f"/proc/{process}/stat").read_bytes():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    return False


# the user's own files


def user_files(bench: Bench) -> list[Row]:
    """Files of the user's in the place of outputs, and sources that hold outputs: refused, and every byte kept."""
    row = Row("the user's only copies where outputs belong")
    names = [Path(path).name for path in outputs_of("download") if path.startswith("data/raw/")]
    for source in ("data/raw", "data", ".", "official", "drawn", "images", "models"):
        for stage in ("params", "download"):
            run = bench.copy(block={"source": source})
            shutil.rmtree(run.folder / "data")
            for folder in ("data/raw", "images", "models"):
                (run.folder / folder).mkdir(parents=True)
                for name in names:
                    (run.folder / folder / name).write_text(f"the only copy of {name}")
            before = contents(run.folder)
            problems = stage_problems(run, stage)
            row.add(
                f"{stage} with source: {source}", problems + problems_of(before, contents(run.folder), "the folder")
            )
    for key, file in (("weights", MODEL), ("soft_label_source", Path("metrics/figures/votes.csv"))):
        changes: dict[str, Any] = {key: str(file)}
        run = bench.copy(results=True, **changes)
        (run.folder / file).touch()
        before = contents(run.folder)
        problems = stage_problems(run, "params")
        row.add(f"{key}: {file}", problems + problems_of(before, contents(run.folder), "the folder"))
    return [row]


# files between the stages


def _text(change: Callable[[list[str]], list[str]]) -> Callable[[bytes], bytes]:
    return lambda data: "\n".join(change(data.decode().splitlines())).encode() + b"\n"


def _swapped_offsets(lines: list[str]) -> list[str]:
    one, other = lines[1].split(","), lines[2].split(",")
    one[3], other[3] = other[3], one[3]
    return [lines[0], ",".join(one), ",".join(other), *lines[3:]]


SPOILT: dict[str, dict[str, Callable[[bytes], bytes]]] = {
    "data/images.npy": {
        "cut": lambda data: data[:-1000],
        "zeroed": lambda data: data[:128] + bytes(len(data) - 128),
        "of another type": lambda data: data.replace(b"'|u1'", b"'|i1'", 1),
        "with another pixel": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        "empty": lambda data: b"",
        "a pickle": lambda data: b"\x80\x04N.",
    },
    "data/images.csv": {
        "with offsets swapped": _text(_swapped_offsets),
        "with an image twice": _text(lambda lines: [*lines, lines[1]]),
        "without an image": _text(lambda lines: [lines[0], *lines[2:]]),
        "with another header": _text(lambda lines: ["a,b,c,d,e", *lines[1:]]),
    },
    "data/images.json": {"not JSON": lambda data: data[:-3], "a list": lambda data: b"[]", "empty": lambda data: b""},
    "data/split.csv": {
        "with an image in both subsets": _text(
            lambda lines: [
                *lines,
                lines[1].rpartition(",")[0] + (",train" if "validation" in lines[1] else ",validation"),
            ]
        ),
        "with an image twice": _text(lambda lines: [*lines, lines[1]]),
        "with an unknown label": _text(
            lambda lines: [lines[0], lines[1].replace(lines[1].split(",")[1], "XYZ"), *lines[2:]]
        ),
        "with a misspelt subset": _text(lambda lines: [lines[0], f"{lines[1].rpartition(',')[0]},trian", *lines[2:]]),
        "with an image that is not there": _text(lambda lines: [*lines, "nobody,NV,nobody,train"]),
        "empty": lambda data: b"",
    },
    "data/classes.json": {
        "cut": lambda data: data[:10],
        "with a class twice": lambda data: b'["MEL", "MEL"]',
        "a number": lambda data: b"7",
        "with another class": lambda data: data.replace(b"NV", b"XY"),
    },
    "metrics/predictions.csv": {
        "cut": lambda data: data[: len(data) // 2],
        "with a probability of 2": _text(lambda lines: [*lines[:-1], lines[-1].rpartition(",")[0] + ",2.0"]),
        "empty": lambda data: b"",
    },
    "metrics/soft_labels.json": {
        "cut": lambda data: data[:-9],
        "empty": lambda data: b"",
        "a list": lambda data: b"[1]",
    },
    "metrics/similarity.json": {
        "cut": lambda data: data[:-9],
        "empty": lambda data: b"",
        "of other classes": lambda data: data.replace(b'"NV"', b'"XY"'),
    },
    **{
        f"metrics/{name}.csv": {"cut": lambda data: data[: len(data) // 2], "empty": lambda data: b""}
        for name in ("classes", "reliability", "scores")
    },
    "metrics/confusion.json": {"cut": lambda data: data[:-9], "a list": lambda data: b"[1]"},
    "metrics/history.csv": {"empty": lambda data: b"", "with words": lambda data: data.replace(b"0.", b"x.")},
    "data/provenance.json": {"cut": lambda data: data[:-3], "of words": lambda data: b'["a"]'},
    "models/conditions.json": {"cut": lambda data: data[:-3], "a list": lambda data: b"[]"},
}


def spoilt_files(bench: Bench) -> list[Row]:
    """Every file between the stages, spoilt: each stage that reads it refuses it in one line and changes nothing."""
    row = Row("a spoilt file between the stages")

    def case(which: tuple[str, str, str]) -> None:
        path, how, stage = which
        run = bench.copy(results=True)
        data = (run.folder / path).read_bytes()
        spoilt = SPOILT[path][how](data)
        (run.folder / path).write_bytes(spoilt)
        before = contents(run.folder)
        problems = ["was not spoilt"] * (spoilt == data) + stage_problems(run, stage)
        after = {name: found for name, found in contents(run.folder).items() if not name.startswith(".cclnet")}
        row.add(f"{path} {how}, {stage}", problems + problems_of(True, before == after, "the folder is as before"))

    cases = [
        (path, how, stage)
        for path, ways in SPOILT.items()
        for how in ways
        for stage in ("train", "evaluate", "plot", "report")
        if path in inputs_of(stage) and (path, how, stage) not in NOT_NOTICED
    ]
    in_parallel(case, cases)
    return [row]


NOT_NOTICED = {
    ("data/split.csv", "with an unknown label", "report"),
    ("data/split.csv", "with an image that is not there", "report"),
}
"""What makes no difference to a stage."""


# files and folders that are not as they should be


def places(bench: Bench) -> list[Row]:
    """Every stage with inputs that are missing, unreadable or folders, and outputs whose place is not free."""
    missing, folders = Row("no inputs yet"), Row("a folder in the place of an input")
    unreadable, taken = Row("an input that may not be read"), Row("a file in the place of the outputs' folder")
    output, read_only = Row("a folder in the place of an output"), Row("a project that is mounted read-only")
    for stage in STAGES:
        if inputs := inputs_of(stage):
            run = bench.copy()
            shutil.rmtree(run.folder / "data")
            missing.add(stage, stage_problems(run, stage))
        for path in inputs:
            run = bench.copy(results=True)
            (run.folder / path).unlink()
            (run.folder / path).mkdir()
            folders.add(f"{stage}: {path}", stage_problems(run, stage))
            if not path.endswith(".safetensors"):  # read below Python, where root may read everything
                run = bench.copy(results=True)
                unreadable.add(f"{stage}: {path}", stage_problems(run, stage, "unreadable", Path(path).name))
        for path in outputs_of(stage):
            place = path if stage == "plot" else str(Path(path).parent)  # the output of plot is a folder
            if not any(Path(read).is_relative_to(place) for read in inputs):
                run = bench.copy(results=True)
                shutil.rmtree(run.folder / place)
                (run.folder / place).write_bytes(b"in the way")
                taken.add(f"{stage}: {place}", stage_problems(run, stage))
            if stage != "plot":
                run = bench.copy(results=True)
                (run.folder / path).unlink(missing_ok=True)
                (run.folder / path / "full").mkdir(parents=True)
                output.add(f"{stage}: {path}", stage_problems(run, stage))
        run = bench.copy(results=True)
        read_only.add(stage, stage_problems(run, stage, namespace=True))
    return [missing, folders, unreadable, taken, output, read_only]


def inputs_of(stage: str) -> list[str]:
    """What it reads of other stages; that the params were checked is for DVC alone."""
    tops = ("data", "metrics", "models")
    deps = [dep for dep in PIPELINE[stage]["deps"] if dep.split("/")[0] in tops]
    return [dep for dep in deps if dep != "data/params_checked.txt"]


def outputs_of(stage: str) -> list[str]:
    listed = [item for kind in ("outs", "metrics", "plots") for item in PIPELINE[stage].get(kind, [])]
    return [item if isinstance(item, str) else next(iter(item)) for item in listed]


def stage_problems(run: Run, stage: str, *fault: str, namespace: bool = False) -> list[str]:
    """Why a stage does not end with one line and its folder as before."""
    if namespace:  # a view of the file system of its own, in which the folder is mounted read-only
        script = 'mount --bind "$PWD" "$PWD" && mount -o remount,bind,ro "$PWD" && cd "$PWD" && exec "$@"'
        line = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-m", f"stages.{stage}"]
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        ended = finished(subprocess.Popen(line, cwd=run.folder, env=environment(run.code), **pipes))
    else:
        ended = run.run(stage, *fault)
    first = Finished(ended.status, ended.stderr)
    problems = [] if ended.status == 1 else [f"exit status {ended.status}"]
    lines = first.messages
    if "Traceback" in ended.stderr or not lines or not lines[0].startswith(f"{stage}: "):
        problems.append(f"no line of its own: {ended.stderr[-300:]!r}")
    left = [str(path.relative_to(run.folder)) for path in run.folder.rglob("*.partial")]
    return problems + problems_of([], left, "what is left")


# file systems that lack something

LACKS = ("flock", "flock-ENOSYS", "fcntl", "fsync", "fsync-of-folders", "rename")
WARNINGS = {
    "flock": "cannot be locked here",
    "fsync": "cannot be flushed to the disk",
    "rename": "cannot be replaced, so it is overwritten",
}


def file_systems(bench: Bench) -> list[Row]:
    """Without locks, flushing or renaming the stages end with the same bytes, after one line about it."""
    row = Row("a file system that lacks something")

    def case(which: tuple[str, str]) -> None:
        lack, stage = which
        run = bench.copy(results=stage != "train" or lack == "rename")
        ended = run.run(stage, "lacks", lack)
        expected = next((words for start, words in WARNINGS.items() if lack.startswith(start)), WARNINGS["flock"])
        lines = [line for line in ended.messages if expected in line]
        warned = lines if stage == "train" or not lack.startswith(("flock", "fcntl")) else ["no lock is taken"]
        problems = problems_of(0, ended.status, "status") + no_traceback(ended.stderr)
        problems += [f"no warning: {ended.stderr!r}"] * (not warned)
        problems += problems_of(len(lines), len(ended.messages), "lines")
        difference = run.missing_files(stage) + run.wrong_files()
        row.add(f"{stage} without {lack}", problems + difference, equal=not difference)

    in_parallel(case, [(lack, stage) for lack in LACKS for stage in ("train", "resize", "plot")])
    return [row]


# streams and signals

STREAMS = {
    ">&-": 0,
    "2>&-": 0,
    "<&- >&- 2>&-": 0,
    "| sleep 0": 141,
    "2>&1 | sleep 0": 141,
    "> /dev/full": 1,
}


def streams(bench: Bench) -> list[Row]:
    """Closed streams, readers that are gone, a full disk behind standard output, other encodings, Ctrl-C."""
    closed, encodings = Row("streams closed, full or without a reader"), Row("a terminal of another encoding")
    interrupted = Row("SIGINT at random moments from the first library on")
    run, folder = bench.copy(results=True), bench.folder / "streams"
    make_experiments(folder)
    for redirection, status in STREAMS.items():
        for words, where in ((f"cclnet {' '.join(COMPARE[:-1])}", folder), ("stages.split", run.folder)):
            script = f'"$0" -m {words} {redirection}; echo "${{PIPESTATUS[0]}}" > status'
            ended = subprocess.run(
                ["bash", "-c", script, sys.executable],
                cwd=where,
                env=environment(bench.code),
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
            found = int((where / "status").read_text())
            problems = no_traceback(ended.stderr) + problems_of(status, found, "status")
            problems += problems_of("", "\n".join(ended.stderr.splitlines()[1:]), "what follows the first line")
            closed.add(f"{words} {redirection}", problems + run.wrong_files())
    for encoding in ("ascii", "latin-1"):
        for module, arguments in (("cclnet", ["matrix", str(MODEL)]), ("stages.train", [])):
            inherited = environment(bench.code) | {"PYTHONIOENCODING": encoding}
            line = [sys.executable, "-m", module, *arguments]
            ended = subprocess.run(
                line, cwd=run.folder, env=inherited, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
            encodings.add(f"{module}, {encoding}", problems_of((0, ""), (ended.returncode, ended.stderr), "the end"))

    chance = random.Random(3)  # noqa: S311

    def case(which: tuple[str, float]) -> None:
        module, seconds = which
        line = [sys.executable, "-m", module, *(COMPARE[:-1] if module == "cclnet" else ())]
        where = folder if module == "cclnet" else run.folder
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(line, cwd=where, env=environment(bench.code), **pipes)
        while not loads_libraries(process):
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        ended = finished(process)
        problems = no_traceback(ended.stderr)
        problems += [] if ended.status in (0, 130, -signal.SIGINT) else [f"status {ended.status}"]
        interrupted.add(f"{module} after {seconds:.2f} s", problems)

    in_parallel(case, [(module, chance.uniform(0, 2)) for module in ("cclnet", "stages.evaluate") for _ in range(15)])
    return [closed, encodings, interrupted]


def loads_libraries(process: subprocess.Popen[str]) -> bool:
    """Whether it loads libraries; before that Python itself starts, which answers Ctrl-C with a traceback."""
    with suppress(OSError):
        maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
        return process.poll() is not None or "_lzma" in maps or "pydantic_core" in maps
    return True


# schedulers

LEFT_BEHIND = (
    {"WORLD_SIZE": "4"},
    {"WORLD_SIZE": "4", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
    {"WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
    {"WORLD_SIZE": "%n", "RANK": "%t", "TORCHELASTIC_RUN_ID": "1"},
)


def schedulers(bench: Bench) -> list[Row]:
    """Variables of processes that nobody has started; one of two processes stopped, and their launcher asked to end."""
    alone, stopped = Row("WORLD_SIZE left in the environment"), Row("SIGTERM to a launcher with a stopped process")
    for variables in LEFT_BEHIND:
        run = bench.copy()
        process = start_train(run, **variables)
        ended = finished(process)
        said = f"WORLD_SIZE={variables['WORLD_SIZE']} is set, but not by torchrun: this process trains alone\n"
        problems = problems_of((0, said), (ended.status, ended.stderr), "the end")
        difference = run.missing_files("train") + run.wrong_files()
        alone.add(json.dumps(variables), problems + difference, equal=not difference)
    for number in (0, 1):
        run = two_processes(bench)
        launcher = start_train(run)
        wait_for_lock(run, launcher)
        workers = sorted(children_of(launcher.pid))
        os.kill(workers[number], signal.SIGSTOP)
        time.sleep(0.5)
        launcher.terminate()
        asked = time.monotonic()
        ended = finished(launcher)
        problems = ended.refusal_problems("^train: ended by SIGTERM; what is done is kept", 143)
        problems += problems_of(True, bool(run.states()), "a state is kept")
        stopped.add(f"worker {number}, ended in {time.monotonic() - asked:.1f} s", problems)
    return [alone, stopped]


def start_train(run: Run, **variables: str) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    line: Sequence[str] = [sys.executable, "-m", "stages.train"]
    return subprocess.Popen(line, cwd=run.folder, env=environment(run.code) | variables, **pipes)


def children_of(process: int) -> list[int]:
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(number) for listed in lists for number in listed.read_text(encoding="ascii").split()]


CAMPAIGNS: dict[str, Callable[[Bench], list[Row]]] = {
    "outputs": outputs,
    "writers": writers,
    "orphans": orphans,
    "user-files": user_files,
    "spoilt-files": spoilt_files,
    "places": places,
    "file-systems": file_systems,
    "streams": streams,
    "schedulers": schedulers,
}
