"""Every command of the documentation, run as a reader would type it: README.md, then docs/.

    make walkthrough
    python -m tests.campaigns.walkthrough [DOCUMENT …]

What is committed is cloned into a temporary folder, which is also the home folder; there, every dataset is cut down to
seconds and the results of that are committed. Then the ```bash blocks of each document run in one shell, from top to
bottom, in a fresh clone of it that goes back to what was committed after each. The environment is this checkout's.

A block is left out if the line above it says so and why: ``<!-- not run: needs a GPU -->``. Some ten minutes on two
cores; needs git. Exit status 0: every command ended with 0; 1 otherwise, and the last lines say which did not.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.campaigns.golden import PROJECT, small_params

FIRST = ("README.md", "docs/use/tutorial.md", "docs/use/how-to.md")
BLOCK = re.compile(r"(?P<above>^.*\n)?^ *```(?P<language>.*)\n(?P<lines>(?:.*\n)*?)^ *```$", re.MULTILINE)
NOT_RUN = re.compile(r" *<!-- not run: \S.* -->\n")
FAR_FUTURE = 4_102_444_800  # 2100
OTHER_SHELLS = ("sh", "shell", "console", "zsh")

# the first line of a script, in place of the document's title: say what fails, and what runs, when and where
PRELUDE = (
    "exec 2>&1; set -eE -o pipefail; "
    r"""trap 'printf "%s:%s: exit status %s\n" "$0" "$LINENO" "$?"' ERR; """
    r"""trap 'printf "\n[%3d s] %s:%s $ %s\n" "$SECONDS" "$0" "$LINENO" "$BASH_COMMAND"' DEBUG"""
)


def script_of(document: str) -> str:
    """A document's commands as a script of bash, each at the line that it has in the document.

    Raises:
        ValueError: a block for a shell is not marked as bash, or is left out without a reason.
    """
    script = [""] * len(document.splitlines())
    script[0] = PRELUDE
    for block in BLOCK.finditer(document):
        first = document.count("\n", 0, block.start("lines"))
        if block["language"] in OTHER_SHELLS:
            raise ValueError(f"line {first}: write ```bash, or the commands are not run")
        left_out = NOT_RUN.fullmatch(block["above"] or "")
        if "not run" in (block["above"] or "") and not left_out:
            raise ValueError(f"line {first - 1}: say why in the form <!-- not run: REASON -->")
        if block["language"] == "bash" and not left_out:
            lines = block["lines"].splitlines()
            script[first : first + len(lines)] = lines
    return "\n".join(script)


def documents(named: Sequence[str] = ()) -> list[str]:
    """The documents from the project's root in the order in which they are read: all, or those named and the first."""
    found = [path.relative_to(PROJECT).as_posix() for path in sorted(PROJECT.glob("docs/*/*.md"))]
    ordered = [*FIRST, *(name for name in found if name not in FIRST)]
    return [name for name in ordered if not named or name in (FIRST[0], *named)]


def reader_s_environment(home: Path, clone: Path) -> dict[str, str]:
    """The variables of a reader who has a home folder, a name for git and the environment activated."""
    (home / ".gitconfig").write_text("[user]\n\tname = A reader\n\temail = reader@localhost\n", encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name in ("LANG", "TERM", "TMPDIR")}
    return kept | {
        "PATH": os.pathsep.join([str(clone / ".venv" / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(clone),  # what is installed, editable, is this checkout
        "HOME": str(home),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait by spinning starve the others of a busy machine
    }


def clone_of(origin: Path, clone: Path) -> None:
    """Clone a repository and let it use the environment of this checkout as one that is up to date."""
    subprocess.run(["git", "clone", "--quiet", str(origin), str(clone)], check=True)
    environment = clone / ".venv"
    environment.mkdir()
    for entry in (PROJECT / ".venv").iterdir():
        if entry.name != "installed":
            (environment / entry.name).symlink_to(entry)
    # newer than whatever a command checks out, else make would install the clone in the place of this checkout
    (environment / "installed").touch()
    os.utime(environment / "installed", (FAR_FUTURE, FAR_FUTURE))
    with (clone / ".git" / "info" / "exclude").open("a", encoding="utf-8") as file:
        file.write(".venv\n")


def commit_small_results(clone: Path, environment: dict[str, str]) -> None:
    """Cut the datasets down to seconds and commit what comes out."""
    params = small_params("portable")
    sample = params["datasets"]["sample"]
    for block in params["datasets"].values():
        block |= {key: sample[key] for key in ("short_side", "crop", "epochs", "milestones", "batch_size", "threads")}
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    for command in (
        ["git", "checkout", "--quiet", "-B", "main"],  # CI checks out a commit, not a branch
        ["make", "repro"],
        ["git", "commit", "--quiet", "--all", "--message", "The sample in small"],
    ):
        subprocess.run(command, cwd=clone, env=environment, check=True)


def tidy(clone: Path, environment: dict[str, str]) -> None:
    """Put a clone back to what was committed, with the model and all that belongs to it."""
    for command in (["git", "reset", "--quiet", "--hard", "origin/HEAD"], ["dvc", "checkout", "--quiet"]):
        subprocess.run(command, cwd=clone, env=environment, check=True)


def main(named: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        origin, clone = home / "origin", home / "cclnet"
        environment = reader_s_environment(home, clone)
        started = time.monotonic()
        clone_of(PROJECT, origin)
        commit_small_results(origin, reader_s_environment(home, origin))
        clone_of(origin, clone)
        shutil.copytree(origin / "data" / "raw", home / "isic2018")  # stands for the official files
        for name in documents(named):
            script = script_of((clone / name).read_text(encoding="utf-8"))
            clock = {"SECONDS": f"{time.monotonic() - started:.0f}"}
            finished = subprocess.run(
                ["bash", "-c", script, name], cwd=clone, env=environment | clock, stdin=subprocess.DEVNULL, check=False
            )
            if finished.returncode:
                print(f"walkthrough: {name} ended with exit status {finished.returncode}")
                return 1
            tidy(clone, environment)
        print(f"walkthrough: all commands ran, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
