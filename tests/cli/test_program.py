import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cclnet import __version__
from tests.cli.builders import COUNTS, PROJECT, without_notes

# the program


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_the_commands(run, arguments: list[str]):
    shown = run(*arguments)
    for words in ("Usage: cclnet", "check", "predict", "evaluate", "matrix", "compare", "--version"):
        assert words in shown.out


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ("check", "cclnet check data/raw --json problems.json"),
        ("init", "cclnet init my-project --data photos"),
        ("predict", "cclnet predict models/model.safetensors photos/ more.zip one.png -o predictions.csv"),
        ("evaluate", "cclnet evaluate models/model.safetensors --images ISIC2018_Task3_Test_Input.zip --labels"),
        ("info", "cclnet info models/model.safetensors --json -"),
        ("matrix", "cclnet matrix models/model.safetensors --csv matrix.csv --figure matrix.png"),
        ("compare", "cclnet compare HEAD muggy-tuna --html difference.html --json difference.json"),
    ],
)
def test_help_of_a_command_has_an_example(run, command: str, example: str):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert example in out


@pytest.mark.parametrize(
    "command", ["check", "init", "predict", "evaluate", "info", "matrix", "compare", "export", "similar"]
)
def test_h_is_short_for_help(run, command: str):
    assert run(command, "-h") == run(command, "--help")
    assert f"Usage: cclnet {command}" in run(command, "-h").out


def test_the_command_is_installed():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"cclnet": "cclnet.__main__:main"}


def test_the_version(run):
    assert run("--version") == (0, f"cclnet {__version__}\n", "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("cclnet in", ["info", "init"]), ("cclnet export m --on", ["--onnx"]), ("cclnet info --j", ["--json"])],
)
def test_a_shell_completes_commands_and_options(run, monkeypatch: pytest.MonkeyPatch, typed: str, offered: list[str]):
    monkeypatch.setenv("_CCLNET_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    status, out, err = run()
    assert (status, sorted(out.split()), err) == (0, offered, "")


@pytest.mark.parametrize(("shell", "line"), [("bash", "complete -o default -F"), ("zsh", "#compdef cclnet")])
def test_completion_can_be_shown_for_a_shell(run, monkeypatch: pytest.MonkeyPatch, shell: str, line: str):
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    status, out, err = run("--show-completion")
    assert (status, err) == (0, "")
    assert line in out


@pytest.mark.parametrize(
    "arguments", [["check", ""], ["predict", "model", ""], ["compare", "", "b"], ["compare", "a", "b", "--labels="]]
)
def test_an_empty_argument_is_not_taken_for_the_current_folder(run, arguments: list[str]):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "an argument is empty" in err


@pytest.mark.parametrize(
    "arguments", [["chekc"], ["check"], ["check", "data", "--jsn"], ["check", "a", "b"], ["compare", "a"]]
)
def test_wrong_usage(run, arguments: list[str]):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Usage: cclnet" in err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["check", "nothing"], 2),
        (["predict", "model", "nothing"], 1),
        (["compare", "a.csv", "b.csv"], 1),
    ],
)
def test_light_commands_do_without_torch(arguments: list[str], status: int):
    code = (
        "import sys\nfrom cclnet.__main__ import main\n"
        "try: main(sys.argv[1:])\nfinally: assert 'torch' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", code, *arguments], cwd=PROJECT, capture_output=True, text=True)
    assert "AssertionError" not in ended.stderr
    assert ended.returncode == status


def test_the_module_is_the_program(good: Path):
    command = [sys.executable, "-m", "cclnet", "check", str(good)]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert ended.returncode == 0
    assert without_notes(ended.stdout) == f"no problem: 7 images, 7 labels, 6 lesions\n{COUNTS}\n"
    assert ended.stderr == "images decoded: 7 of 7 (100%)\n"


# outputs and ends of several commands


@contextmanager
def standard_output_in(file: Path) -> Iterator[None]:
    """Redirect the process's standard output below Python, as a shell does."""
    before = os.dup(1)
    with file.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_standard_output_gets_nothing_but_what_it_is_asked_for(run, model: Path, output: str):
    commands: dict[str, list[str]] = {
        "p.csv": ["predict", "model", "in.zip", "-o"],
        "p.json": ["predict", "model", "in.zip", "--json"],
        "m.json": ["evaluate", "model", "--images", "in.zip", "--labels", "truth.csv", "-o"],
        "m.csv": ["matrix", "model", "--csv"],
    }
    for name, command in commands.items():
        with standard_output_in(Path("out")):
            ended = run(*command, output)
        assert (ended.status, ended.out) == (0, "")
        assert run(*command, name).status == 0
        assert Path("out").read_bytes() == Path(name).read_bytes()
    assert not Path("-").exists()
    assert Path("/dev/stdout").is_symlink()


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("model", "model is also read"),
        ("truth.csv/x", "truth.csv/x cannot be written: FOLDER/truth.csv is no folder"),
        ("protected", "protected is write-protected"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["predict", "model", "in.zip", "-o"],
        ["predict", "model", "in.zip", "--json"],
        ["evaluate", "model", "--images", "in.zip", "--labels", "truth.csv", "-o"],
        ["evaluate", "model", "--images", "in.zip", "--labels", "truth.csv", "--predictions"],
        ["export", "model", "--onnx"],
        ["matrix", "model", "--csv"],
    ],
    ids=" ".join,
)
def test_an_output_that_cannot_be_written_is_found_out_before_the_work(
    run, model: Path, command: list[str], output: str, problem: str, monkeypatch: pytest.MonkeyPatch
):
    Path("protected").write_bytes(b"precious")
    Path("protected").chmod(0o444)
    before = {path: path.read_bytes() for path in Path.cwd().iterdir()}
    monkeypatch.setattr("cclnet.networks.model.load_model", None)  # the work
    ended = run(*command, output)
    said = f"cclnet: {problem.replace('FOLDER', str(Path.cwd()))}: choose another file to write\n"
    assert ended == (1, "", said)
    assert {path: path.read_bytes() for path in Path.cwd().iterdir()} == before


def test_ctrl_c_and_a_reader_that_is_gone_end_without_a_traceback(run, model: Path, monkeypatch: pytest.MonkeyPatch):
    for error, status, said in (
        (KeyboardInterrupt, 130, "cclnet: interrupted; run it again\n"),
        (BrokenPipeError, 141, ""),
    ):

        def fail(*_: object, error: type[BaseException] = error) -> None:
            raise error

        monkeypatch.setattr("cclnet.cli.model.show_matrix", fail)
        assert run("matrix", model, "--csv", "m.csv") == (status, "", said)
        assert Path("m.csv").exists()


SLOW = """
import sys, time
print("loading", file=sys.stderr, flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    raise ImportError("a part of it cannot be loaded")
"""


@pytest.mark.parametrize(
    ("module", "library", "status", "said"),
    [
        ("cclnet", "typer", 130, "cclnet: interrupted; run it again\n"),
        ("cclnet", "torch", 130, "cclnet: interrupted; run it again\n"),
        ("stages.split", "pydantic", 130, "params: interrupted; run it again\n"),
        ("stages.split", "pandas", -signal.SIGINT, ""),
    ],
)
def test_ctrl_c_while_libraries_load_is_no_traceback(tmp_path: Path, module: str, library: str, status: int, said: str):
    (tmp_path / f"{library}.py").write_text(SLOW, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    command = [sys.executable, "-m", module, *(["matrix", "none"] if module == "cclnet" else [])]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, said)


def test_no_model(run, model: Path):
    for command in (["predict", "none", "in.zip"], ["matrix", "none"]):
        assert run(*command) == (1, "", "cclnet: there is no model none; train one first\n")
