"""The documentation site: its navigation is complete, links lead to pages, and broken ones are found."""

import inspect
import json
import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

import cclnet
from docs.site import hooks, links
from tests.project.modules import PROJECT, SOURCES

NAVIGATION = yaml.safe_load((PROJECT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
LIBRARY = (PROJECT / "docs" / "reference" / "library.md").read_text(encoding="utf-8")


def entries(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from entries(entry)


def test_every_page_is_in_the_navigation_once():
    files = [path for path in hooks.published() if path.endswith(".md")]
    made = [f"{path}.md" for path in hooks.published() if path.endswith(hooks.AS_PAGES)]
    api = list(hooks.api_pages(NAVIGATION))
    assert {"README.md", "docs/use/tutorial.md", "studies/table1/report.md"} <= set(files)
    assert "examples/plug_in.ipynb.md" in made
    assert Counter(entries(NAVIGATION)) == Counter([*files, *made, *api])


def test_there_is_an_api_page_of_everything_in_the_library_s_page():
    modules = {Path(page).stem for page in hooks.api_pages(NAVIGATION)}
    assert modules <= set(SOURCES)
    named = re.findall(r"^\| `(cclnet\.[\w.]+)\.(\w+)\(", LIBRARY, re.MULTILINE)
    assert len(named) > 10
    objects = [getattr(import_module(module), name) for module, name in named]
    homes = {module.__name__ for value in objects if (module := inspect.getmodule(value))}
    assert homes <= modules
    assert cclnet.__name__ in modules


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("docs/use/own-images.md", "[a](../evidence/digits)", "[a](../evidence/digits/README.md)"),
        ("docs/use/own-images.md", "[a](../../examples/digits.py)", "[a](../../examples/digits.py.md)"),
        ("README.md", "[a](examples/plug_in.ipynb#loop) b", "[a](examples/plug_in.ipynb.md#loop) b"),
        ("README.md", "[a](docs/use/how-to.md#x), ![b](b.png)", "[a](docs/use/how-to.md#x), ![b](b.png)"),
        ("README.md", "[a](https://example.org/a.py) [b](#c)", "[a](https://example.org/a.py) [b](#c)"),
        ("README.md", "```md\n[a](b.py)\n```\n[a](b.py)\n", "```md\n[a](b.py)\n```\n[a](b.py.md)\n"),
    ],
)
def test_links_lead_to_the_pages_that_files_have_become(page: str, text: str, expected: str):
    assert hooks.with_links_to_pages(text, page) == expected


def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path: Path):
    html = '<div>\n<style scoped>\n    td { }\n</style>\n<table border="1" class="dataframe">\n</table>\n</div>'
    outputs = [
        {"output_type": "stream", "text": ["1\n", "2\n"]},
        {"output_type": "display_data", "data": {"image/png": "iVBORw=="}},
        {"output_type": "execute_result", "data": {"text/html": [html], "text/plain": ["table"]}},
        {"output_type": "execute_result", "data": {"text/plain": ["3"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text"]},
        {"cell_type": "code", "source": ["a = 1\n", "a"], "outputs": outputs},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert hooks.page_of(path) == (
        "# Title\nText\n\n```python\na = 1\na\n```\n\n``` { .text .output }\n1\n2\n```\n\n"
        '<img class="output" alt="The figure of this cell" src="data:image/png;base64,iVBORw==">\n\n'
        '<div class="output"><div>\n<table>\n</table>\n</div></div>\n\n``` { .text .output }\n3\n```\n'
    )


def test_links_that_lead_nowhere_are_found(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a b.png").write_text("picture")
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="sub/">sub</a><a href="#top">up</a><a href="#gone">gone</a><img src="a%20b.png">'
        '<img src="no.png"><a href="https://example.org/x">elsewhere</a><img src="data:image/png;base64,AA==">'
    )
    (tmp_path / "sub" / "index.html").write_text(
        '<a href="../index.html#top">A</a><a href="/index.html">A</a><a href="../index.html#no">B</a>'
        '<a href="/no">C</a>'
    )
    broken = ["index.html: #gone", "index.html: no.png", "sub/index.html: ../index.html#no", "sub/index.html: /no"]
    assert links.broken_links(tmp_path) == broken
    assert links.main(tmp_path) == 1


def test_the_site_s_packages_are_pinned_without_an_address():
    lock = (PROJECT / "docs" / "site" / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w-]+)==", lock, re.MULTILINE)
    assert {"mkdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python"} <= set(pins)
    assert lock.count("--hash=sha256:") >= len(pins)
    assert "://" not in lock and "torch" not in pins
