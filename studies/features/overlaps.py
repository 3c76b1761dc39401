"""cleanlab's overlapping classes on all images: which classes the labels themselves may mix up.

It is installed for this experiment only: ``pip install cleanlab``. The finished cells are in the report without it.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cclnet.dataset.isic import CLASSES
from cclnet.metrics.estimators import out_of_fold_probabilities
from cclnet.metrics.likeness import share_explained_by_counts
from cclnet.system.errors import CCLNetError
from studies.features.data import FOLDS, FixedFeatures
from studies.features.records import Matrix, Plan, Results, Settings, rounded

ITERATIONS = 1000


def discriminant(features: Matrix, labels: NDArray[np.int64], folds: NDArray[np.int64]) -> Matrix:
    """The probabilities that the estimator ``predictions`` takes, with the same prior for all classes, n×K."""
    return out_of_fold_probabilities(features, labels, folds, len(CLASSES))


def logistic(features: Matrix, labels: NDArray[np.int64], folds: NDArray[np.int64]) -> Matrix:
    """The probabilities of a logistic regression, as cleanlab's documentation has them, n×K."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    parts = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    return np.asarray(cross_val_predict(classifier, features, labels, cv=parts, method="predict_proba"))


PROBABILITIES: dict[str, Callable[[Matrix, NDArray[np.int64], NDArray[np.int64]], Matrix]] = {
    "discriminant": discriminant,
    "logistic": logistic,
}
PLAN: Plan = {
    f"overlaps-{name}-{seed}": {"probabilities": name, "seed": seed} for seed in range(3) for name in PROBABILITIES
}


def run(settings: Settings, data: FixedFeatures) -> Results:
    """Count the overlaps of every two classes from out-of-fold probabilities; the seed decides on the folds."""
    labels = data.labels.numpy()
    folds = np.empty(len(labels), dtype=np.int64)
    for number in range(FOLDS):
        folds[data.fold(number, settings["seed"])[1].numpy()] = number
    features = data.features.double().numpy()
    found = overlaps(labels, PROBABILITIES[settings["probabilities"]](features, labels, folds))
    share = share_explained_by_counts(found, np.bincount(labels))
    return {
        "similarity": rounded(found),
        "explained_by_counts": None if share is None else round(share.explained, 4),
        "cleanlab": version("cleanlab"),
    }


def overlaps(labels: NDArray[np.int64], probabilities: Matrix) -> Matrix:
    """The joint probability that one class is given and another one true, in either order, K×K.

    Raises:
        CCLNetError: cleanlab is not installed.
    """
    try:
        find_overlapping_classes = import_module("cleanlab.dataset").find_overlapping_classes
    except ImportError as error:
        raise CCLNetError(f"the experiment overlaps needs cleanlab: pip install cleanlab ({error})") from error
    table = find_overlapping_classes(labels=labels, pred_probs=probabilities)
    matrix = np.zeros((probabilities.shape[1],) * 2)
    pairs = table["Class Index A"].to_numpy(), table["Class Index B"].to_numpy()
    matrix[pairs] = matrix[pairs[::-1]] = table["Joint Probability"].to_numpy()
    return matrix
