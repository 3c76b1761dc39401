"""Draws the plots of ``dvc.yaml`` from made-up numbers in a browser without network: ``pytest tests/browser.py``.

Not collected by a plain ``pytest``: it needs Chromium, and fails where there is none.
"""

import csv
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
CURVES = [
    *("classification_loss", "ccl_loss", "class_correlation_loss", "softness", "learning_rate", "lr_ccl"),
    *("gradient_norm", "gradient_norm_ccl", "validation_accuracy", "validation_f1", "validation_kappa"),
    *("validation_jaccard", "validation_balanced_accuracy", "validation_nll", "frozen"),
]
ALONE = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
ALONE += ["--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"]
"""Chromium without a window and without a network."""
CHANGE = "against the first commit shown"


def write_metrics(folder: Path, seed: int, head: bool = True) -> np.ndarray:
    """Made-up metrics of a run, as the stages write them; returns its soft-label matrix."""
    rng = np.random.default_rng(seed)
    matrix = rng.dirichlet(np.ones(7), 7)
    counts = rng.integers(0, 50, (7, 7))
    pairs = [(row, column) for row in range(7) for column in range(7)]
    soft_labels = [
        {"true_class": CLASSES[row], "soft_class": CLASSES[column], "value": matrix[row, column]}
        for row, column in pairs
    ]
    confusion = [
        {
            "true_class": CLASSES[row],
            "predicted_class": CLASSES[column],
            "count": int(counts[row, column]),
            "share": counts[row, column] / counts[row].sum(),
        }
        for row, column in pairs
    ]
    folder.mkdir(exist_ok=True)
    (folder / "soft_labels.json").write_text(json.dumps(soft_labels if head else []))
    (folder / "confusion.json").write_text(json.dumps(confusion))
    missing = [] if head else ["ccl_loss", "class_correlation_loss", "softness", "lr_ccl", "gradient_norm_ccl"]
    epochs = [[epoch, *("" if name in missing else rng.random() for name in CURVES)] for epoch in range(1, 6)]
    write_table(folder / "history.csv", ["epoch", *CURVES], epochs)
    bins = [[number, (number - 0.5) / 15, rng.random(), number] for number in range(3, 16)]
    write_table(folder / "reliability.csv", ["bin", "confidence", "accuracy", "count"], bins)
    leakage = [[name, "" if name == "DF" else rng.random()] for name in CLASSES]
    write_table(folder / "leakage.csv", ["class", "leakage"], leakage)
    table = [[name, 20, *rng.random(4), "" if name == "DF" else 0.9] for name in CLASSES]
    write_table(
        folder / "classes.csv", ["class", "images", "sensitivity", "specificity", "precision", "f1", "auc"], table
    )
    return matrix


def write_table(path: Path, header: list[str], rows: list[list]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def run(*command: str | Path, folder: Path) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def git(*arguments: str, folder: Path) -> None:
    run("git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost", *arguments, folder=folder)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The project's plots and nothing else of it, under git, without numbers yet."""
    folder = tmp_path / "repository"
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    git("init", "--quiet", folder=folder)
    return folder


def commit_run(repository: Path, seed: int, tag: str, head: bool = True) -> np.ndarray:
    matrix = write_metrics(repository / "metrics", seed, head)
    git("add", "--all", folder=repository)
    git("commit", "--quiet", "--message", tag, folder=repository)
    git("tag", tag, folder=repository)
    return matrix


def draw(repository: Path, *arguments: str) -> tuple[str, dict[str, str]]:
    """The page's source and, for each plot's element that Chromium has drawn, its SVG."""
    run(sys.executable, "-m", "dvc", "plots", *arguments, "--out", "drawn", folder=repository)
    page = repository / "drawn" / "index.html"
    assert page.is_file(), "DVC drew nothing: does dvc.yaml declare plots?"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no Chromium on this machine: install it (the package is mostly called chromium)"
    dump = ["--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom"]
    command = [chromium, *ALONE, *dump, f"--user-data-dir={repository.parent / 'profile'}", page.as_uri()]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    complaints = [line for line in finished.stderr.splitlines() if "CONSOLE" in line and page.as_uri() in line]
    assert [line for line in complaints if "Infinite extent" not in line] == []
    drawn = re.findall(r'<div id="(\w+)" class="vega-embed.*?(<svg .*?</svg>)', finished.stdout, re.DOTALL)
    return page.read_text(encoding="utf-8"), dict(drawn)


def words(svg: str) -> list[str]:
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def numbers(svg: str, pattern: str) -> list[str]:
    return [word for word in words(svg) if re.fullmatch(pattern, word)]


def soft_label_plots(plots: dict[str, str]) -> tuple[str, str]:
    """The matrix, and its change."""
    [matrix] = [svg for svg in plots.values() if "probability given to" in svg and CHANGE not in svg]
    [change] = [svg for svg in plots.values() if CHANGE in svg]
    return matrix, change


def test_one_run_draws_every_plot_with_the_numbers_of_the_matrix(repository):
    matrix = commit_run(repository, 1, "first")
    page, plots = draw(repository, "show")
    assert len(plots) == page.count("vegaEmbed('#") > 5
    svg, change = soft_label_plots(plots)
    assert numbers(svg, r"\d\.\d\d") == [f"{value:.2f}" for value in matrix.ravel()]
    assert [word for word in words(svg) if word in CLASSES] == [*CLASSES, *CLASSES]
    assert numbers(change, r"[+−]\d\.\d\d") == []


def test_three_runs_stand_side_by_side_in_the_order_asked_for_with_their_change_against_the_first(repository):
    matrices = [commit_run(repository, seed, tag) for seed, tag in enumerate(["zebra", "ant", "cat"])]
    page, plots = draw(repository, "diff", "zebra", "ant", "cat")
    assert len(plots) == page.count("vegaEmbed('#")
    svg, change = soft_label_plots(plots)
    assert [word for word in words(svg) if word in ("zebra", "ant", "cat")] == ["zebra", "ant", "cat"]
    assert numbers(svg, r"\d\.\d\d") == [f"{value:.2f}" for matrix in matrices for value in matrix.ravel()]
    assert [word for word in words(change) if "minus" in word] == ["ant minus zebra", "cat minus zebra"]
    changes = [float(text.replace("−", "-")) for text in numbers(change, r"[+−]\d\.\d\d")]
    expected = [value for matrix in matrices[1:] for value in (matrix - matrices[0]).ravel()]
    np.testing.assert_allclose(changes, expected, atol=0.0051)


def test_the_workspace_is_compared_with_the_commit_not_the_other_way_round(repository):
    commit_run(repository, 1, "first")
    write_metrics(repository / "metrics", 2)
    _, plots = draw(repository, "diff")
    assert [word for word in words(soft_label_plots(plots)[1]) if "minus" in word] == ["workspace minus HEAD"]


def test_a_method_without_a_head_draws_what_it_has(repository):
    commit_run(repository, 1, "first", head=False)
    page, plots = draw(repository, "show")
    assert len(plots) == page.count("vegaEmbed('#") > 3
    assert "probability given to" not in "".join(plots.values())
