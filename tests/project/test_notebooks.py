"""The notebooks run from top to bottom, give what their text says, and hold the outputs of such a run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.campaigns import notebooks
from tests.project.modules import PROJECT

WORDS = re.compile(r"[^\W\d]+")
NUMBERS = re.compile(r"\d+(?:\.\d+)?")
LINKS = re.compile(r"\]\(([^)#]+)")
LONGEST_CELL = 20
LARGEST = 400_000  # bytes


@pytest.fixture(scope="module", params=notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def notebook(path: Path) -> dict[str, Any]:
    return notebooks.read(path)


@pytest.fixture(scope="module")
def executed(notebook: dict[str, Any]) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    return notebooks.execute(notebook)


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(outputs: list[dict[str, Any]]) -> str:
    return "\n".join("".join(output.get("text", output.get("data", {}).get("text/plain", []))) for output in outputs)


def kinds(outputs: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(output["output_type"], sorted(output.get("data", {}))) for output in outputs]


def test_both_are_found():
    assert [path.name for path in notebooks.NOTEBOOKS] == ["plug_in.ipynb", "similar_classes.ipynb"]


def test_it_is_a_notebook_of_format_4_5(notebook: dict[str, Any]):
    """The rules of nbformat's schema 4.5 for what these notebooks consist of."""
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert {"name", "display_name"} <= set(notebook["metadata"]["kernelspec"])
    assert "name" in notebook["metadata"]["language_info"]
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in ids)
    common = {"cell_type", "id", "metadata", "source"}
    for cell in notebook["cells"]:
        code = cell["cell_type"] == "code"
        assert code or cell["cell_type"] == "markdown"
        assert set(cell) == (common | {"execution_count", "outputs"} if code else common)
        assert all(line.endswith("\n") for line in cell["source"][:-1]) and not cell["source"][-1].endswith("\n")
        for output in cell.get("outputs", []):
            assert (
                set(output)
                == {
                    "stream": {"name", "output_type", "text"},
                    "display_data": {"data", "metadata", "output_type"},
                    "execute_result": {"data", "execution_count", "metadata", "output_type"},
                }[output["output_type"]]
            )


def test_it_is_short_and_small(path: Path, notebook: dict[str, Any]):
    assert all(len(cell["source"]) <= LONGEST_CELL for cell in notebook["cells"])
    assert path.stat().st_size < LARGEST


def test_its_links_lead_to_files(path: Path, notebook: dict[str, Any]):
    pages = [notebooks.source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    links = [link for page in pages for link in LINKS.findall(page)]
    assert links
    assert [link for link in links if not (path.parent / link).is_file()] == []
    assert any(f"examples/{path.name})" in page.read_text(encoding="utf-8") for page in PROJECT.glob("docs/use/*.md"))


def test_the_outputs_are_those_of_a_run(notebook: dict[str, Any], executed: tuple[dict[str, Any], list[Any]]):
    """The same words and pictures; numbers but for what other processors round differently."""
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell, outputs in zip(cells, executed[1], strict=True):
        assert kinds(cell["outputs"]) == kinds(outputs)
        written, now = texts(cell["outputs"]), texts(outputs)
        assert WORDS.findall(written) == WORDS.findall(now)
        np.testing.assert_allclose(_numbers(written), _numbers(now), atol=0.025)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBERS.findall(text)]


def test_the_results_are_what_the_text_says(path: Path, executed: tuple[dict[str, Any], list[Any]]):
    {"plug_in": _plug_in, "similar_classes": _similar_classes}[path.stem](executed[0])


def _plug_in(names: dict[str, Any]):
    assert names["accuracy"] > 0.95
    assert names["criterion"].head.frozen
    assert names["criterion"].freezing.convergence.best_epoch == 1
    np.testing.assert_allclose(names["soft_labels"].sum(axis=1), 1, atol=1e-6)


def _similar_classes(names: dict[str, Any]):
    pairs = names["similarity"].pairs_
    assert pairs.loc[pairs["verdict"] == "alike", ["a", "b"]].to_numpy().tolist() == [["1", "8"]]
    assert {"6", "9"} not in [set(pair) for pair in pairs.head(20)[["a", "b"]].to_numpy().tolist()]
    assert names["found"].correlation > 0.85 and names["found"].p_greater == pytest.approx(1 / 5040)
    shares = names["sample"].count_share_
    assert abs(shares.explained - shares.by_chance) < 0.05
    assert 0.9 < names["shuffled"].min() < 1 < names["shuffled"].max() < 1.1
    assert names["targets"].diagonal().mean().item() == pytest.approx(0.9)
    second, first = torch.argsort(names["given_to"])[-2:].tolist()
    assert (first, second) == (1, 8)
    assert names["targets"][1, 1] < names["given_to"][1] < 1
