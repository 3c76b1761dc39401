"""Every question in small."""

import math
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks.catalogue import QUESTIONS
from tests.benchmarks.builders import IN_SMALL


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_is_answered(question: str):
    comparisons = import_module(f"benchmarks.questions.{question}").run(IN_SMALL)
    assert comparisons
    for comparison in comparisons:
        values = [*comparison.measured.values, *comparison.reference.values]
        assert all(0 <= value < math.inf for value in values)
        assert math.isfinite(comparison.ratio)


def test_every_module_that_runs_is_in_the_catalogue():
    modules = {path.stem for path in (Path(program.__file__).parent / "questions").glob("*.py")} - {"__init__"}
    assert modules == set(QUESTIONS)
    assert all(hasattr(import_module(f"benchmarks.questions.{name}"), "run") for name in modules)
