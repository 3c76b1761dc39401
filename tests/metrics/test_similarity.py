"""The similarity of classes: what is found, how sure it is, and its control."""

import re
from itertools import combinations

import numpy as np
import pytest
from sklearn.base import clone

from cclnet.metrics import similarity
from cclnet.metrics.estimators import ESTIMATORS
from cclnet.metrics.similarity import (
    ALIKE,
    AVERAGE,
    DISTINCT,
    ClassSimilarity,
    right_angle_softness,
    soft_labels_of,
)
from cclnet.system.errors import DataError
from cclnet.system.progress import Report

NAMES = ["ant", "bee", "cat", "dog", "elk"]
RESAMPLED = [name for name in ESTIMATORS if "head" not in name]


def drawn(counts=(400, 60, 200, 100, 40), seed: int = 0, dimensions: int = 12):
    """Features and class names: cat and dog are alike, whatever their sizes."""
    generator = np.random.default_rng(seed)
    centres = np.eye(len(counts), dimensions) * 3.0
    if len(counts) > 3:
        centres[3] = centres[2]
        centres[3, 3] = 1.0
    labels = np.repeat(np.arange(len(counts)), counts)
    features = centres[labels] + generator.normal(size=(len(labels), dimensions))
    return features, np.array(NAMES)[labels]


def reports_to(reports: list[tuple[str, int, int]]) -> Report:
    def report(name: str, done: int, total: int, detail: str = "") -> None:
        reports.append((name, done, total))

    return report


def fast(estimator: str = "predictions", **options) -> ClassSimilarity:
    return ClassSimilarity(estimator, **{"resamples": 200, "shuffles": 4, **options})


@pytest.mark.parametrize("estimator", RESAMPLED)
def test_the_pair_that_is_alike_comes_first_whatever_the_sizes(estimator: str):
    found = fast(estimator).fit(*drawn())
    first = found.pairs_.iloc[0]
    assert (first["a"], first["b"], first["verdict"]) == ("cat", "dog", ALIKE)
    assert first["low"] < first["similarity"] < first["high"]
    assert first["low"] > found.pairs_["similarity"][1:].max()


def test_every_pair_is_listed_once_the_most_alike_first():
    found = fast().fit(*drawn())
    assert {tuple(pair) for pair in found.pairs_[["a", "b"]].to_numpy()} == set(combinations(NAMES, 2))
    assert found.pairs_["similarity"].is_monotonic_decreasing
    place = {name: number for number, name in enumerate(found.classes_)}
    for row in found.pairs_.to_dict("records"):
        a, b = place[row["a"]], place[row["b"]]
        assert row["similarity"] == found.similarity_[a, b] == found.similarity_[b, a]
        assert (row["low"], row["high"]) == (found.low_[a, b], found.high_[b, a])
        assert row["shuffled"] == found.shuffled_[a, b]


def test_shuffled_labels_cannot_be_told_apart_and_no_pair_stands_out():
    features, labels = drawn()
    found = fast(shuffles=10).fit(features, np.random.default_rng(1).permutation(labels))
    assert bool(found.pairs_["similarity"].between(0.8, 1.25).all())
    assert found.pairs_["verdict"].tolist().count(AVERAGE) >= 8
    assert fast().fit(features, labels).shuffled_[~np.eye(5, dtype=bool)].min() > 0.85


def test_distinct_classes_are_called_so():
    features, labels = drawn()
    features[labels == "ant"] += 30
    pairs = fast().fit(features, labels).pairs_.to_dict("records")
    assert {(pair["a"], pair["b"]): pair["verdict"] for pair in pairs}["ant", "bee"] == DISTINCT


def test_the_classes_keep_the_order_that_is_given():
    order = ["elk", "cat", "ant", "dog", "bee"]
    features, labels = drawn()
    given, by_name = fast(classes=order).fit(features, labels), fast().fit(features, labels)
    assert given.classes_ == order and by_name.classes_ == NAMES
    assert given.class_counts_.tolist() == [40, 200, 400, 100, 60]
    places = [NAMES.index(name) for name in order]
    exact = fast("class_means", classes=order).fit(features, labels).similarity_
    np.testing.assert_allclose(exact, fast("class_means").fit(features, labels).similarity_[np.ix_(places, places)])


def test_a_rotation_of_the_features_changes_nothing():
    features, labels = drawn()
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(12, 12)))[0]
    for estimator in ("predictions", "class_means"):
        plain, turned = (fast(estimator).fit(it, labels).similarity_ for it in (features, features @ rotation + 5))
        np.testing.assert_allclose(plain, turned, atol=0.02 if estimator == "predictions" else 1e-9)


def test_features_of_many_dimensions_are_reduced():
    features, labels = drawn()
    wide = np.hstack([10 * features, 1e-3 * np.random.default_rng(3).normal(size=(len(features), 100))])
    reduced = fast("class_means", components=12).fit(wide, labels)
    np.testing.assert_allclose(reduced.similarity_, fast("class_means").fit(features, labels).similarity_, atol=1e-3)
    few = fast("class_means").fit(wide[::40], labels[::40])  # fewer images than dimensions
    assert np.isfinite(few.similarity_).all()


def test_images_of_a_group_are_never_on_both_sides_of_a_fold():
    generator = np.random.default_rng(4)
    noise, labels = generator.normal(size=(100, 60)), np.array(NAMES)[np.arange(100) % 5]
    twice = np.vstack([noise, noise]), [*labels, *labels]  # a copy in the other folds tells the class
    grouped, leaking = fast().fit(*twice, [*range(100), *range(100)]), fast().fit(*twice)
    assert grouped.pairs_["similarity"].to_numpy().mean() > 0.9
    assert leaking.pairs_["similarity"].to_numpy().mean() < 0.8


@pytest.mark.parametrize("estimator", ["predictions", "class_means"])
def test_copies_in_one_group_leave_the_interval_as_wide_as_it_is(estimator: str):
    features, labels = drawn()
    once = fast(estimator, resamples=600).fit(features, labels)
    thrice, names = np.vstack([features] * 3), np.tile(labels, 3)
    grouped = fast(estimator, resamples=600).fit(thrice, names, np.tile(np.arange(len(labels)), 3))
    alone = fast(estimator, resamples=600).fit(thrice, names)
    width, same, narrow = (float((it.high_ - it.low_)[2, 3]) for it in (once, grouped, alone))
    assert same == pytest.approx(width, rel=0.2)
    assert narrow < 0.75 * width


def test_intervals_hold_the_true_similarity_about_as_often_as_they_say():
    generator = np.random.default_rng(6)
    centres = np.array([[2.0, 0, 0], [0, 2.0, 0], [1.5, 1.0, 1.0]])
    about = centres - centres.mean(axis=0)
    unit = about / np.linalg.norm(about, axis=1, keepdims=True)
    truth = unit @ unit.T
    inside = []
    for _ in range(60):
        labels = np.repeat([0, 1, 2], 150)
        found = fast("class_means", shuffles=0).fit(centres[labels] + generator.normal(size=(450, 3)), labels)
        inside += [found.low_[a, b] <= truth[a, b] <= found.high_[a, b] for a, b in combinations(range(3), 2)]
    assert 0.87 <= np.mean(inside) <= 0.99


def test_a_class_of_one_group_has_no_interval_and_no_verdict():
    features, labels = drawn()
    groups = np.arange(len(labels))
    groups[labels == "elk"] = 10_000
    found = fast("class_means").fit(features, labels, groups)
    assert np.isnan(found.low_[4, :4]).all() and np.isfinite(found.low_[:4, :4][~np.eye(4, dtype=bool)]).all()
    of_elk = found.pairs_[(found.pairs_["a"] == "elk") | (found.pairs_["b"] == "elk")]
    assert of_elk["verdict"].tolist() == [AVERAGE] * 4


def test_heads_have_no_intervals_and_one_shuffle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cclnet.metrics.estimators.HEAD_STEPS", 3)
    reports: list[tuple[str, int, int]] = []
    found = fast("head").fit(*drawn(), report=reports_to(reports))
    assert np.isnan(found.low_).all()
    assert set(found.pairs_["verdict"]) == {""}
    assert reports == [("shuffled labels", 1, 1)]
    assert np.isfinite(found.shuffled_).all()


def test_progress_is_reported_to_the_end():
    reports: list[tuple[str, int, int]] = []
    fast().fit(*drawn(), report=reports_to(reports))
    assert ("resamples", 200, 200) in reports and reports[-1] == ("shuffled labels", 4, 4)


def test_the_same_seed_gives_the_same_and_fewer_numbers_at_once_too(monkeypatch: pytest.MonkeyPatch):
    first = fast().fit(*drawn())
    monkeypatch.setattr(similarity, "AT_ONCE", 20_000)
    second, other = fast().fit(*drawn()), fast(seed=1).fit(*drawn())
    np.testing.assert_allclose(first.low_, second.low_, atol=1e-12)
    np.testing.assert_array_equal(first.similarity_, second.similarity_)
    assert not np.array_equal(first.low_, other.low_, equal_nan=True)


def test_without_resamples_and_shuffles_there_is_the_similarity_alone():
    found = fast(resamples=0, shuffles=0).fit(*drawn())
    assert np.isnan(found.low_).all() and np.isnan(found.shuffled_).all()
    assert found.shuffled_count_share_ is None and found.count_share_ is not None
    assert set(found.pairs_["verdict"]) == {""}


def test_two_classes_are_one_pair():
    features, labels = drawn(counts=(50, 30))
    found = fast().fit(features, labels)
    assert found.pairs_["verdict"].tolist() == [AVERAGE]
    assert found.count_share_ is None


def test_many_classes_take_seconds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(similarity, "MOST_KEPT", 100 * 500 * 499 // 2)
    monkeypatch.setattr(similarity, "FEWEST_RESAMPLES", 50)
    generator = np.random.default_rng(7)
    labels = np.repeat(np.arange(500), 4)
    features = generator.normal(size=(500, 16))[labels] + 0.3 * generator.normal(size=(2000, 16))
    features[labels == 400] += features[labels == 7] - features[labels == 400]
    reports: list[tuple[str, int, int]] = []
    found = ClassSimilarity("class_means", shuffles=1).fit(features, labels, report=reports_to(reports))
    assert ("resamples", 100, 100) in reports  # as many as there is memory for
    assert found.similarity_.shape == (500, 500)
    assert found.pairs_.iloc[0][["a", "b"]].tolist() == ["400", "7"]


def test_it_is_an_estimator_of_scikit_learn():
    model = ClassSimilarity("class_means", softness=0.4, seed=3)
    assert model.get_params()["softness"] == 0.4
    copy = clone(model)
    assert isinstance(copy, ClassSimilarity)
    copy.set_params(resamples=200, shuffles=1)
    assert copy.fit(*drawn()).soft_labels_.diagonal().mean() == pytest.approx(0.4)


@pytest.mark.parametrize("estimator", RESAMPLED)
@pytest.mark.parametrize("softness", [0.25, 0.5, 0.95, None])
def test_soft_labels_have_the_softness_that_is_wanted(estimator: str, softness: float | None):
    found = fast(estimator, resamples=0, shuffles=0).fit(*drawn()).soft_labels(softness)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == np.arange(5)).all()
    assert found.diagonal().mean() == pytest.approx(right_angle_softness(5) if softness is None else softness)
    assert found[2].argsort()[-2] == 3


def test_soft_labels_are_equation_2_with_a_temperature():
    distances = np.array([[0, 1.0, 2.0], [1.0, 0, 0.5], [2.0, 0.5, 0]])
    powers = np.exp(-distances / 0.7)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(soft_labels_of(distances, expected.diagonal().mean()), expected, atol=1e-12)
    assert right_angle_softness(7) == pytest.approx(0.551873, abs=1e-6)


@pytest.mark.parametrize("softness", [0.0, 0.2, 1.0, 3.0, float("nan")])
def test_a_softness_that_cannot_be_had_is_refused(softness: float):
    with pytest.raises(DataError, match=r"softness must lie between 1/K = 0.2000 and 1, not be"):
        soft_labels_of(2 * (1 - np.eye(5)), softness)


@pytest.mark.parametrize(
    "distances", [[[0, 0], [0, 0]], [[0, -1], [1, 0]], [[1, 1], [1, 0]], [[0, 1]], [[0, np.nan]] * 2]
)
def test_distances_that_are_none_are_refused(distances):
    with pytest.raises(DataError, match=r"distances of classes|a matrix of classes|not finite"):
        soft_labels_of(distances, 0.7)


def test_classes_that_are_not_told_apart_have_nearly_the_same_label():
    features, labels = drawn()
    found = fast().fit(features, np.random.default_rng(1).permutation(labels))
    assert found.soft_labels_.diagonal().mean() == pytest.approx(right_angle_softness(5))
    assert (found.soft_labels_.argmax(axis=1) == np.arange(5)).all()


@pytest.mark.parametrize(
    ("features", "labels", "groups", "message"),
    [
        (np.zeros(4), ["a", "b", "a", "b"], None, r"images × dimensions, not of the shape \(4,\)"),
        (np.zeros((4, 2)), ["a", "b", "a"], None, "3 labels for the features of 4 images"),
        (np.zeros((4, 2)), ["a", "b", "a", "b"], [1, 2], "2 groups for 4 labels"),
        (
            np.full((4, 2), np.nan),
            ["a", "b", "a", "b"],
            None,
            r"4 images are not finite or beyond 1e\+100",
        ),
        (np.full((4, 2), "x"), ["a", "b", "a", "b"], None, "must be numbers, not <U1"),
        ([[0, 0], [0, 1e101]] * 2, ["a", "b", "a", "b"], None, r"2 images are not finite .* in row 1"),
        (np.zeros((4, 2), "m8[s]"), ["a", "b", "a", "b"], None, r"must be numbers, not timedelta64\[s\]"),
        (np.zeros((4, 2)), ["a", None, "a", np.nan], None, "2 labels are missing"),
        (np.zeros((4, 2)), ["a", "b", "a", "b"], [1, np.nan, 2, np.nan], "2 groups are missing"),
        (np.zeros((4, 2)), ["a"] * 4, None, "two classes or more"),
        (np.zeros((10_002, 1)), [*range(5001)] * 2, None, "there are 5,001 classes, more than 5,000"),
        (np.zeros((4, 2)), ["a", "a", "b", "b"], [1, 2, 3, 3], "b: one image or group"),
        (np.zeros((0, 2)), [], None, "images × dimensions"),
        (np.ones((6, 3)), ["a", "b"] * 3, None, "all images have the same features"),
        (np.full((6, 30), 6e-154), ["a", "b"] * 3, None, "all images have the same features"),
        ([[0, 0], [0, 1e-51]] * 2, ["a", "b", "a", "b"], None, "all images have the same features"),
    ],
)
def test_what_cannot_be_measured_is_refused(features, labels, groups, message: str):
    with pytest.raises(DataError, match=message):
        fast().fit(features, labels, groups)


@pytest.mark.parametrize("estimator", RESAMPLED)
def test_the_unit_of_the_features_does_not_matter(estimator: str):
    features = np.random.default_rng(0).normal(size=(60, 3))
    found = [
        ClassSimilarity(estimator, resamples=20, shuffles=2).fit(features * unit, ["a", "b", "c"] * 20).similarity_
        for unit in (1, 2.0**-160, 2.0**300)
    ]
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-6)


def test_every_fault_is_named_at_once():
    with pytest.raises(DataError) as error:
        fast(classes=["a", "z"]).fit(np.zeros((5, 2)), ["a", "a", "b", "c", "c"])
    assert re.search(r"no image of z; labels that are no class: b, c; b: one image or group", str(error.value))


@pytest.mark.parametrize("estimator", ["class_means", "discriminant"])
@pytest.mark.parametrize("groups", [None, [0, 0, 0]])
def test_estimators_without_folds_take_one_image_or_group_a_class(estimator: str, groups: list[int] | None):
    features = np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
    found = fast(estimator).fit(features, ["a", "b", "c"], groups)
    assert tuple(found.pairs_.loc[0, ["a", "b"]]) == ("a", "b")
    with pytest.raises(DataError, match="a, b, c: one image or group"):
        fast().fit(features, ["a", "b", "c"], groups)


@pytest.mark.parametrize("settings", [{"resamples": -1}, {"shuffles": -1}, {"components": 0}])
def test_counts_that_are_none_are_refused(settings: dict[str, int]):
    with pytest.raises(DataError, match="resamples and shuffles must be 0 or more, and components 1 or more"):
        ClassSimilarity(**settings).fit(*drawn())  # pyright: ignore[reportArgumentType]


def test_an_unknown_estimator_is_refused_with_those_that_there_are():
    with pytest.raises(DataError, match="predictions, confusions, class_means, discriminant, head, balanced_head"):
        fast("means").fit(*drawn())


def test_a_class_whose_groups_all_count_for_another_class_has_no_interval():
    features = np.random.default_rng(0).normal(size=(8, 2))
    labels = ["a", "b", "a", "b", "c", "c", "c", "c"]
    found = fast("class_means").fit(features, labels, [1, 1, 2, 2, 3, 4, 5, 6])
    assert found.classes_ == ["a", "b", "c"]
    assert np.isnan(found.low_[0, 1])
    assert set(found.pairs_["verdict"]) <= {ALIKE, DISTINCT, AVERAGE, ""}


def test_a_softness_that_cannot_be_had_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cclnet.metrics.similarity.reduced", lambda *_: pytest.fail("something was computed"))
    with pytest.raises(DataError, match=r"softness must lie between 1/K = 0\.2000 and 1, not be nan"):
        fast(softness=float("nan")).fit(*drawn())


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_a_seed_that_scikit_learn_does_not_take_is_refused(seed: int):
    with pytest.raises(DataError, match=r"seed must lie between 0 and 4294967295, not be"):
        fast(seed=seed).fit(*drawn())
