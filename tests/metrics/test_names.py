from collections import Counter

import numpy as np

from cclnet.metrics import evaluate
from cclnet.metrics.names import HEADLINE, LOWER_IS_BETTER, METRICS, TEST_IMAGES, VALIDATION_METRICS, title


def test_every_figure_of_merit_has_a_title():
    assert set(evaluate([0, 1], np.eye(2))) < set(METRICS)
    assert set(HEADLINE) < set(METRICS)


def test_titles_are_distinct_and_fit_into_a_table_of_80_columns():
    assert max(Counter(metric.title for metric in METRICS.values()).values()) == 1
    assert max(len(title(name)) for name in evaluate([0, 1], np.eye(2))) <= 17


def test_what_is_an_error_is_better_the_lower():
    lower = {name for name, metric in METRICS.items() if metric.group == LOWER_IS_BETTER}
    assert lower == {"nll", "brier", "ece", "classwise_ece"}


def test_scores_of_test_images_are_called_as_those_of_validation_images():
    scored = set(evaluate([0, 1], np.eye(2)))
    of_test_images = {name for name, metric in METRICS.items() if metric.group == TEST_IMAGES}
    assert of_test_images == {f"test_{name}" for name in scored}
    assert METRICS["test_nll"].title == "NLL of test images"
    assert not of_test_images & set(HEADLINE)


def test_curves_of_the_validation_are_called_as_their_metrics():
    assert VALIDATION_METRICS["validation_f1"] == "macro F1"
    assert {column.removeprefix("validation_") for column in VALIDATION_METRICS} < set(METRICS)
