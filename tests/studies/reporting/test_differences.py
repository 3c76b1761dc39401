"""Methods beside each other: differences over seeds, their intervals, and what is refused."""

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.lines import Line2D

from cclnet.metrics.resampling import holm, mcnemar
from cclnet.system.errors import DataError
from studies.reporting.cells import Cell
from studies.reporting.differences import (
    csv_rows,
    differences_figure,
    mcnemar_table,
    method_differences,
    metric_table,
)
from tests.studies.reporting.made_up import TRUTH, random_cell


def accuracy(cells: Sequence[Cell]) -> float:
    """Over several runs, by hand."""
    return float(np.mean([(cell.probabilities.argmax(axis=1) == TRUTH).mean() for cell in cells]))


def test_differences_are_those_of_the_seeds_that_both_have():
    reference = [random_cell(seed) for seed in (1, 2, 3)]
    better = [random_cell(seed, skill=4.0) for seed in (2, 3, 4)]
    others = {"better": better, "same": reference[:1], "elsewhere": [random_cell(9)]}
    first, second = method_differences(reference, others, ["accuracy", "nll"])
    assert [(each.name, each.seeds) for each in (first, second)] == [("better", 2), ("same", 1)]
    found = first.differences["accuracy"]
    assert found and found.hierarchical
    assert found.fixed.estimate == pytest.approx(accuracy(better[:2]) - accuracy(reference[1:]))
    assert found.fixed.low > 0 and len(first.mcnemar) == 2 and max(first.mcnemar) < 0.01
    by_hand = [mcnemar(ours.right, theirs.right).p for ours, theirs in zip(better[:2], reference[1:], strict=True)]
    assert first.mcnemar == by_hand
    same = second.differences["accuracy"]
    assert same and same.fixed == (0, 0, 0, 1) and same.hierarchical is None and second.mcnemar == [1.0]
    assert second.columns("accuracy") == {
        "difference": "+0.000",
        "these seeds": "(+0.000, +0.000), p = 1.000",
        "other seeds": "–",
    }
    assert first.columns("accuracy")["these seeds"].endswith("p ≤ 0.0002")  # 2 / 20,001, for two methods


def test_seeds_that_differ_widen_the_interval_for_other_seeds():
    reference = [random_cell(seed) for seed in range(3)]
    uneven = [random_cell(seed, skill=skill) for seed, skill in enumerate((0.0, 1.5, 4.0))]
    (found,) = method_differences(reference, {"uneven": uneven}, ["accuracy"])
    difference = found.differences["accuracy"]
    assert difference and difference.hierarchical
    fixed, hierarchical = difference.fixed, difference.hierarchical
    assert hierarchical.high - hierarchical.low > 2 * (fixed.high - fixed.low)
    assert hierarchical.p > 10 * fixed.p


def test_p_values_are_adjusted_over_the_methods_and_not_over_the_metrics():
    reference = [random_cell(seed) for seed in (0, 1)]
    skills = {"a": 1.1, "b": 1.3, "c": 4.0}
    methods = {name: [random_cell(seed, skill=skill) for seed in (0, 1)] for name, skill in skills.items()}
    found = method_differences(reference, methods, ["accuracy", "nll"])
    for metric in ("accuracy", "nll"):
        differences = [each.differences[metric] for each in found]
        fixed = holm([each.fixed.p for each in differences if each]).tolist()
        hierarchical = holm([each.hierarchical.p for each in differences if each and each.hierarchical]).tolist()
        assert [p.value for each in found if (p := each.p_fixed[metric])] == pytest.approx(fixed)
        assert [p.value for each in found if (p := each.p_hierarchical[metric])] == pytest.approx(hierarchical)


@pytest.mark.parametrize("column", ["image", "label", "lesion"])
def test_cells_of_other_images_are_not_compared(column: str):
    reference, other = [random_cell(0), random_cell(1)], [random_cell(0, skill=2), random_cell(1, skill=2)]
    other[1].predictions.loc[7, column] = "another" if column != "label" else other[1].classes[TRUTH[7] - 1]
    with pytest.raises(DataError, match=r"^these cells have other validation images than method-0, .*: method-1$"):
        method_differences(reference, {"other": other}, ["accuracy"])


def test_a_table_of_a_metric_has_every_method_and_the_differences_to_each_reference():
    runs = {
        "a": [random_cell(0, metrics={"accuracy": 0.5})],
        "b": [random_cell(0, skill=3, metrics={"accuracy": 0.75})],
    }
    references = {
        name: method_differences(
            runs[name], {other: cells for other, cells in runs.items() if other != name}, ["accuracy"]
        )
        for name in runs
    }
    first, second = metric_table(runs, "accuracy", references, {"a": 0.8347})
    assert (first["paper"], first["n"], first["here"]) == ("0.8347", "1", "0.500")
    assert (second["paper"], second["here"]) == ("–", "0.750")
    difference = accuracy(runs["b"]) - accuracy(runs["a"])
    assert (first["− a: difference"], second["− a: difference"]) == ("reference", f"{difference:+.3f}")
    assert (second["− b: difference"], first["− b: difference"]) == ("reference", f"{-difference:+.3f}")
    assert second["− a: other seeds"] == "–"
    assert "paper" not in metric_table(runs, "accuracy", references)[0]
    (test,) = mcnemar_table(references["a"], "a")
    assert test == {"method": "b", "exact McNemar's p against a, seed by seed": f"{references['a'][0].mcnemar[0]:.2f}"}


def test_the_unrounded_rows_hold_every_number():
    runs = {
        name: [random_cell(seed, skill=skill, metrics={"accuracy": 0.1 * seed}) for seed in (1, 2)]
        for name, skill in (("a", 1.0), ("b", 2.0))
    }
    differences = method_differences(runs["a"], {"b": runs["b"]}, ["accuracy"])
    first, second = csv_rows({"data": "x"}, runs, {"a": differences}, ["accuracy"], {"b": {"accuracy": 0.9}})
    assert first["difference"] is None and first["paper"] is None and first["mean"] == pytest.approx(0.15)
    found = differences[0].differences["accuracy"]
    assert found and found.hierarchical
    assert (second["data"], second["method"], second["reference"], second["paper"]) == ("x", "b", "a", 0.9)
    assert (second["difference"], second["low"], second["high"], second["p"]) == found.fixed
    assert (second["low_seeds"], second["high_seeds"], second["p_seeds"]) == found.hierarchical[1:]
    assert (second["p_holm"], second["p_seeds_holm"]) == (found.fixed.p, found.hierarchical.p)  # one method
    assert second["deviation"] == pytest.approx(np.std([0.1, 0.2], ddof=1))


def test_the_figure_has_every_interval():
    reference = [random_cell(0), random_cell(1)]
    methods = {name: [random_cell(seed, skill=skill) for seed in (0, 1)] for name, skill in (("a", 2), ("b", 0))}
    found = method_differences(reference, methods, ["accuracy", "nll"])
    figure = differences_figure({"group": found}, {"accuracy": "accuracy", "nll": "NLL"}, "CCL-Net")
    assert [axes.get_title() for axes in figure.axes] == ["accuracy", "NLL"]
    assert figure.get_supxlabel().startswith("difference from CCL-Net; 95 %")
    drawn = {tuple(np.asarray(line.get_xdata()).tolist()): line for line in figure.axes[1].lines}
    for each in found:
        difference = each.differences["nll"]
        assert difference and difference.hierarchical and (difference.fixed.estimate,) in drawn
        thick, thin = (drawn[kind.low, kind.high] for kind in (difference.fixed, difference.hierarchical))
        assert isinstance(thick, Line2D) and thick.get_linewidth() > thin.get_linewidth()
