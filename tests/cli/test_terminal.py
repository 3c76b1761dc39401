import io
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from cclnet.cli import terminal as screen
from cclnet.cli.evaluate import show_evaluation
from cclnet.cli.model import matrix_table, show_matrix, similar_classes
from cclnet.cli.predict import show_predictions
from cclnet.inference.labelled import evaluate_predictions
from cclnet.inference.prediction import Predictions
from cclnet.networks.model_description import ModelDescription
from cclnet.views.figures import is_dark
from tests.inference.builders import predictions as scored_predictions
from tests.networks.builders import description

BALANCED = replace(description(), params={"head_balance": "weights"})
BASELINE = replace(BALANCED, method="baseline", label_matrix=np.eye(3).tolist(), softness=1.0)


def lines_of(show, *arguments: object, terminal: bool = False, width: int = 100) -> list[str]:
    """What is printed, without trailing blanks and empty lines."""
    file = io.StringIO()
    width = width if terminal else screen.UNBOUNDED
    show(Console(file=file, width=width, color_system=None, force_terminal=terminal), *arguments)
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def words_of(lines: list[str]) -> list[list[str]]:
    """The cells of each line of a table."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def predictions(images: int = 2) -> Predictions:
    """MEL, then NV."""
    rows = np.array([[0.6, 0.3, 0.1], [0.25, 0.5, 0.25]])
    return Predictions(BALANCED.classes, [f"ISIC_{n}" for n in range(images)], rows[np.arange(images) % 2], problems=[])


EXPLANATION = "looks like it: to what the learned soft label of the predicted class gives most besides itself"

# predictions


def test_the_most_probable_classes_and_what_looks_like_the_first_one():
    lines = lines_of(show_predictions, predictions(), BALANCED, None)
    assert words_of(lines) == [
        ["image", "predicted", "then", "then", "looks like it"],
        ["ISIC_0", "MEL 0.600", "NV 0.300", "BCC 0.100", "NV 0.25, BCC 0.25"],
        ["ISIC_1", "NV 0.500", "MEL 0.250", "BCC 0.250", "MEL 0.25, BCC 0.25"],
        [EXPLANATION],
        ["2 predicted: MEL 1, NV 1"],
    ]


def test_labels_that_were_not_learned_say_nothing_of_looks():
    lines = lines_of(show_predictions, predictions(), BASELINE, None)
    assert words_of(lines) == [
        ["image", "predicted", "then", "then"],
        ["ISIC_0", "MEL 0.600", "NV 0.300", "BCC 0.100"],
        ["ISIC_1", "NV 0.500", "MEL 0.250", "BCC 0.250"],
        ["2 predicted: MEL 1, NV 1"],
    ]


def test_two_classes_have_two_columns():
    two = replace(BALANCED, classes=["cat", "dog"], label_matrix=[[0.8, 0.2], [0.3, 0.7]])
    lines = lines_of(show_predictions, Predictions(two.classes, ["a"], np.array([[0.4, 0.6]]), []), two, None)
    assert words_of(lines[:2]) == [
        ["image", "predicted", "then", "looks like it"],
        ["a", "dog 0.600", "cat 0.400", "cat 0.30"],
    ]


@pytest.mark.parametrize(("file", "where"), [(None, "-o FILE writes them all"), ("p.csv", "p.csv has them all")])
def test_thousands_of_images_do_not_flood_the_screen(file: str | None, where: str):
    lines = lines_of(show_predictions, predictions(2_345), BALANCED, file)
    assert len(lines) == 1 + 20 + 3
    assert lines[20].startswith("ISIC_19 ")
    assert lines[-2:] == [f"2,325 more are not shown; {where}", "2,345 predicted: MEL 1,173, NV 1,172"]
    assert "not shown" not in "".join(lines_of(show_predictions, predictions(20), BALANCED, file))


def test_names_are_no_markup_and_are_not_cut():
    name = f"[bold]{'long' * 50}:smile:[/]"
    shown = replace(predictions(1), images=[name])
    assert lines_of(show_predictions, shown, BALANCED, None)[1].startswith(f"{name}  MEL 0.600 ")
    lines = lines_of(show_predictions, shown, BALANCED, None, terminal=True, width=80)
    assert max(map(len, lines)) <= 80
    column = lines[0].index("predicted")
    below = lines.index(next(line for line in lines if line.startswith("looks like it: ")))
    assert "".join(line[:column].strip() for line in lines[2:below]) == name


# figures


def test_every_figure_has_its_interval_and_every_class_its_row():
    labels, probabilities = scored_predictions()
    evaluation = evaluate_predictions(labels, probabilities, "abc", None)
    lines = words_of(lines_of(show_evaluation, evaluation))
    score = evaluation.scores["balanced_accuracy"]
    assert lines[0] == ["metric", "value", "95 % interval"]
    assert ["balanced accuracy", f"{score.value:.4f}", f"{score.low:.4f} … {score.high:.4f}"] in lines
    assert ["AUC", f"{evaluation.scores['auc'].value:.4f}", "–"] in lines
    assert lines[11] == ["class", "images", "sensitivity", "specificity", "precision", "f1", "auc"]
    assert [row[0] for row in lines[12:15]] == ["a", "b", "c"]
    assert sum(int(row[1]) for row in lines[12:15]) == 90
    assert lines[15] == [
        "90 images; intervals from 2,000 bootstrap resamples of the images, too narrow if lesions have several "
        "(--lesions)"
    ]


def test_lesions_are_said_to_be_resampled():
    labels, probabilities = scored_predictions()
    lesions = [f"HAM_{number // 2}" for number in range(90)]
    lines = lines_of(show_evaluation, evaluate_predictions(labels, probabilities, "abc", lesions))
    assert lines[-1] == "90 images of 45 lesions; intervals from 2,000 bootstrap resamples of the lesions"


def test_what_is_undefined_has_a_dash_and_a_note():
    labels, probabilities = np.array([0, 0]), np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1]])
    lines = words_of(lines_of(show_evaluation, evaluate_predictions(labels, probabilities, "abc", None)))
    assert ["Cohen's kappa", "–", "–", "undefined: every image is a and is said to be"] in lines
    assert ["c", "0", "–", "1.0000", "–", "–", "–"] in lines


# the matrix


def test_the_matrix_and_what_looks_most_like_each_class():
    assert words_of(lines_of(show_matrix, BALANCED)) == [
        ["MEL", "NV", "BCC", "looks most like"],
        ["MEL", "0.50", "0.25", "0.25", "NV"],
        ["NV", "0.25", "0.50", "0.25", "MEL"],
        ["BCC", "0.10", "0.30", "0.60", "NV"],
        ["p̄ = 0.5333, the mean of the diagonal; of hard labels it is 1"],
    ]


@pytest.mark.parametrize(
    ("model", "last"),
    [
        (BASELINE, "no CCL head learned these labels: the model was trained with method: baseline"),
        (
            replace(BALANCED, params={"head_balance": "none"}),
            "the head was not balanced over the classes: rare ones may come out alike, whatever they look like",
        ),
    ],
)
def test_what_a_matrix_does_not_show_is_said(model: ModelDescription, last: str):
    assert lines_of(show_matrix, model)[-1] == last


def test_the_table_of_the_matrix():
    table = matrix_table(BALANCED)
    assert list(table) == ["label", "MEL", "NV", "BCC"]
    assert table["label"].tolist() == BALANCED.classes
    np.testing.assert_array_equal(table[BALANCED.classes].to_numpy(), BALANCED.label_matrix)


def test_similar_classes_come_in_the_order_of_their_cells():
    assert similar_classes(BALANCED)[2] == [("NV", 0.3), ("MEL", 0.1)]
    assert similar_classes(BASELINE) == []


@pytest.mark.parametrize("value", [0.0, 0.3, 0.49, 0.7, 1.0])
def test_cells_can_be_read_in_any_colour(value: float):
    style = screen.coloured(value)
    assert style.bgcolor and style.color and style.bgcolor.triplet and style.color.triplet
    background = [channel / 255 for channel in style.bgcolor.triplet]
    assert set(style.color.triplet) == ({255} if is_dark(*background) else {0})


@pytest.mark.parametrize("terminal", [True, False])
def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch, terminal: bool):
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    show_matrix(Console(file=file, force_terminal=terminal), BALANCED)
    assert ("\x1b[" in file.getvalue()) == terminal


def test_without_a_terminal_the_screen_is_as_wide_as_its_tables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert screen.screen().width == screen.UNBOUNDED
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert screen.screen().width == 40


def test_a_reader_that_is_gone_is_an_error_for_the_whole_program(monkeypatch: pytest.MonkeyPatch):
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    with pytest.raises(BrokenPipeError):
        screen.say(screen.screen(), "nobody reads this")
    with pytest.raises(BrokenPipeError):
        sys.stdout.close()
