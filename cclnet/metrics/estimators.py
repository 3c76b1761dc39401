"""How alike two classes are, measured on features of their images: the estimators of ``metrics.similarity``.

Each takes n features, their classes 0 … K − 1 and the fold of every image. Each gives K×K similarities, and K×K
distances to put into Eq. 2 of the paper in the place of f_d. Similarities are symmetric; the larger, the more alike.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

SHRINKAGE = 0.1
"""Weight of a multiple of the identity in the covariance of a discriminant analysis."""
SMALLEST_SIMILARITY = 1e-6  # its logarithm is finite
SMALLEST_DISTANCE = 1e-3  # of two classes that are not told apart
HEAD_STEPS = 1000
HEAD_BATCH = 128
PAPER_STEPS = 12_600  # 200 epochs of 63 batches
PAPER_RATE = 0.0005  # lr_CCL


class Estimator(ABC):
    """A similarity of classes.

    Args:
        features: n×d.
        labels: n classes, 0 … K − 1, each at least once.
        folds: n numbers; images of one group have the same.
        num_classes: K.
        seed: of what is drawn.

    Attributes:
        resamples: whether ``similarities`` follows weights; else every resample would need a training of its own.
    """

    resamples: ClassVar[bool] = True

    def __init__(self, features: Array, labels: Labels, folds: Labels, num_classes: int, seed: int = 0) -> None:
        self.places = [np.flatnonzero(labels == label) for label in range(num_classes)]
        self.prepare(features, labels, folds, num_classes, seed)

    @abstractmethod
    def prepare(self, features: Array, labels: Labels, folds: Labels, num_classes: int, seed: int) -> None:
        """What is computed once."""

    @abstractmethod
    def similarities(self, weights: Array) -> Array:
        """B×K×K similarities under B×n weights of the images; NaN where a class has no weight."""

    @abstractmethod
    def distances(self, similarity: Array) -> Array:
        """The K×K distances that belong to similarities: 0 on the diagonal, positive elsewhere."""

    def class_means(self, values: NDArray[np.floating], weights: Array) -> Array:
        """The weighted mean of n×d values over each class, B×K×d."""
        sums = np.stack([weights[:, rows] @ values[rows] for rows in self.places], axis=1)
        images = np.stack([weights[:, rows].sum(axis=1) for rows in self.places], axis=1)
        with np.errstate(invalid="ignore"):
            return sums / images[:, :, None]


class MeanPredictions(Estimator):
    """s_ij = 2 (P_ij + P_ji) / (P_ii + P_jj + P_ij + P_ji), P_ij the mean probability of class j for images of class i.

    The probabilities are those of a linear discriminant analysis that has not seen the image's group, with the same
    prior for all classes, so the classes' sizes play no part. 0: the two classes are never confused; 1: the features
    do not tell them apart; more, up to 2: each is taken for the other more often than for itself.
    """

    def prepare(self, features: Array, labels: Labels, folds: Labels, num_classes: int, seed: int) -> None:
        self.values = self.evidence(out_of_fold_probabilities(features, labels, folds, num_classes))

    def evidence(self, probabilities: Array) -> Array:
        """What is averaged over the images of a class, n×K."""
        return probabilities

    def similarities(self, weights: Array) -> Array:
        rates = self.class_means(self.values, weights)
        own = np.diagonal(rates, axis1=1, axis2=2)
        mutual = rates + rates.transpose(0, 2, 1)
        sums = own[:, :, None] + own[:, None, :] + mutual
        found = np.where(sums > 0, 2 * mutual / np.where(sums > 0, sums, 1), np.where(np.isnan(sums), np.nan, 1.0))
        places = np.arange(len(self.places))
        found[:, places, places] = np.where(np.isnan(own), np.nan, 1.0)
        return found

    def distances(self, similarity: Array) -> Array:
        """The logarithm of (P_ii + P_jj) / (P_ij + P_ji)."""
        inner = similarity.clip(SMALLEST_SIMILARITY, 1)
        return _positive(np.log((2 - inner) / inner))


class Confusions(MeanPredictions):
    """The same with the most probable class in place of the probabilities: how often classes are confused."""

    def evidence(self, probabilities: Array) -> Array:
        return np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]


class ClassMeans(Estimator):
    """s_ij = cos(m_i − m, m_j − m), m_i the mean feature of class i and m the mean of all m_i; from −1 to 1."""

    def prepare(self, features: Array, labels: Labels, folds: Labels, num_classes: int, seed: int) -> None:
        self.values = features

    def similarities(self, weights: Array) -> Array:
        means = self.class_means(self.values, weights)
        means -= means.mean(axis=1, keepdims=True)
        rounding = 1e-12 * np.abs(self.values).max()  # means that differ less are equal
        means /= np.linalg.norm(means, axis=2, keepdims=True).clip(rounding)
        return means @ means.transpose(0, 2, 1)

    def distances(self, similarity: Array) -> Array:
        return _positive(2 - 2 * similarity)


class Discriminant(Estimator):
    """s_ij = exp(−D_ij²/8), D_ij the Mahalanobis distance of two class means under the shrunken pooled covariance.

    It is the Bhattacharyya coefficient, the overlap of two normal distributions with this covariance: 1 if they are the
    same. From D² what the noise of the two means adds on average is subtracted, d/n_i + d/n_j for n_i and n_j
    independent images; else rare classes would seem distinct. Resamples keep the covariance.
    """

    def prepare(self, features: Array, labels: Labels, folds: Labels, num_classes: int, seed: int) -> None:
        _, covariance = _means_and_covariance(features, labels, num_classes)
        self.values = np.linalg.solve(np.linalg.cholesky(covariance), features.T).T

    def similarities(self, weights: Array) -> Array:
        means = self.class_means(self.values, weights)
        squares = (means**2).sum(axis=2)
        products = means @ means.transpose(0, 2, 1)
        distances = squares[:, :, None] + squares[:, None, :] - products - products.transpose(0, 2, 1)
        noise = self.values.shape[1] * self.noise(weights)
        return np.exp(-(distances - noise[:, :, None] - noise[:, None, :]).clip(0) / 8)

    def noise(self, weights: Array) -> Array:
        """The variance of each class's weighted mean of independent numbers of variance 1, B×K."""
        own = [weights[:, rows] for rows in self.places]
        with np.errstate(invalid="ignore"):
            return np.stack([(part**2).sum(axis=1) / part.sum(axis=1) ** 2 for part in own], axis=1)

    def distances(self, similarity: Array) -> Array:
        return _positive(-8 * np.log(similarity.clip(SMALLEST_SIMILARITY)))


class Head(Estimator):
    """s_ij = cos(c_i, c_j) of the dictionary of the paper's CCL head, trained on the features.

    ``HEAD_STEPS`` steps of SGD with the paper's settings, its learning rate scaled to the number of steps, without a
    freeze. Its matrix follows the sizes of the classes.
    """

    resamples = False
    balanced: ClassVar[bool] = False

    def prepare(self, features: Array, labels: Labels, folds: Labels, num_classes: int, seed: int) -> None:
        self.dictionary = trained_dictionary(features, labels, num_classes, seed, balanced=self.balanced)

    def similarities(self, weights: Array) -> Array:
        unit = self.dictionary / np.linalg.norm(self.dictionary, axis=1, keepdims=True)
        return np.repeat((unit @ unit.T)[None], len(weights), axis=0)

    def distances(self, similarity: Array) -> Array:
        return _positive(2 - 2 * similarity)


class BalancedHead(Head):
    """The same with a loss that gives every class the same weight."""

    balanced = True


ESTIMATORS: dict[str, type[Estimator]] = {
    "predictions": MeanPredictions,
    "confusions": Confusions,
    "class_means": ClassMeans,
    "discriminant": Discriminant,
    "head": Head,
    "balanced_head": BalancedHead,
}
"""By the names that ``ClassSimilarity`` and ``cclnet similar`` take."""


def out_of_fold_probabilities(features: Array, labels: Labels, folds: Labels, num_classes: int) -> Array:
    """The class probabilities of every image by a discriminant analysis of the other folds, n×K.

    A class that the other folds do not have gets 0.
    """
    probabilities = np.zeros((len(labels), num_classes))
    for fold in np.unique(folds):
        out = folds == fold
        counts = np.bincount(labels[~out], minlength=num_classes)
        known, number = np.flatnonzero(counts), np.cumsum(counts > 0) - 1  # number: of a class among those known
        inside = number[labels[~out]]
        probabilities[np.ix_(out, known)] = discriminant_probabilities(features[~out], inside, features[out])
    return probabilities


def discriminant_probabilities(features: Array, labels: Labels, others: Array, shrinkage: float = SHRINKAGE) -> Array:
    """The class probabilities of other images by linear discriminant analysis with a uniform prior, m×K.

    scikit-learn's own takes the prior as weight of each class's covariance, too, so that a class of few images, whose
    covariance is mostly noise, would count as much as the others; here the covariance is that of all images.

    Args:
        features: n×d.
        labels: n classes, 0 … K − 1, each at least once.
        others: m×d.
        shrinkage: weight of a multiple of the identity in the covariance.
    """
    means, covariance = _means_and_covariance(features, labels, int(labels.max()) + 1, shrinkage)
    directions = np.linalg.solve(covariance, means.T)  # d×K
    scores = others @ directions - (means.T * directions).sum(axis=0) / 2
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def discriminant_plane(features: Array, labels: Labels, num_classes: int) -> Array:
    """Two coordinates of every image, n×2: the plane in which the class means differ most, each counting the same.

    Distances are those of the discriminant analysis. With two classes the second coordinate is 0.
    """
    means, covariance = _means_and_covariance(features, labels, num_classes)
    root = np.linalg.cholesky(covariance)
    white, white_means = (np.linalg.solve(root, values.T).T for values in (features, means))
    directions = np.linalg.svd(white_means - white_means.mean(axis=0), full_matrices=False)[2][
        : min(2, num_classes - 1)
    ]
    places = (white - white_means.mean(axis=0)) @ directions.T
    return np.column_stack([places, np.zeros((len(places), 2 - places.shape[1]))])


def _means_and_covariance(
    features: Array, labels: Labels, num_classes: int, shrinkage: float = SHRINKAGE
) -> tuple[Array, Array]:
    """The mean of each class, K×d, and the shrunken covariance of all images about the means of their classes, d×d."""
    means = np.stack([features[labels == label].mean(axis=0) for label in range(num_classes)])
    within = features - means[labels]
    covariance = within.T @ within / len(features)
    scale = np.trace(covariance) / len(covariance) or 1.0
    return means, (1 - shrinkage) * covariance + shrinkage * scale * np.eye(len(covariance))


def trained_dictionary(features: Array, labels: Labels, num_classes: int, seed: int, *, balanced: bool) -> Array:
    """The class embeddings, K×n2, of a CCL head trained on fixed features."""
    import torch

    from cclnet.ccl import CCLHead, balancing_weights

    spread = features.std(axis=0).mean() or 1.0
    inputs = torch.from_numpy((features - features.mean(axis=0)) / spread).float()
    classes = torch.from_numpy(labels)
    weights = balancing_weights(torch.bincount(classes, minlength=num_classes)) if balanced else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = CCLHead(inputs.shape[1], num_classes)
        optimizer = torch.optim.SGD(
            head.parameters(), lr=PAPER_RATE * PAPER_STEPS / HEAD_STEPS, momentum=0.9, weight_decay=1e-4
        )
        for _ in range(HEAD_STEPS):
            rows = torch.randint(len(inputs), (HEAD_BATCH,))
            head.loss(inputs[rows], classes[rows], class_weights=weights).backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 2.0)
            optimizer.step()
            optimizer.zero_grad()
    return head.class_embeddings.detach().double().numpy()


def _positive(distances: Array) -> Array:
    """Distances with an exact 0 on the diagonal and nowhere else, so that a soft label prefers its own class."""
    return np.where(np.eye(len(distances), dtype=bool), 0.0, distances.clip(SMALLEST_DISTANCE))
