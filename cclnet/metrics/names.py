"""The names of all metrics: one table of titles for figures, pages, tables, the terminal and the studies."""

from typing import NamedTuple

HIGHER_IS_BETTER, LOWER_IS_BETTER = "higher is better", "lower is better"
SOFT_LABELS, DATA, EPOCHS = "soft labels", "data", "epochs"
TEST_IMAGES = "test images"
OF_TEST_IMAGES = "test_"
"""Before the name of a score of the test images that the data give."""


class Metric(NamedTuple):
    """The title of a metric, its group, and an explanation if the title needs one."""

    title: str
    group: str
    meaning: str = ""


METRICS = {
    "accuracy": Metric("accuracy", HIGHER_IS_BETTER),
    "balanced_accuracy": Metric("balanced accuracy", HIGHER_IS_BETTER, "mean sensitivity of the classes"),
    "f1": Metric("macro F1", HIGHER_IS_BETTER),
    "kappa": Metric("Cohen's kappa", HIGHER_IS_BETTER),
    "jaccard": Metric("macro Jaccard", HIGHER_IS_BETTER),
    "auc": Metric("AUC", HIGHER_IS_BETTER, "area under the ROC curve, each class against the rest, averaged"),
    "nll": Metric("NLL", LOWER_IS_BETTER, "negative log-likelihood in nats"),
    "brier": Metric("Brier score", LOWER_IS_BETTER),
    "ece": Metric("ECE", LOWER_IS_BETTER, "expected calibration error"),
    "classwise_ece": Metric("classwise ECE", LOWER_IS_BETTER, "calibration error of each class, averaged"),
    "softness": Metric("softness p̄", SOFT_LABELS, "mean probability of the own class"),
    "not_explained_by_counts": Metric("not explained by class counts", SOFT_LABELS, "share of the rank variance"),
    "follows_confusion": Metric("agreement with confusions", SOFT_LABELS, "rank correlation"),
    "follows_features": Metric("agreement with features", SOFT_LABELS, "rank correlation"),
    "planted_similarity": Metric("agreement with planted similarity", SOFT_LABELS, "rank correlation"),
    "planted_in_features": Metric("planted similarity in features", SOFT_LABELS, "rank correlation"),
    "leakage": Metric("leakage", DATA, "share of validation images of a lesion that is also trained on"),
    "softness_epoch": Metric("epoch of the soft labels", EPOCHS),
    "lowest_softness_epoch": Metric("epoch of the lowest softness", EPOCHS),
    "converged_epoch": Metric("epoch of the freeze", EPOCHS),
}
METRICS |= {
    f"{OF_TEST_IMAGES}{name}": Metric(f"{metric.title} of test images", TEST_IMAGES)
    for name, metric in METRICS.items()
    if metric.group in (HIGHER_IS_BETTER, LOWER_IS_BETTER)
}
"""Name → metric, in the order of all lists."""

HEADLINE = (
    *("accuracy", "balanced_accuracy", "f1", "kappa", "jaccard"),
    *("ece", "softness", "planted_similarity"),
)
"""The metrics that ``dvc metrics`` shows; ``metrics/scores.csv`` contains all metrics."""

LOSSES = {
    "classification_loss": "classification",
    "ccl_loss": "CCL head",
    "class_correlation_loss": "class correlation",
}
"""Column of ``metrics/history.csv`` → title."""

VALIDATION_METRICS = {
    f"validation_{name}": METRICS[name].title for name in ("accuracy", "balanced_accuracy", "f1", "kappa", "jaccard")
}
"""Column of ``metrics/history.csv`` → title."""


def title(name: str) -> str:
    """The title of a metric."""
    return METRICS[name].title
