"""The wheel, installed beside its declared dependencies alone and used far away from this checkout."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from cclnet import __version__
from cclnet.experiments.project import create_project
from tests.experiments.builders import write_photos
from tests.project.modules import PROJECT, SOURCES

CHAIN = """
import sys
from importlib import import_module
import stages
stages.prepare()
for stage in sys.argv[1:]:
    import_module(f"stages.{stage}").main()
"""
WITHOUT_EXTRAS = """
import cclnet
from cclnet.export import to_onnx
from cclnet.system.errors import MissingPackageError
for use in (lambda: cclnet.build_backbone("timm/test_vit"), lambda: to_onnx(None, None)):
    try:
        use()
    except MissingPackageError as error:
        print(error)
"""
BATCHES = "import torch\nbatches = iter([(torch.randn(14, 3, 32, 32), torch.arange(14) % 7)])\n"


def needed(name: str, seen: set[str]) -> set[str]:
    """The names of a package and of all that it needs, without its extras."""
    if name in seen:
        return seen
    seen.add(name)
    for requirement in map(Requirement, distribution(name).requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(requirement.name.lower(), seen)
    return seen


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel and what it declares, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    source, environment = folder / "source", folder / "environment"
    for name in ("cclnet", "stages", ".dvc/plots"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "dvc.yaml", "params.yaml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", source, "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run(build, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-index", "--no-deps", wheel], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    for name in needed("cclnet", set()) - {"cclnet"}:
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(found.locate_file(top))))
    return python


def run(python: Path, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it in an empty folder, with nothing of this process's environment that names a place for modules."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    folder = folder or python.parents[2] / "empty"
    folder.mkdir(exist_ok=True)
    return subprocess.run([python, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_environment_has_the_wheel_s_package_and_no_other(python: Path):
    code = "import cclnet, importlib.util as u; print(cclnet.__file__, u.find_spec('timm'), u.find_spec('stages'))"
    file, timm, stages = run(python, "-c", code).stdout.split()
    assert Path(file).is_relative_to(python.parents[1])
    assert (timm, stages) == ("None", "None")


def files_in(folder: Path) -> dict[str, bytes]:
    """The contents of all files but those that Python or git make."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", ".git"} & set(path.parts)
    }


def test_the_wheel_holds_the_package_and_the_pipeline(python: Path):
    (installed,) = python.parents[1].glob("lib/python*/site-packages/cclnet")
    shipped = files_in(installed)
    pipeline = {name: data for name, data in shipped.items() if name.startswith("template/")}
    assert {name: data for name, data in shipped.items() if name not in pipeline} == files_in(PROJECT / "cclnet")
    assert {"py.typed", "views/pages/style.css"} <= set(shipped)
    copied = [PROJECT / "dvc.yaml", PROJECT / "params.yaml", *(PROJECT / "stages").glob("*.py")]
    copied += (PROJECT / ".dvc" / "plots").glob("*.json")
    assert pipeline == {f"template/{path.relative_to(PROJECT).as_posix()}": path.read_bytes() for path in copied}


def test_a_project_of_the_wheel_is_that_of_the_checkout_and_trains(python: Path, tmp_path: Path):
    photos = write_photos(tmp_path / "photos")
    made = run(python, "-m", "cclnet", "init", str(tmp_path / "it"), "--data", str(photos))
    assert (made.returncode, made.stderr) == (0, "")
    create_project(tmp_path / "own", photos)
    assert files_in(tmp_path / "it") == files_in(tmp_path / "own")
    params = (tmp_path / "it" / "params.yaml").read_text(encoding="utf-8")
    small = {"short_side: 64": "short_side: 36", "crop: 56": "crop: 32", "epochs: 32": "epochs: 1"}
    for before, after in {**small, "batch_size: 32": "batch_size: 8"}.items():
        params = params.replace(before, after)
    (tmp_path / "it" / "params.yaml").write_text(params, encoding="utf-8")
    first, *others = yaml.safe_load((tmp_path / "it" / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for command in (["-m", f"stages.{first}"], ["-c", CHAIN, *others]):
        ended = run(python, *command, folder=tmp_path / "it")
        assert ended.returncode == 0, ended.stderr
    assert "cat" in (tmp_path / "it" / "metrics" / "report.html").read_text(encoding="utf-8")


def test_the_program_runs(python: Path):
    assert run(python, "-m", "cclnet", "--version").stdout == f"cclnet {__version__}\n"
    shown = run(python, "-m", "cclnet", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Usage: cclnet" in shown.stdout


def test_every_module_can_be_imported(python: Path):
    modules = sorted(name for name in SOURCES if name.startswith("cclnet"))
    assert len(modules) > 50
    ended = run(python, "-W", "error", "-c", "\n".join(f"import {module}" for module in modules))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_readme_s_example_runs(python: Path):
    (loop,) = re.findall(r"^```python\n(.*?)^```$", (PROJECT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    ended = run(
        python,
        "-W",
        "error",
        "-c",
        f"{BATCHES}{loop}\nprint(criterion.freezing.convergence.converged_epoch, *logits.shape)",
    )
    assert (ended.stdout, ended.stderr) == ("11 14 7\n", "")


def test_what_an_extra_is_needed_for_says_so(python: Path):
    of_timm, of_onnx = run(python, "-c", WITHOUT_EXTRAS).stdout.splitlines()
    assert "timm/test_vit needs timm, which is not installed" in of_timm
    assert "the export to ONNX needs onnx" in of_onnx
