"""The estimators of ``cclnet similar`` on all images, with shuffled labels, and without each class."""

from cclnet.dataset.isic import CLASSES
from cclnet.metrics.estimators import ESTIMATORS
from cclnet.metrics.similarity import ClassSimilarity
from studies.features.data import FixedFeatures
from studies.features.records import Plan, Results, Settings, rounded

PLAN: Plan = {
    f"estimators-{name}-{seed}": {"estimator": name, "seed": seed} for seed in range(3) for name in ESTIMATORS
}


def run(settings: Settings, data: FixedFeatures) -> Results:
    """Fit one estimator; the seed decides on folds, shuffles and initial heads."""
    names = [CLASSES[label] for label in data.labels.tolist()]
    similarity = ClassSimilarity(
        settings["estimator"], resamples=0, classes=CLASSES, seed=settings["seed"], shuffles=3
    ).fit(data.features.numpy(), names, data.lesions.numpy())
    shares = similarity.count_share_, similarity.shuffled_count_share_
    explained = [None if share is None else round(share.explained, 4) for share in shares]
    return {
        "distances": rounded(similarity.distances_),
        "similarity": rounded(similarity.similarity_),
        "shuffled": rounded(similarity.shuffled_),
        "explained_by_counts": explained[0],
        "shuffled_explained_by_counts": explained[1],
    }
