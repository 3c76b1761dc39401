import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import cbook
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from cclnet.views.figures import (
    confusion_figure,
    history_figure,
    is_dark,
    off_diagonal_ranks,
    rank_figure,
    reliability_figure,
    save_figure,
    soft_label_figure,
    soft_label_figures,
)

CLASSES = ["red", "green", "blue"]
MATRIX = np.array([[0.504, 0.306, 0.19], [0.1, 0.85, 0.05], [0.0, 0.0, 1.0]])


def history(epochs: int = 4, frozen_from: int | None = 3, head: bool = True) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    missing = np.full(epochs, np.nan)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "classification_loss": 2 / epoch,
            "ccl_loss": 1 / epoch if head else missing,
            "class_correlation_loss": 0.1 / epoch if head else missing,
            "softness": 0.5 / epoch if head else missing,
            "validation_accuracy": 0.1 * epoch,
            "validation_balanced_accuracy": 0.09 * epoch,
            "validation_f1": 0.08 * epoch,
            "validation_kappa": 0.07 * epoch,
            "validation_jaccard": 0.06 * epoch,
            "frozen": (epoch >= (frozen_from or epochs + 1)).astype(int) if head else missing,
        }
    )


def reliability() -> pd.DataFrame:
    return pd.DataFrame(
        {"bin": [2, 4, 5], "confidence": [0.35, 0.7, 0.95], "accuracy": [0.5, 0.6, 0.9], "count": [2, 5, 9]}
    )


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def labels(axes) -> list[str]:
    return [line.get_label() for line in axes.lines]


def points(line) -> np.ndarray:
    return np.asarray(line.get_xydata())


def test_every_cell_of_the_matrix_shows_its_number_with_its_row_as_the_class():
    axes = soft_label_figure(MATRIX, CLASSES, "Soft labels").axes[0]
    assert texts(axes) == ["0.50", "0.31", "0.19", "0.10", "0.85", "0.05", "0.00", "0.00", "1.00"]
    # position (x, y) = (column, row): the text of row 0, column 1 stands right of the corner, not below it
    assert [text.get_position() for text in axes.texts[:4]] == [(0, 0), (1, 0), (2, 0), (0, 1)]
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES
    assert axes.yaxis_inverted()
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("Soft labels", "probability given to", "class")


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_colours_are_the_values_on_the_fixed_scale(scale):
    [image] = soft_label_figure(MATRIX * scale, CLASSES, "").axes[0].images
    np.testing.assert_array_equal(image.get_array(), MATRIX * scale)
    assert image.get_clim() == (0, 1)


@pytest.mark.parametrize("num_classes", [2, 7, 30])
def test_numbers_stand_out_from_their_cells_and_fit_into_them(num_classes):
    matrix = np.linspace(0, 1, num_classes**2).reshape(num_classes, num_classes)
    figure = soft_label_figure(matrix, [f"class {k}" for k in range(num_classes)], "")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / num_classes
    for text, value in zip(axes.texts, matrix.ravel(), strict=True):
        assert contrast(to_rgb(text.get_color()), axes.images[0].to_rgba(np.array(value))[:3]) > 4.5
        assert text.get_window_extent().width < cell


def test_long_names_take_nothing_from_the_matrix():
    """Nor do names that could be read as formulas change, or fail."""
    names = ["x", "$5 or $6", "a_b^c", "basal cell carcinoma, nodular", "Ärger"]
    figures = soft_label_figure(np.eye(5), names, ""), soft_label_figure(np.eye(5), list("abcde"), "")
    for figure in figures:
        figure.draw_without_rendering()
    long, short = (figure.axes[0].get_window_extent() for figure in figures)
    assert long.width > 0.95 * short.width
    drawn = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert [text.replace(r"\$", "$") for text in drawn] == names
    assert not any(cbook.is_math_text(text) for text in drawn)


def test_more_classes_than_can_be_read_have_no_numbers():
    figure = soft_label_figure(np.eye(60), [str(name) for name in range(60)], "")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert list(axes.texts) == []
    assert figure.get_figheight() < 15
    heights = [label.get_window_extent().height for label in axes.get_yticklabels()]
    assert max(heights) < axes.get_window_extent().height / 60


def contrast(colour, other) -> float:
    """Contrast ratio of WCAG 2.2: at least 4.5 for text."""

    def luminance(channels) -> float:
        linear = np.where(
            np.array(channels) <= 0.04045, np.array(channels) / 12.92, ((np.array(channels) + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted([luminance(colour), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_white_is_for_dark_colours():
    assert is_dark(0, 0, 0) and is_dark(0, 0, 1)
    assert not is_dark(1, 1, 1) and not is_dark(0, 1, 0)


def test_matrices_side_by_side_share_scale_and_order():
    matrices = {f"run {run}": MATRIX / run for run in range(1, 6)}
    *panels, colour_bar = soft_label_figures(matrices, CLASSES).axes
    assert [axes.get_title() for axes in panels] == list(matrices)
    assert all(axes.images[0].get_clim() == (0, 1) for axes in panels)
    assert [axes.get_ylabel() for axes in panels] == ["class", "", "", "class", ""]
    for axes, matrix in zip(panels, matrices.values(), strict=True):
        assert texts(axes) == [f"{value:.2f}" for value in matrix.ravel()]
    assert colour_bar.get_ylabel() == "probability"


def test_ranks_are_those_of_the_cells_beside_the_diagonal():
    ranks = off_diagonal_ranks(np.array([[9.0, 0.1, 0.4], [0.2, 9.0, 0.2], [0.8, 0.3, 9.0]]))
    # 0.1, then 0.2 twice (places 1 and 2 of 0 … 5), 0.3, 0.4, 0.8
    expected = [[np.nan, 0, 4], [1.5, np.nan, 1.5], [5, 3, np.nan]]
    np.testing.assert_allclose(ranks, np.array(expected) / 5)


def test_rank_figure_colours_ranks_and_writes_values_also_on_the_grey_diagonal():
    [axes, _] = rank_figure({"first": MATRIX}, CLASSES).axes
    assert texts(axes) == ["0.50", "0.31", "0.19", "0.10", "0.85", "0.05", "0.00", "0.00", "1.00"]
    drawn = axes.images[0].get_array()
    assert isinstance(drawn, np.ma.MaskedArray)
    np.testing.assert_allclose(drawn.filled(np.nan), off_diagonal_ranks(MATRIX))
    assert {axes.texts[place].get_color() for place in (0, 4, 8)} == {"black"}


def test_confusion_matrix_shows_counts_and_colours_shares_of_the_row():
    axes = confusion_figure([[8, 2, 0], [1, 0, 3], [0, 0, 0]], CLASSES).axes[0]
    assert texts(axes) == ["8", "2", "0", "1", "0", "3", "0", "0", "0"]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), [[0.8, 0.2, 0], [0.25, 0, 0.75], [0, 0, 0]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_history_draws_every_column_over_the_epochs():
    data = history()
    losses, softness, validation = history_figure(data, num_classes=7).axes
    assert labels(losses) == ["classification", "CCL head", "class correlation", "dictionary frozen"]
    assert labels(softness) == ["learned", "at right angles, 0.551873", "dictionary frozen"]
    assert labels(validation)[:2] == ["accuracy", "balanced accuracy"]
    drawn = [*losses.lines[:3], softness.lines[0], *validation.lines[:5]]
    for line, column in zip(drawn, list(data.columns[1:-1]), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), data[["epoch", column]])


def test_history_marks_the_first_frozen_epoch_and_the_level_of_right_angles():
    softness = history_figure(history(frozen_from=3), num_classes=7).axes[1]
    learned, level, freeze = softness.lines
    assert list(points(level)[:, 1]) == pytest.approx([0.551873, 0.551873], abs=5e-7)
    assert level.get_linestyle() == ":"
    assert list(points(freeze)[:, 0]) == [3, 3]
    assert len(points(learned)) == 4


def test_history_without_a_freeze_draws_no_line_for_it():
    assert all("dictionary frozen" not in labels(axes) for axes in history_figure(history(frozen_from=None), 7).axes)


def test_history_of_a_method_without_a_head_has_no_softness():
    losses, validation = history_figure(history(head=False), num_classes=7).axes
    assert labels(losses) == ["classification"]
    assert len(validation.lines) == 5


def test_reliability_diagram_has_the_diagonal_the_curve_and_the_histogram():
    diagram, histogram = reliability_figure(reliability(), bins=5).axes
    diagonal, curve = diagram.lines
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(curve.get_xydata(), reliability()[["confidence", "accuracy"]])
    assert diagram.get_xlim() == diagram.get_ylim() == (0, 1)
    bars = [bar for bar in histogram.patches if isinstance(bar, Rectangle)]
    assert [bar.get_height() for bar in bars] == [2, 5, 9]
    # bins 2, 4 and 5 of five are centred on 0.3, 0.7 and 0.9
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([0.3, 0.7, 0.9])


SAVE_ALL = """
import sys
from pathlib import Path
from tests.views.test_figures import *

folder = Path(sys.argv[1])
matplotlib.rcParams["font.size"] = float(sys.argv[2])
figures = {
    "matrix": lambda: soft_label_figure(MATRIX, CLASSES, "Soft labels"),
    "confusion": lambda: confusion_figure([[8, 2, 0], [1, 0, 3], [0, 0, 0]], CLASSES),
    "history": lambda: history_figure(history(), 7),
    "reliability": lambda: reliability_figure(reliability()),
}
for name, draw in figures.items():
    save_figure(draw(), folder / f"{name}.png")
    save_figure(draw(), folder / f"{name}.svg")
assert "matplotlib.pyplot" not in sys.modules
"""


def test_the_same_numbers_give_the_same_bytes_for_any_hash_seed_and_user_style(tmp_path):
    digests = []
    for seed, font_size in (("1", "10"), ("2", "17")):
        folder = tmp_path / seed
        folder.mkdir()
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "TZ": f"UTC+{seed}",
        }
        subprocess.run([sys.executable, "-c", SAVE_ALL, folder, font_size], env=environment, check=True)
        digests.append({path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
    assert len(digests[0]) == 8
    assert digests[0] == digests[1]


def test_files_hold_no_date_and_a_picture_wide_enough_for_a_page(tmp_path):
    figure = soft_label_figure(MATRIX, CLASSES, "Soft labels")
    save_figure(figure, tmp_path / "matrix.svg")
    save_figure(figure, tmp_path / "matrix.png")
    assert "<dc:date>" not in (tmp_path / "matrix.svg").read_text(encoding="utf-8")
    with Image.open(tmp_path / "matrix.png") as image:
        assert image.width >= 800
        assert "Software" not in image.info
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_drawing_leaves_the_users_style_alone():
    before = dict(matplotlib.rcParams)
    soft_label_figure(MATRIX, CLASSES, "Soft labels")
    assert dict(matplotlib.rcParams) == before
