"""The plots' templates and page as files; ``tests/browser.py`` draws with them, for which it needs a browser."""

import json
import re
from configparser import ConfigParser
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest

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
    assert {"DATA", "TITLE", "X", "Y", "X_LABEL", "Y_LABEL"} <= anchors
    assert anchors <= {"DATA", "TITLE", "X", "Y", "X_LABEL", "Y_LABEL", "COLOR", "COLUMN", "TOOLTIP"}


@pytest.mark.parametrize("name", MATRICES)
def test_matrices_keep_the_order_of_classes_and_revisions_and_name_every_cell(name):
    matrix = template(name)
    assert matrix["facet"]["column"]["sort"] == []
    for axis in ("x", "y"):
        assert matrix["spec"]["encoding"][axis]["sort"] is None
    assert [layer["mark"] for layer in matrix["spec"]["layer"]] == ["rect", "text"]
    assert matrix["spec"]["encoding"]["tooltip"]


def test_colours_mean_the_same_in_every_plot():
    domains = {name: [scale["domain"] for scale in members(template(name), "scale")] for name in MATRICES}
    assert domains == {"soft_labels": [[0, 1]], "confusion_matrix": [[0, 1]], "soft_label_change": [[-0.2, 0.2]]}


def test_page_takes_the_plots_once_and_no_scripts_of_dvc():
    assert PAGE.count("{plot_divs}") == 1
    assert "{scripts}" not in PAGE
    assert ("meta", {"charset": "utf-8"}) in Elements().found


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
