"""The plots' templates and page as files; ``tests/campaigns/browser.py`` draws them in a browser."""

import json
import re
from base64 import b64encode
from configparser import ConfigParser
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cclnet.dataset.isic import CLASS_NAMES
from cclnet.metrics.names import LOSSES, METRICS, VALIDATION_METRICS
from cclnet.metrics.score_table import COLUMNS
from cclnet.metrics.scores import class_table

DVC_FOLDER = Path(__file__).parents[2] / ".dvc"
TEMPLATES = sorted(DVC_FOLDER.glob("plots/*.json"))
LOADING = {"src", "href", "srcset", "data", "action", "poster"}
MATRICES = ["confusion_matrix", "soft_label_change", "soft_labels"]
PAGE = (DVC_FOLDER.parent / "cclnet" / "views" / "pages" / "plots.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The elements of the page, each with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(PAGE)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def template(name: str) -> dict:
    return json.loads((DVC_FOLDER / "plots" / f"{name}.json").read_text(encoding="utf-8"))


def members(node, key):
    """Every value of the key, however deep."""
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == key)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from members(child, key)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_templates_are_vega_lite_5_with_the_anchors_that_dvc_fills(path):
    text = path.read_text(encoding="utf-8")
    assert json.loads(text)["$schema"].endswith("/vega-lite/v5.json")
    anchors = set(re.findall(r"<DVC_METRIC_(\w+)>", text))
    assert {"DATA", "TITLE", "X"} <= anchors
    assert anchors <= {"DATA", "TITLE", "X", "Y", "X_LABEL", "Y_LABEL", "COLOR"}


@pytest.mark.parametrize("name", MATRICES)
def test_matrices_keep_the_order_of_classes_and_revisions_and_name_every_cell(name):
    matrix = template(name)
    assert matrix["facet"]["sort"] == []
    for axis in ("x", "y"):
        assert matrix["spec"]["encoding"][axis]["sort"] is None
    assert [layer["mark"] for layer in matrix["spec"]["layer"]] == ["rect", "text"]
    assert matrix["spec"]["encoding"]["tooltip"]


def test_colours_mean_the_same_in_every_plot():
    domains = {name: [scale["domain"] for scale in members(template(name), "scale")] for name in MATRICES}
    assert domains == {"soft_labels": [[0, 1]], "confusion_matrix": [[0, 1]], "soft_label_change": [[-0.2, 0.2]]}


def test_the_page_has_the_soft_labels_first_and_their_change_only_with_two_revisions():
    wanted = {path.stem: template(path.stem)["usermeta"] for path in TEMPLATES}
    assert sorted(wanted, key=lambda name: wanted[name]["order"]) == [
        *("soft_labels", "soft_label_change", "confusion_matrix", "scores", "curves", "reliability", "class_bars")
    ]
    assert {name: meta["revisions"] for name, meta in wanted.items() if "revisions" in meta} == {"soft_label_change": 2}


def lookup(name: str) -> dict[str, str]:
    """Column → title, out of the expression that a template has for it."""
    [expression] = [step["calculate"] for step in template(name)["transform"] if "[datum.column]" in str(step)]
    return json.loads(expression.removesuffix("[datum.column]"))


def test_curves_are_called_as_everywhere_else():
    titles = {column: f"{title} loss" for column, title in LOSSES.items()} | {"softness": METRICS["softness"].title}
    titles |= VALIDATION_METRICS
    shown = lookup("curves")
    assert shown == {column: titles[column] for column in shown}
    assert template("curves")["facet"]["sort"] == list(shown.values())
    assert template("curves")["transform"][0]["fold"] == list(shown)


def test_bars_are_drawn_of_every_column_of_the_classes():
    columns = class_table([0, 1], np.eye(2), "ab").columns[2:]
    assert list(lookup("class_bars")) == [*columns, "leakage"]
    assert template("class_bars")["transform"][0]["fold"] == [*columns, "leakage"]


def test_scores_are_drawn_from_the_columns_of_their_table():
    used = set(re.findall(r"datum\.(\w+)", str(template("scores"))))
    assert used - {"number"} <= set(COLUMNS)


def test_page_takes_the_plots_once_as_plain_text_at_its_end_and_no_scripts_of_dvc():
    assert PAGE.count("{plot_divs}") == 1
    assert PAGE.endswith("<plaintext hidden>\n{plot_divs}\n")
    assert "{scripts}" not in PAGE and "{refresh_tag}" not in PAGE
    assert ("meta", {"charset": "utf-8"}) in Elements().found


def test_page_runs_its_own_four_scripts_alone():
    [policy] = [str(attributes["content"]) for _, attributes in Elements().found if "http-equiv" in attributes]
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", PAGE, re.DOTALL)
    assert len(scripts) == 4
    digests = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert directives["default-src"] == directives["base-uri"] == directives["form-action"] == "'none'"


def test_page_explains_the_abbreviations_of_the_classes():
    explained = "; ".join(f"{name}: {meaning}" for name, meaning in CLASS_NAMES.items())
    assert f">{explained}.</p>" in PAGE


def test_page_loads_nothing():
    attributes = [value for _, attributes in Elements().found for name, value in attributes.items() if name in LOADING]
    assert attributes == []
    assert "@import" not in "".join(re.findall(r"<style>(.*?)</style>", PAGE, re.DOTALL))


def test_page_holds_the_published_libraries_byte_for_byte_and_their_licence():
    published = dict(re.findall(r"^  (\S+\.js)  sha256 ([0-9a-f]{64})$", PAGE, re.MULTILINE))
    assert [re.sub("@.*", "", file) for file in published] == ["vega", "vega-lite", "vega-embed"]
    scripts = dict(re.findall(r'<script data-file="(.*?)">(.*?)</script>', PAGE, re.DOTALL))
    assert {file: sha256(script.encode()).hexdigest() for file, script in scripts.items()} == published
    assert "Redistributions of source code must retain the above copyright notice" in PAGE


def test_dvc_uses_the_page_and_neither_reports_nor_stages_by_itself():
    config = ConfigParser()
    config.read(DVC_FOLDER / "config", encoding="utf-8")
    assert (DVC_FOLDER / config["plots"]["html_template"]).is_file()
    assert not config["core"].getboolean("analytics")
    assert not config["core"].getboolean("autostage")
