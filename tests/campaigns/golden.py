"""The whole chain in small, in one process: what comes out, as a sha256 for each file.

    python -m tests.campaigns.golden FOLDER [portable | native]
    python -m tests.campaigns.golden --write

It runs the stages' own code on a hundred drawn images and one epoch of two steps, in FOLDER, and prints the table as
JSON, or writes it to ``golden.json``: the hashes that ``portable`` gives on every x86-64 processor with AVX2.
"""

import hashlib
import json
import os
import sys
import tempfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]
STAGES = ("download", "split", "resize", "train", "evaluate", "plot", "report")


def small_params(processor: str) -> dict:
    """The project's params, cut down to seconds."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    params["sample"] |= {"images": 100, "imbalance": 3.0}
    params["device"] = "cpu"
    # few and small: an emulated processor computes a hundred times slower
    params["datasets"]["sample"] |= {"short_side": 18, "crop": 16, "epochs": 1, "milestones": [], "batch_size": 40}
    params["datasets"]["sample"] |= {"processor": processor, "threads": 2}
    return params


def run_chain(folder: Path, processor: str) -> dict[str, str]:
    """Run all stages in a folder; gives path → sha256 of every file that they leave."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    os.environ.pop("DVC_ROOT", None)
    Path("params.yaml").write_text(yaml.safe_dump(small_params(processor)), encoding="utf-8")
    sys.path.insert(0, str(PROJECT))
    for stage in STAGES:
        import_module(f"stages.{stage}").main()
    files = sorted(path for top in ("data", "models", "metrics") for path in Path(top).rglob("*") if path.is_file())
    return {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_golden() -> None:
    """Commit to what this machine gives."""
    golden = Path(__file__).resolve().with_name("golden.json")
    with tempfile.TemporaryDirectory() as folder:
        hashes = run_chain(Path(folder), "portable")
    versions = {
        name: version(name) for name in ("matplotlib", "numpy", "pandas", "pillow", "scipy", "torch", "torchvision")
    }
    golden.write_text(json.dumps({"sha256": hashes, "versions": versions}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        write_golden()
    else:
        print(json.dumps(run_chain(Path(sys.argv[1]).resolve(), *sys.argv[2:] or ["portable"]), indent=2))
