import numpy as np
import pytest

from cclnet.views.class_curves import MOST_POINTS, ClassCurves, average_precisions, class_curves


def by_hand() -> tuple[np.ndarray, np.ndarray]:
    """Six images: class 0 with the scores .9, .6 and .2, the others with .8, .4 and .2 of class 0."""
    scores = np.array([0.9, 0.6, 0.2, 0.8, 0.4, 0.2])
    return np.array([0, 0, 0, 1, 1, 1]), np.column_stack([scores, 1 - scores])


def drawn(images: int, num_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(num_classes, size=images)
    scores = generator.random((images, num_classes)).round(2) + 0.4 * np.eye(num_classes)[labels]
    return labels, scores / scores.sum(axis=1, keepdims=True)


def curve_of(name: str, labels: np.ndarray, probabilities: np.ndarray, **options: int) -> ClassCurves:
    classes = [str(place) for place in range(probabilities.shape[1])]
    [found] = [curve for curve in class_curves(labels, probabilities, classes, **options) if curve.name == name]
    return found


def test_by_hand():
    found = curve_of("0", *by_hand())
    # thresholds .9, .8, .6, .4 and .2: true and false positives 1 0, 1 1, 2 1, 2 2, 3 3
    assert found.roc.tolist() == [[0, 0], [0, 1 / 3], [1 / 3, 1 / 3], [1 / 3, 2 / 3], [2 / 3, 2 / 3], [1, 1]]
    assert found.precision_recall.tolist() == [
        *([0, 1], [1 / 3, 1], [1 / 3, 1 / 2], [2 / 3, 2 / 3], [2 / 3, 1 / 2], [1, 1 / 2]),
    ]
    # pairs in order: .9 above all three; .6 above two; .2 ties with one
    assert found.auc == pytest.approx((3 + 2 + 0.5) / 9)
    assert found.average_precision == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert found.sensitivities == pytest.approx([1 / 3] * 3)


def test_points_are_those_of_a_loop_over_the_thresholds():
    labels, probabilities = drawn(200)
    found = curve_of("1", labels, probabilities)
    score, positive = probabilities[:, 1], labels == 1
    loop = [(0.0, 0.0)]
    for threshold in sorted(set(score), reverse=True):
        said = score >= threshold
        loop.append(((said & ~positive).sum() / (~positive).sum(), (said & positive).sum() / positive.sum()))
    assert {tuple(point) for point in found.roc.tolist()} <= set(loop)
    for least, sensitivity in zip((0.8, 0.9, 0.95), found.sensitivities, strict=True):
        assert sensitivity == max(high for low, high in loop if round(1 - low, 9) >= least)
    across, up = np.array(loop).T
    assert found.auc == pytest.approx(float(np.trapezoid(up, across)))


def test_a_long_curve_is_thinned_to_points_of_its_own_and_keeps_its_ends():
    labels, probabilities = drawn(20_000, 2)
    whole = curve_of("0", labels[:100], probabilities[:100])
    assert len(whole.roc) < MOST_POINTS
    found = curve_of("0", labels, probabilities)
    for points in (found.roc, found.precision_recall):
        assert len(points) <= MOST_POINTS
        assert (np.diff(points[:, 0]) >= 0).all()
    assert found.roc[[0, -1]].tolist() == [[0, 0], [1, 1]]
    assert found.precision_recall[[0, -1], 0].tolist() == [0, 1]


def test_a_class_that_no_image_or_every_image_belongs_to_has_no_curves():
    _, probabilities = by_hand()
    assert class_curves(np.zeros(6, dtype=int), probabilities, ["a", "b"]) == []
    assert average_precisions(np.zeros(6, dtype=int), probabilities) == [1, None]


def test_of_many_classes_those_with_the_most_images_in_the_order_of_the_data():
    _, probabilities = drawn(60, 6)
    labels = np.repeat([4, 1, 3, 0, 2, 5], [20, 15, 10, 8, 5, 2])
    found = class_curves(labels, probabilities, list("abcdef"), most=3)
    assert [curve.name for curve in found] == ["b", "d", "e"]


def test_average_precisions_are_those_of_the_curves():
    labels, probabilities = drawn(80)
    curves = class_curves(labels, probabilities, list("abc"))
    assert average_precisions(labels, probabilities) == [curve.average_precision for curve in curves]
