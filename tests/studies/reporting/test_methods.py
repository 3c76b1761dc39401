"""The sections of a report that compare methods."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from studies.reporting.methods import SCORES, differences_from, method_sections
from tests.studies.reporting.made_up import TRUTH, random_cell


def test_every_score_has_its_table_and_the_figure_stands_beside_the_report(tmp_path: Path):
    measured = dict.fromkeys(SCORES, 0.5)
    runs = {
        "hard labels": [random_cell(0, metrics=measured)],
        "better": [random_cell(0, skill=4, metrics=measured | {"kappa": 0.25})],
    }
    differences = differences_from(runs, "hard labels")
    hard, better = ((runs[name][0].probabilities.argmax(axis=1) == TRUTH).mean() for name in ("hard labels", "better"))
    assert [each.name for each in differences] == ["better"]
    assert all((found := differences[0].differences[metric]) and found.fixed.low > 0 for metric in SCORES)
    sections = method_sections(runs, "hard labels", differences, tmp_path / "a.png")
    headings = [section for section in sections if section.startswith("**")]
    assert headings[:-1] == [
        "**Accuracy**",
        "**Macro F1**",
        "**Cohen's kappa**",
        "**Macro Jaccard**",
        "**Balanced accuracy**",
    ]
    assert f"| better | 1 | 0.500 | {better - hard:+.3f} | (" in sections[1]
    assert "| hard labels | 1 | 0.500 | reference | – | – |" in sections[1]
    assert "| better | 1 | 0.250 |" in sections[5]
    assert sections[10] == "![differences from hard labels](a.png)"
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sections[11].startswith("**Calibration**") and sections[12].count("\n") == 3


def test_the_figure_has_a_panel_for_every_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    figures: list[Figure] = []
    monkeypatch.setattr("studies.reporting.methods.save_figure", lambda figure, _: figures.append(figure))
    runs = {
        name: [random_cell(0, skill=skill, metrics=dict.fromkeys(SCORES, 0.5))] for name, skill in (("a", 0), ("b", 4))
    }
    method_sections(runs, "a", differences_from(runs, "a"), tmp_path / "a.png")
    assert [axes.get_title() for axes in figures[0].axes] == list(SCORES.values())


@pytest.mark.parametrize("reference", ["only", "not run"])
def test_without_a_difference_all_scores_are_in_one_table(tmp_path: Path, reference: str):
    runs = {"only": [random_cell(0, metrics=dict.fromkeys(SCORES, 0.5))]}
    assert differences_from(runs, reference) == []
    sections = method_sections(runs, reference, [], tmp_path / "a.png")
    assert sections[0].splitlines()[0] == f"| method | n | {' | '.join(SCORES.values())} |"
    assert sections[0].splitlines()[2:] == ["| only | 1 | 0.500 | 0.500 | 0.500 | 0.500 | 0.500 |"]
    assert len(sections) == 3 and sections[1].startswith("**Calibration**")
    assert not list(tmp_path.iterdir())
