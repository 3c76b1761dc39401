"""Draws the plots of ``dvc.yaml`` and all pages, made of made-up numbers, in a browser.

    pytest tests/campaigns/browser.py

Not collected by a plain ``pytest``: it needs Chromium, and fails where there is none.
"""

import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cclnet.experiments.comparison import compare_experiments
from cclnet.experiments.records import Record
from cclnet.inference.examples import with_examples
from cclnet.metrics.calibration import reliability_table
from cclnet.metrics.matrices import write_confusion, write_soft_labels
from cclnet.metrics.score_table import score_predictions, write_scores
from cclnet.metrics.scores import class_table, confusion_table
from cclnet.metrics.similarity import ClassSimilarity
from cclnet.system.files import write_csv
from cclnet.views.comparison_page import comparison_page
from cclnet.views.image_pairs import image_pair, jpeg_source
from cclnet.views.page import report_page
from cclnet.views.similarity_page import similarity_page
from tests.views.builders import HOSTILE, made_up_report

ROOT = Path(__file__).parents[2]
CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
CURVES = [
    *("classification_loss", "ccl_loss", "class_correlation_loss", "softness", "learning_rate", "lr_ccl"),
    *("gradient_norm", "gradient_norm_ccl", "validation_accuracy", "validation_f1", "validation_kappa"),
    *("validation_jaccard", "validation_balanced_accuracy", "validation_nll", "frozen"),
]
ALONE = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
ALONE += ["--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"]
"""Chromium without a window and without a network."""
SOFT_LABELS, CHANGE = "Soft labels: which classes look alike", "Change of the soft labels"
SCRIPT = '</script><script>document.title = "run"</script><img src=x onerror="document.title = 1">'


def write_metrics(folder: Path, seed: int, head: bool = True, classes: list[str] = CLASSES) -> np.ndarray:
    """Made-up metrics of a run, as the stages write them; returns its soft-label matrix."""
    rng = np.random.default_rng(seed)
    matrix = rng.dirichlet(np.ones(7), 7)
    folder.mkdir(exist_ok=True)
    if head:
        write_soft_labels(folder / "soft_labels.json", matrix, classes)
    else:
        (folder / "soft_labels.json").write_text("[]")
    labels, probabilities = np.arange(140) % 7, rng.dirichlet(np.ones(7), 140)
    write_confusion(folder / "confusion.json", confusion_table(labels, probabilities.argmax(axis=1), classes))
    write_csv(folder / "reliability.csv", reliability_table(labels, probabilities))
    write_csv(folder / "classes.csv", class_table(labels, probabilities, classes))
    write_scores(folder / "scores.csv", score_predictions(labels, probabilities, classes, labels))
    missing = [] if head else ["ccl_loss", "class_correlation_loss", "softness", "lr_ccl", "gradient_norm_ccl"]
    epochs = [[epoch, *("" if name in missing else rng.random() for name in CURVES)] for epoch in range(1, 6)]
    write_table(folder / "history.csv", ["epoch", *CURVES], epochs)
    leakage = [[name, "" if name == "DF" else rng.random()] for name in classes]
    write_table(folder / "leakage.csv", ["class", "leakage"], leakage)
    (folder / "figures").mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(folder / "figures" / "soft_labels.png")
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
    for name in ("dvc.yaml", "params.yaml", "cclnet/views/pages/plots.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git("init", "--quiet", folder=folder)
    return folder


def commit_run(repository: Path, seed: int, tag: str, head: bool = True, classes: list[str] = CLASSES) -> np.ndarray:
    matrix = write_metrics(repository / "metrics", seed, head, classes)
    git("add", "--all", folder=repository)
    git("commit", "--quiet", "--message", tag, folder=repository)
    git("tag", tag, folder=repository)
    return matrix


def write_page(repository: Path, *arguments: str) -> Path:
    """The page that DVC writes."""
    run(sys.executable, "-m", "dvc", "plots", *arguments, "--out", "drawn", folder=repository)
    page = repository / "drawn" / "index.html"
    assert page.is_file(), "DVC drew nothing: does dvc.yaml declare plots?"
    return page


def draw(repository: Path, *arguments: str) -> dict[str, str]:
    """Title → SVG of what Chromium has drawn, in the order of the page."""
    document, complaints = browse(write_page(repository, *arguments))
    assert complaints == []
    sections = re.findall(r"<section>(.*?)</section>", visible(document), re.DOTALL)
    drawn = {}
    for section in sections:
        [title], [svg] = re.findall(r"<h2>(.*?)</h2>", section), re.findall(r"<svg .*?</svg>", section, re.DOTALL)
        drawn[unescape(title)] = svg
    assert len(drawn) == len(sections)
    return drawn


def visible(document: str) -> str:
    """What the page's script has put into it."""
    [content] = re.findall(r"<main>.*</footer>", document, re.DOTALL)
    return content


def browse(page: Path, *options: str) -> tuple[str, list[str]]:
    """The document once its scripts are through, and what they said on the console."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no Chromium on this machine: install it (the package is mostly called chromium)"
    dump = ["--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom"]
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium, *ALONE, *dump, *options, f"--user-data-dir={profile}", page.as_uri()]
        finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return finished.stdout, [line for line in finished.stderr.splitlines() if "CONSOLE" in line]


def words(svg: str) -> list[str]:
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def numbers(svg: str, pattern: str) -> list[str]:
    return [word for word in words(svg) if re.fullmatch(pattern, word)]


TITLES = [
    *(SOFT_LABELS, CHANGE, "Confusion matrix: images by true and predicted class", "Scores with 95 % intervals"),
    *("Training, epoch by epoch", "Reliability: accuracy by confidence"),
    *("Leakage: validation images of a lesion that is also trained on", "Each class against the others"),
]


def test_one_run_draws_every_plot_but_the_change_with_the_numbers_of_the_matrix(repository):
    matrix = commit_run(repository, 1, "first")
    plots = draw(repository, "show")
    assert list(plots) == [title for title in TITLES if title != CHANGE]
    svg = plots[SOFT_LABELS]
    assert numbers(svg, r"\d\.\d\d") == [f"{value:.2f}" for value in matrix.ravel()]
    assert [word for word in words(svg) if word in CLASSES] == [*CLASSES, *CLASSES]


def test_three_runs_are_side_by_side_in_the_order_asked_for_with_their_change_against_the_first(repository):
    matrices = [commit_run(repository, seed, tag) for seed, tag in enumerate(["zebra", "ant", "cat"])]
    plots = draw(repository, "diff", "zebra", "ant", "cat")
    assert list(plots) == TITLES
    svg, change = plots[SOFT_LABELS], plots[CHANGE]
    assert [word for word in words(svg) if word in ("zebra", "ant", "cat")] == ["zebra", "ant", "cat"]
    assert numbers(svg, r"\d\.\d\d") == [f"{value:.2f}" for matrix in matrices for value in matrix.ravel()]
    assert [word for word in words(change) if "minus" in word] == ["ant minus zebra", "cat minus zebra"]
    changes = [float(text.replace("−", "-")) for text in numbers(change, r"[+−]\d\.\d\d")]
    expected = [value for matrix in matrices[1:] for value in (matrix - matrices[0]).ravel()]
    np.testing.assert_allclose(changes, expected, atol=0.0051)


def test_the_workspace_is_compared_with_the_commit_not_the_other_way_round(repository):
    commit_run(repository, 1, "first")
    write_metrics(repository / "metrics", 2)
    assert [word for word in words(draw(repository, "diff")[CHANGE]) if "minus" in word] == ["workspace minus HEAD"]


def test_a_method_without_a_head_draws_what_it_has(repository):
    commit_run(repository, 1, "first", head=False)
    plots = draw(repository, "show")
    assert list(plots) == TITLES[2:]
    assert {"classification loss", "accuracy"} <= set(words(plots["Training, epoch by epoch"]))
    assert "CCL head loss" not in words(plots["Training, epoch by epoch"])


def test_epochs_are_whole_numbers_and_scores_have_their_titles(repository):
    commit_run(repository, 1, "first")
    plots = draw(repository, "show")
    words_of_curves = words(plots["Training, epoch by epoch"])
    axis = words_of_curves[words_of_curves.index("epoch") - 5 : words_of_curves.index("epoch")]
    assert axis == ["1", "2", "3", "4", "5"]
    assert {"higher is better", "Cohen's kappa", "lower is better", "NLL"} <= set(words(plots[TITLES[3]]))


def test_images_of_the_same_charts_are_links_and_not_shown(repository):
    commit_run(repository, 1, "first")
    document, _ = browse(write_page(repository, "show"))
    assert "<img" not in visible(document)
    [address] = re.findall(r'<a href="(.*?)"', visible(document))
    assert (repository / "drawn" / address).read_bytes().startswith(b"\x89PNG")


def test_images_alone_are_shown(repository):
    commit_run(repository, 1, "first")
    document, complaints = browse(write_page(repository, "show", "metrics/figures"))
    assert complaints == []
    assert visible(document).count('<img src="static/') == 1


def test_a_class_that_is_markup_is_drawn_and_runs_nothing(repository):
    classes = [SCRIPT, "</plaintext></template>", "<!--", "{plot_divs}", *CLASSES[4:]]
    commit_run(repository, 1, "first", classes=classes)
    document, complaints = browse(write_page(repository, "show"))
    assert complaints == []  # a script that the policy stops would be one
    assert "<title>Plots</title>" in document
    assert list(draw(repository, "show")) == [title for title in TITLES if title != CHANGE]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_plots_are_drawn_within_the_window_and_are_seen_against_its_paper(repository, tmp_path, scheme, width):
    for seed, tag in enumerate(["first", "second"]):
        commit_run(repository, seed, tag)
    source = write_page(repository, "diff", "first", "second").read_text(encoding="utf-8")
    seen = look(tmp_path, source, scheme, width)
    assert (luminance(seen["paper"]) < 0.1) == seen["dark"] == (scheme == "dark")
    assert seen["needed"] == seen["width"] == width
    charts = [chart for place in seen["charts"] for chart in place["drawn"]]
    assert len(charts) == len(TITLES)
    assert max(chart["width"] for chart in charts) <= width
    marks = [colour for chart in charts[3:] for colours in chart["marks"] for colour in colours]
    assert marks and min(contrast(colour, seen["paper"]) for colour in marks if "gray" not in colour) >= 2.5
    for ink, ground in seen["texts"]:
        assert contrast(ink, seen["paper"] if ground == "rgba(0, 0, 0, 0)" else ground) >= 4.5
    for chart in charts[3:]:
        assert min(contrast(colour, seen["paper"]) for colour in chart["writing"]) >= 4.5


# the report

SCHEMES = {"dark": 0, "light": 1}  # Chromium's numbers
PHONE, DESK = 390, 1280  # pixels
PROBE = """
<script id="seen" type="application/json"></script>
<script>
function look() {
  const view = document.querySelector("iframe").contentWindow, page = view.document;
  if ([...page.querySelectorAll(".chart")].some(chart => !chart.querySelector("svg"))) return setTimeout(look, 100);
  const style = element => view.getComputedStyle(element);
  document.querySelector("#seen").textContent = JSON.stringify({
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    width: view.innerWidth,
    needed: page.documentElement.scrollWidth,
    paper: style(page.body).backgroundColor,
    texts: [...page.querySelectorAll("h1, p, a, caption, th, td, dt, dd, figcaption, strong, code, summary")].map(
      element => [style(element).color, style(element).backgroundColor]
    ),
    charts: [...page.querySelectorAll(".chart")].map(chart => ({
      role: chart.getAttribute("role"),
      name: chart.getAttribute("aria-label"),
      place: chart.getBoundingClientRect().width,
      drawn: [...chart.querySelectorAll("svg")].map(svg => ({
        width: svg.getBoundingClientRect().width,
        words: [...svg.querySelectorAll("text")].map(text => text.textContent),
        writing: [...svg.querySelectorAll("text")].map(text => style(text).fill),
        marks: [...svg.querySelectorAll(".role-mark path, .role-mark line")].map(
          mark => [style(mark).fill, style(mark).stroke].filter(colour => colour != "none")
        ),
      })),
    })),
  }).replaceAll("<", "\\\\u003c");
}
</script>
<iframe style="width: WIDTHpx; height: 900px; border: 0" srcdoc="PAGE" onload="look()"></iframe>
"""


def look(folder: Path, source: str, scheme: str, width: int) -> dict[str, Any]:
    """What a browser makes of the report in a window of that width (Chromium's own cannot be as narrow as a phone)."""
    page = folder / "probe.html"
    page.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", escape(source)), encoding="utf-8")
    document, complaints = browse(page, "--hide-scrollbars", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}")
    assert complaints == []
    [seen] = re.findall(r'<script id="seen" type="application/json">(.*?)</script>', document, re.DOTALL)
    return json.loads(seen)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of ``rgb(0, 0, 0)`` or ``color(srgb 0 0 0)``."""
    scale = 255 if colour.startswith("rgb") else 1
    channels = [float(number) / scale for number in re.findall(r"[\d.]+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(a: str, b: str) -> float:
    dark, light = sorted([luminance(a), luminance(b)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_report_is_drawn_within_its_window_and_stands_out_from_its_paper(tmp_path, scheme, width):
    classes = [*HOSTILE, "a long name of a class", "F", "G"]
    seen = look(tmp_path, report_page(made_up_report(classes, images=140)), scheme, width)
    assert seen["dark"] == (scheme == "dark")
    assert (luminance(seen["paper"]) < 0.1) == seen["dark"]
    assert seen["width"] == width
    assert seen["needed"] == width
    charts = [chart for place in seen["charts"] for chart in place["drawn"]]
    assert len(charts) == len(seen["charts"]) == 7
    for place, chart in zip(seen["charts"], charts, strict=True):
        assert 0.9 * place["place"] < chart["width"] <= place["place"]
        assert place["role"] == "graphics-document"
        assert place["name"]
        assert chart["marks"]
        assert min(contrast(colour, seen["paper"]) for colours in chart["marks"] for colour in colours) >= 3
        assert min(contrast(colour, seen["paper"]) for colour in chart["writing"]) >= 4.5
    losses, validation, softness, _, bins, roc, _ = charts
    assert {"classification", "CCL head", "class correlation"} <= set(losses["words"])
    assert {"accuracy", "macro F1", "Cohen's kappa"} <= set(validation["words"])
    assert {"lowest, epoch 2", "frozen, epoch 5", "epoch", "1", "6"} <= set(softness["words"])
    assert {"confidence", "images"} <= set(bins["words"])
    assert {"sensitivity", "1 − specificity"} <= set(roc["words"])
    assert len([word for word in roc["words"] if ", AUC " in word]) == 7
    transparent = "rgba(0, 0, 0, 0)"
    for ink, ground in seen["texts"]:
        assert contrast(ink, seen["paper"] if ground == transparent else ground) >= 4.5


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_similar_classes_are_shown_within_the_window_and_stand_out_from_the_paper(tmp_path, scheme, width):
    classes = [*HOSTILE, "a long name of a class", "F"]
    generator = np.random.default_rng(0)
    labels = [name for name in classes for _ in range(20)]
    features = np.repeat(3 * generator.normal(size=(6, 5)), 20, axis=0) + generator.normal(size=(120, 5))
    model = ClassSimilarity(classes=classes, resamples=200, shuffles=2).fit(features, labels)
    images = [f"image {row}" for row in range(120)]
    pair = with_examples(model, features, labels, images)["pairs"][0]
    shown = image_pair(pair, lambda image: jpeg_source(generator.integers(256, size=(30, 40, 3), dtype=np.uint8)))
    seen = look(tmp_path, similarity_page("it", model, features, labels, None, [shown]), scheme, width)
    assert seen["dark"] == (scheme == "dark")
    assert seen["width"] == seen["needed"] == width
    for ink, ground in seen["texts"]:
        assert contrast(ink, seen["paper"] if ground == "rgba(0, 0, 0, 0)" else ground) >= 4.5


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_comparison_is_drawn_within_its_window_and_stands_out_from_its_paper(tmp_path, scheme, width):
    report = made_up_report([*HOSTILE, "a long name of a class", "F", "G"], images=140)
    sure = report.run.probabilities**2
    runs = report.run, replace(report.run, probabilities=sure / sure.sum(axis=1, keepdims=True))
    record = Record({"dataset": "sample"}, report.history)
    source = comparison_page(compare_experiments(*runs), runs, (record, record))
    seen = look(tmp_path, source, scheme, width)
    assert seen["dark"] == (scheme == "dark")
    assert seen["width"] == seen["needed"] == width
    charts = [chart for place in seen["charts"] for chart in place["drawn"]]
    assert len(charts) == 3
    for chart in charts:
        assert {"A workspace", "B workspace"} <= set(chart["words"])
        assert min(contrast(colour, seen["paper"]) for colours in chart["marks"] for colour in colours) >= 3
    for ink, ground in seen["texts"]:
        assert contrast(ink, seen["paper"] if ground == "rgba(0, 0, 0, 0)" else ground) >= 4.5


def test_report_of_a_method_without_a_head_and_of_one_epoch(tmp_path):
    report = made_up_report(method="baseline")
    seen = look(tmp_path, report_page(replace(report, history=report.history.head(1))), "light", DESK)
    charts = [chart for place in seen["charts"] for chart in place["drawn"]]
    assert len(charts) == len(seen["charts"]) == 6
    assert all(chart["marks"] for chart in charts)
    assert "1" in charts[0]["words"]
