"""The estimators of class similarity, each against a slow loop of its definition."""

from math import exp, log, sqrt

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from cclnet.metrics import estimators
from cclnet.metrics.estimators import (
    ESTIMATORS,
    SHRINKAGE,
    Estimator,
    discriminant_plane,
    discriminant_probabilities,
    out_of_fold_probabilities,
)

K = 4
NAMES = sorted(ESTIMATORS)


@pytest.fixture(autouse=True)
def few_steps_of_a_head(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimators, "HEAD_STEPS", 40)


def drawn(images: int = 120, dimensions: int = 5, seed: int = 0):
    """Features, labels and folds; class 0 is like class 1."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(images) % K)
    centres = 3 * generator.normal(size=(K, dimensions))
    centres[1] = centres[0] + 0.4
    features = centres[labels] + generator.normal(size=(images, dimensions))
    return features, labels, generator.integers(3, size=images)


def estimator(name: str, **options: int) -> Estimator:
    return ESTIMATORS[name](*drawn(**options), K)


def whole(fitted: Estimator, images: int = 120):
    return fitted.similarities(np.ones((1, images)))[0]


def test_discriminant_probabilities_are_those_of_scikit_learn():
    features, labels, _ = drawn()
    model = LinearDiscriminantAnalysis(solver="svd", priors=[0.25] * K).fit(features, labels)
    found = discriminant_probabilities(features, labels, features[::-1], shrinkage=0)
    np.testing.assert_allclose(found, model.predict_proba(features[::-1]), atol=1e-9)


def test_shrunken_discriminant_probabilities_by_the_normal_density():
    features, labels, _ = drawn(images=60)
    means = [features[labels == k].mean(axis=0) for k in range(K)]
    within = sum(np.outer(x - means[k], x - means[k]) for x, k in zip(features, labels, strict=True)) / 60
    covariance = 0.9 * within + 0.1 * np.trace(within) / 5 * np.eye(5)
    densities = np.array([multivariate_normal(mean, covariance).pdf(features) for mean in means]).T
    expected = densities / densities.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(discriminant_probabilities(features, labels, features), expected, atol=1e-9)
    assert SHRINKAGE == 0.1


def test_the_sizes_of_the_classes_play_no_part_in_the_prior():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [2000, 50])
    found = discriminant_probabilities(generator.normal(size=(2050, 3)), labels, np.zeros((1, 3)))
    np.testing.assert_allclose(found, [[0.5, 0.5]], atol=0.05)


def test_out_of_fold_probabilities_are_those_of_models_that_did_not_see_the_fold():
    features, labels, folds = drawn()
    found = out_of_fold_probabilities(features, labels, folds, K)
    for image in range(len(labels)):
        others = folds != folds[image]
        expected = discriminant_probabilities(features[others], labels[others], features[[image]])
        np.testing.assert_allclose(found[[image]], expected, atol=1e-12)


def test_a_class_that_the_other_folds_lack_gets_probability_0():
    features, labels, folds = drawn()
    folds[labels == 2] = 0
    found = out_of_fold_probabilities(features, labels, folds, K)
    assert (found[folds == 0, 2] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_fold_whose_rest_is_of_one_class_is_predicted_as_that_class():
    features, labels, _ = drawn()
    found = out_of_fold_probabilities(features, labels, (labels != 3).astype(int), K)
    np.testing.assert_array_equal(found[labels != 3, 3], 1)


@pytest.mark.parametrize(("name", "most_probable"), [("predictions", False), ("confusions", True)])
def test_mean_predictions_by_a_slow_loop(name: str, most_probable: bool):
    features, labels, folds = drawn()
    given = out_of_fold_probabilities(features, labels, folds, K)
    if most_probable:
        given = np.array([[float(place == row.argmax()) for place in range(K)] for row in given])
    rates = [
        [np.mean([row[j] for row, own in zip(given, labels, strict=True) if own == i]) for j in range(K)]
        for i in range(K)
    ]
    expected = [
        [
            1.0 if i == j else 2 * (rates[i][j] + rates[j][i]) / (rates[i][i] + rates[j][j] + rates[i][j] + rates[j][i])
            for j in range(K)
        ]
        for i in range(K)
    ]
    found = whole(estimator(name))
    np.testing.assert_allclose(found, np.array(expected), atol=1e-12)
    np.testing.assert_allclose(np.diag(found), 1)


def test_classes_that_are_never_recognised_are_not_told_apart():
    fitted = estimator("confusions")
    fitted.values = np.eye(K)[np.full(120, 3)]  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(whole(fitted)[:3, :3], 1)


def test_class_means_by_a_slow_loop():
    features, labels, _ = drawn()
    means = [np.mean([row for row, own in zip(features, labels, strict=True) if own == k], axis=0) for k in range(K)]
    centre = sum(means) / K
    expected = [
        [sum((a - centre) * (b - centre)) / sqrt(sum((a - centre) ** 2)) / sqrt(sum((b - centre) ** 2)) for b in means]
        for a in means
    ]
    np.testing.assert_allclose(whole(estimator("class_means")), expected, atol=1e-12)


def test_the_discriminant_by_another_library():
    features, labels, _ = drawn()
    dimensions, images = features.shape[1], np.bincount(labels)
    pooled = sum(images[k] * np.cov(features[labels == k].T, bias=True) for k in range(K)) / len(labels)
    shrunk = (1 - SHRINKAGE) * pooled + SHRINKAGE * np.trace(pooled) / dimensions * np.eye(dimensions)
    inverse = np.linalg.inv(shrunk)
    means = [features[labels == k].mean(axis=0) for k in range(K)]
    found = whole(estimator("discriminant"))
    for i in range(K):
        for j in range(i):
            noise = dimensions / images[i] + dimensions / images[j]
            squared = max(0.0, mahalanobis(means[i], means[j], inverse) ** 2 - noise)
            assert found[i, j] == pytest.approx(exp(-squared / 8), abs=1e-9)


def test_the_discriminant_finds_no_distance_where_there_is_none_whatever_the_sizes():
    generator = np.random.default_rng(0)
    squared, noise = [], np.zeros(3)
    for _ in range(60):
        labels = np.repeat([0, 1, 2], [150, 40, 12])
        fitted = ESTIMATORS["discriminant"](generator.normal(size=(202, 8)), labels, labels, 3)
        means = fitted.class_means(fitted.values, np.ones((1, 202)))[0]  # pyright: ignore[reportAttributeAccessIssue]
        noise = 8 * fitted.noise(np.ones((1, 202)))[0]  # pyright: ignore[reportAttributeAccessIssue]
        squared.append([((means[a] - means[b]) ** 2).sum() - noise[a] - noise[b] for a, b in ((0, 1), (0, 2), (1, 2))])
    assert np.abs(np.mean(squared, axis=0)).max() < 0.25
    assert noise[2] == pytest.approx(8 / 12)


@pytest.mark.parametrize("name", ["head", "balanced_head"])
def test_heads_give_cosines_of_their_dictionary_and_follow_no_weights(name: str):
    fitted = estimator(name)
    dictionary = fitted.dictionary  # pyright: ignore[reportAttributeAccessIssue]
    expected = [[a @ b / sqrt(a @ a) / sqrt(b @ b) for b in dictionary] for a in dictionary]
    found = fitted.similarities(np.array([np.ones(120), np.arange(120.0)]))
    np.testing.assert_allclose(found, [expected, expected], atol=1e-12)
    assert not fitted.resamples


def test_a_head_is_the_same_for_the_same_seed_and_leaves_the_random_numbers_alone():
    import torch

    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second, other = (ESTIMATORS["head"](*drawn(), K, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(whole(first), whole(second))
    assert not np.array_equal(whole(first), whole(other))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_balanced_head_finds_what_looks_alike(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimators, "HEAD_STEPS", 200)
    found = whole(estimator("balanced_head"))
    beside = found[~np.eye(K, dtype=bool)]
    assert found[0, 1] == beside.max()


@pytest.mark.parametrize("name", NAMES)
def test_similarities_are_symmetric_and_their_distances_0_on_the_diagonal(name: str):
    fitted = estimator(name)
    found = whole(fitted)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    distances = fitted.distances((found + found.T) / 2)
    assert (np.diag(distances) == 0).all()
    assert (distances >= 0).all() and np.isfinite(distances).all()


@pytest.mark.parametrize("name", [name for name in NAMES if "head" not in name])
def test_the_more_alike_the_nearer(name: str):
    fitted = estimator(name)
    found = whole(fitted)
    beside = ~np.eye(K, dtype=bool)
    order = np.argsort(found[beside])
    assert (np.diff(fitted.distances(found)[beside][order]) <= 1e-12).all()
    assert found[0, 1] == found[beside].max()


@pytest.mark.parametrize("name", ["predictions", "confusions", "class_means"])
def test_a_weight_of_two_is_the_image_twice(name: str):
    fitted = estimator(name)
    times = np.arange(120) % 3
    weighted = fitted.similarities(times[None].astype(float))[0]
    rows = np.repeat(np.arange(120), times)
    labels = drawn()[1]
    fitted.values = fitted.values[rows]  # pyright: ignore[reportAttributeAccessIssue]
    fitted.places = [np.flatnonzero(labels[rows] == label) for label in range(K)]
    np.testing.assert_allclose(weighted, whole(fitted, len(rows)), atol=1e-12)


@pytest.mark.parametrize("name", ["predictions", "confusions", "class_means", "discriminant"])
def test_a_class_without_weight_has_no_similarity(name: str):
    fitted = estimator(name)
    found = fitted.similarities((drawn()[1] != 2)[None].astype(float))[0]
    assert np.isnan(found[2]).all()


def test_the_distance_of_predictions_is_a_logarithm():
    fitted = estimator("predictions")
    rates = fitted.class_means(fitted.values, np.ones((1, 120)))[0]  # pyright: ignore[reportAttributeAccessIssue]
    expected = log((rates[0, 0] + rates[1, 1]) / (rates[0, 1] + rates[1, 0]))
    assert fitted.distances(whole(fitted))[0, 1] == pytest.approx(expected)


def test_the_plane_shows_the_class_means_as_far_apart_as_any_plane_can():
    features, labels, _ = drawn()
    places = discriminant_plane(features, labels, K)
    turned = discriminant_plane(3 * features[:, ::-1] - 1, labels, K)
    between = [
        sum(
            np.linalg.norm(it[labels == a].mean(axis=0) - it[labels == b].mean(axis=0))
            for a in range(K)
            for b in range(a)
        )
        for it in (places, turned)
    ]
    assert places.shape == (120, 2)
    assert between[0] == pytest.approx(between[1])
    inverse = np.linalg.inv(
        np.cov(np.vstack([features[labels == k] - features[labels == k].mean(axis=0) for k in range(K)]).T)
    )
    for a in range(K):
        for b in range(a):
            whole_distance = mahalanobis(
                features[labels == a].mean(axis=0), features[labels == b].mean(axis=0), inverse
            )
            shown = np.linalg.norm(places[labels == a].mean(axis=0) - places[labels == b].mean(axis=0))
            assert shown <= 1.1 * whole_distance
    two = discriminant_plane(features[labels < 2], labels[labels < 2], 2)
    assert (two[:, 1] == 0).all()
