"""A page that compares two experiments: scores, matrices, histories and params, with the differences b − a."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.experiments.comparison import Change, Comparison
from cclnet.experiments.records import Record
from cclnet.experiments.run import Run
from cclnet.metrics.names import HIGHER_IS_BETTER, LOWER_IS_BETTER, METRICS
from cclnet.views import charts
from cclnet.views.figures import has_numbers
from cclnet.views.matrix_view import MatrixView, matrix_view
from cclnet.views.rendering import (
    decimals,
    drawing_libraries,
    flat,
    full_names,
    page_environment,
    script_sources,
    setting,
    signed,
)

SECTIONS = {
    "scores": "Scores",
    "classes": "Sensitivity of each class",
    "training": "Training",
    "soft-labels": "Soft labels",
    "confusion": "Confusion",
    "params": "Changed params",
}
"""Anchor of each section → title."""

CURVES = {
    "Classification loss on the training images": {"classification_loss": "classification loss"},
    "Metrics on the validation images": {
        "validation_accuracy": "accuracy",
        "validation_balanced_accuracy": "balanced accuracy",
    },
    "Softness p̄ of the soft labels": {"softness": "softness p̄"},
}
"""Title of each chart → columns of ``metrics/history.csv`` and their labels."""


class ChangedParam(NamedTuple):
    """A param that differs, in the notation of ``params.yaml``; a dash where it does not exist."""

    name: str
    a: str
    b: str


def comparison_page(comparison: Comparison, runs: tuple[Run, Run], records: tuple[Record, Record]) -> str:
    """The page as HTML; it is deterministic.

    Args:
        comparison: of the two experiments.
        runs: their results.
        records: what is known of their params and their training.
    """
    names = (f"A {comparison.a}", f"B {comparison.b}")
    histories = {
        name: record.history for name, record in zip(names, records, strict=True) if record.history is not None
    }
    return (
        page_environment()
        .get_template("compare.html")
        .render(
            comparison=comparison,
            names=names,
            metrics=METRICS,
            scores=_scores(comparison),
            full_names=full_names(runs[0].classes),
            sections=SECTIONS,
            histories=histories,
            training_charts=_training_charts(histories, runs),
            epochs=_epoch_table(histories),
            soft_labels=_soft_label_matrices(names, runs),
            confusions=_confusion_matrices(names, runs),
            params_known=all(record.params for record in records),
            changed_params=changed_params(*(record.params for record in records)),
            libraries=drawing_libraries(),
            script_sources=script_sources(),
        )
    )


def _scores(comparison: Comparison) -> dict[str, list[Change]]:
    """The metrics of both, grouped by higher or lower is better."""
    return {
        group: [change for change in comparison.metrics if METRICS[change.name].group == group]
        for group in (HIGHER_IS_BETTER, LOWER_IS_BETTER)
    }


def changed_params(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[ChangedParam]:
    """The params that differ, by name; without the blocks of datasets that neither experiment uses."""
    flat_a, flat_b = flat(a), flat(b)
    used = {str(params.get("dataset")) for params in (a, b)}
    names = [
        name
        for name in sorted(flat_a.keys() | flat_b.keys())
        if not name.startswith("datasets.") or name.split(".")[1] in used
    ]
    missing = object()
    return [
        ChangedParam(name, *(setting(values[name]) if name in values else "–" for values in (flat_a, flat_b)))
        for name in names
        if flat_a.get(name, missing) != flat_b.get(name, missing)
    ]


def _training_charts(histories: Mapping[str, pd.DataFrame], runs: tuple[Run, Run]) -> dict[str, charts.Chart]:
    """Title → chart with the curves of both; softness only if an experiment learned soft labels."""
    if not histories:
        return {}
    learned = any(run.learned_soft_labels is not None for run in runs)
    return {
        title: charts.histories_chart(histories, columns, f"{title}, by epoch")
        for title, columns in CURVES.items()
        if learned or "softness" not in columns
    }


def _epoch_table(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The data of the charts, one row per epoch and one column per curve and experiment."""
    labels = {column: label for columns in CURVES.values() for column, label in columns.items()}
    columns = {
        f"{label}, {name.split()[0]}": history.set_index("epoch")[column]
        for column, label in labels.items()
        for name, history in histories.items()
        if has_numbers(history, column)
    }
    return pd.DataFrame(columns)


def _soft_label_matrices(names: tuple[str, str], runs: tuple[Run, Run]) -> dict[str, MatrixView]:
    """Title → the learned matrix of each, and their difference if both learned one."""
    learned = {name: run.learned_soft_labels for name, run in zip(names, runs, strict=True)}
    matrices = {name: matrix for name, matrix in learned.items() if matrix is not None}
    classes = runs[0].classes
    views = {name: matrix_view(matrix, classes, lambda cell: decimals(cell, 2)) for name, matrix in matrices.items()}
    if len(matrices) == len(runs):
        a, b = matrices.values()
        views["B − A"] = matrix_view(b - a, classes, lambda cell: signed(cell, 2))
    return views


def _confusion_matrices(names: tuple[str, str], runs: tuple[Run, Run]) -> dict[str, MatrixView]:
    """Title → the matrix of each and their difference: numbers of images, coloured by the share of the true class."""
    a, b = runs
    shares: dict[str, NDArray[np.float64]] = {name: run.confusion_shares for name, run in zip(names, runs, strict=True)}
    views = {
        name: matrix_view(shares[name], run.classes, str, run.confusion) for name, run in zip(names, runs, strict=True)
    }
    difference = matrix_view(
        b.confusion_shares - a.confusion_shares, a.classes, lambda cell: signed(cell, 0), b.confusion - a.confusion
    )
    return views | {"B − A": difference}
