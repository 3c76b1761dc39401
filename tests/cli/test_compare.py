"""``cclnet compare``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.builders import PROJECT

PREDICTIONS = "image,MEL,NV\na,0.75,0.25\nb,0.5,0.5\nc,0.25,0.75\n"
SPLIT = "image,label,lesion,subset\na,MEL,L1,validation\nb,NV,L2,validation\nc,NV,L3,validation\nd,NV,L4,train\n"


@pytest.fixture
def predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the process runs: a.csv and b.csv, that alone predicts all three images, and the labels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(PREDICTIONS)
    (tmp_path / "b.csv").write_text(PREDICTIONS.replace("0.5,0.5", "0.25,0.75"))
    (tmp_path / "labels.csv").write_text(SPLIT)
    return tmp_path


def test_compare_prints_and_writes_what_it_finds(run, predictions: Path):
    status, out, err = run("compare", "a.csv", "b.csv", "--labels", "labels.csv", "--json", "new/difference.json")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "A a.csv, B b.csv: 3 validation images of 3 lesions"
    assert lines[2].split()[:4] == ["accuracy", "0.6667", "1.0000", "+0.3333"]
    written = (predictions / "new" / "difference.json").read_text(encoding="utf-8")
    found = json.loads(written)
    assert list(found) == [
        *("a", "b", "conclusion", "images", "lesions"),
        *("mcnemar", "metrics", "sensitivity", "soft_labels"),
    ]
    assert (found["a"], found["b"], found["images"]) == ("a.csv", "b.csv", 3)
    assert found["mcnemar"] == {"only_a": 0, "only_b": 1, "p": 1}
    assert found["conclusion"] == lines[-1]
    alone = run("compare", "a.csv", "b.csv", "--labels", "labels.csv", "--json", "-")
    assert (alone.status, alone.out) == (0, written)


def test_compare_writes_a_page(run, predictions: Path):
    printed = run("compare", "a.csv", "b.csv", "--labels", "labels.csv")
    arguments = ("compare", "a.csv", "b.csv", "--labels", "labels.csv", "--html")
    assert run(*arguments, "new/difference.html") == printed
    page = (predictions / "new" / "difference.html").read_text(encoding="utf-8")
    assert "<h1>a.csv and b.csv</h1>" in page
    assert printed.out.splitlines()[-1].replace("<", "&lt;").replace("'", "&#39;") in page
    command = [sys.executable, "-m", "cclnet", *arguments, "-", "--json", "difference.json"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    alone = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (alone.returncode, alone.stdout, alone.stderr) == (0, page, "")
    assert json.loads((predictions / "difference.json").read_text(encoding="utf-8"))["images"] == 3


def test_compare_does_not_write_over_its_input(run, predictions: Path):
    status, out, err = run("compare", "a.csv", "b.csv", "--labels", "labels.csv", "--html", "b.csv")
    assert (status, out) == (1, "")
    assert err == "cclnet: b.csv is also read: choose another file to write\n"


def test_compare_of_what_cannot_be_read_ends_with_1(run, predictions: Path):
    status, out, err = run("compare", "a.csv", "b.csv", "--json", "-")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "cclnet: a.csv cannot be read: correct what follows or name another experiment",
        "  split.csv: is missing; --labels names another for prediction files",
    ]
