"""The images that show how alike two classes are, against a search of every pair."""

from itertools import product

import numpy as np

from cclnet.inference.examples import NEAREST, TYPICAL, examples, with_examples
from cclnet.metrics.similarity import ClassSimilarity


def drawn(counts=(30, 50, 20)):
    generator = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], counts)
    order = generator.permutation(len(labels))
    return generator.normal(size=(len(labels), 4)), labels[order].tolist()


def test_the_nearest_pairs_by_a_search_of_all():
    features, labels = drawn()
    found = examples(features, labels, "a", "b").nearest
    rows = {name: [row for row, label in enumerate(labels) if label == name] for name in "ab"}
    by_distance = sorted(
        product(rows["a"], rows["b"]), key=lambda pair: np.linalg.norm(features[pair[0]] - features[pair[1]])
    )
    expected, used = [], set()
    for pair in by_distance:
        if len(expected) < NEAREST and used.isdisjoint(pair):
            expected.append(pair)
            used.update(pair)
    assert found == expected


def test_the_typical_images_are_nearest_to_the_mean_of_their_class():
    features, labels = drawn()
    found = examples(features, labels, "b", "c")
    for name, rows in (("b", found.typical_a), ("c", found.typical_b)):
        own = [row for row, label in enumerate(labels) if label == name]
        mean = features[own].mean(axis=0)
        assert rows == sorted(own, key=lambda row: np.linalg.norm(features[row] - mean))[:TYPICAL]


def test_small_classes_have_fewer_examples():
    features, labels = drawn(counts=(1, 2, 3))
    found = examples(features, labels, "a", "b")
    assert len(found.nearest) == 1 and len(found.typical_a) == 1 and len(found.typical_b) == 2


def test_pairs_get_the_ids_of_their_images():
    features, labels = drawn()
    model = ClassSimilarity("class_means", resamples=200, shuffles=0).fit(features, labels)
    images = [f"image {row}" for row in range(len(labels))]
    first = with_examples(model, features, labels, images)["pairs"][0]
    rows = examples(features, labels, first["a"], first["b"])
    assert first["nearest"] == [[images[a], images[b]] for a, b in rows.nearest]
    assert first["typical_b"] == [images[row] for row in rows.typical_b]
