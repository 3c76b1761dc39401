"""The page on other training loops: its code runs or is that of the examples."""

import re
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import torch

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "use" / "your-training.md").read_text(encoding="utf-8")
EXAMPLES = sorted((PROJECT / "examples").glob("*_digits.py"))


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_plain_loop_trains() -> None:
    (loop,) = blocks("python", PAGE)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(loop, names)  # noqa: S102 - the project's own page
    assert names["loss"].isfinite()
    assert names["criterion"].freezing.convergence.epoch == 2


@pytest.mark.parametrize(
    ("section", "example"),
    [("Lightning", "lightning"), ("The Trainer of Hugging Face", "hugging_face"), ("timm", "timm")],
)
def test_the_fragments_are_those_of_the_example(section: str, example: str) -> None:
    (text,) = re.findall(rf"^## {section}\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    code = (PROJECT / "examples" / f"{example}_digits.py").read_text(encoding="utf-8")
    fragments = [fragment for block in blocks("py", text) for fragment in re.split(r"\n\n+", block.strip())]
    assert fragments
    assert all(fragment in code or indent(fragment, "    ") in code for fragment in fragments)


def test_every_example_is_on_the_page_and_short() -> None:
    assert len(EXAMPLES) == 3
    for path in EXAMPLES:
        assert f"(../../examples/{path.name})" in PAGE
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 90
