"""The training or the validation images of a cache."""

import numpy as np
import pandas as pd
import pytest

from cclnet.images.subset import Subset
from cclnet.system.errors import DataError
from tests.training.builders import IMAGES, subset_of


def test_subset_of_a_split() -> None:
    cache = IMAGES.cache
    rows = [(cache.images[4], "NV", "train"), (cache.images[0], "DF", "validation"), (cache.images[2], "DF", "train")]
    split = pd.DataFrame(rows, columns=["image", "label", "subset"])
    training = Subset.of_split(cache, split, "train", ["DF", "MEL", "NV"])
    assert training.rows.tolist() == [4, 2]
    assert training.labels.tolist() == [2, 0]
    assert len(training) == 2
    assert training.class_counts(4).tolist() == [1, 0, 1, 0]
    assert Subset.of_split(cache, split, "validation", ["DF", "MEL", "NV"]).rows.tolist() == [0]


def test_shuffled_labels_keep_the_images_and_the_class_sizes() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    images = Subset(IMAGES.cache, np.arange(1000), labels)
    shuffled = images.with_shuffled_labels(seed=1)
    assert shuffled.rows is images.rows
    assert shuffled.class_counts(3).tolist() == [600, 300, 100]
    own = shuffled.labels == labels
    assert abs(own.mean() - (0.6**2 + 0.3**2 + 0.1**2)) < 0.05  # as many as two independent draws share
    assert (images.with_shuffled_labels(seed=1).labels == shuffled.labels).all()
    assert (images.with_shuffled_labels(seed=2).labels != shuffled.labels).any()


def test_a_part_has_the_images_at_its_places_with_their_labels() -> None:
    images = subset_of([4, 3, 2, 1, 0])
    part = images.part(np.array([3, 0, 3]))
    assert part.rows.tolist() == [images.rows[3], images.rows[0], images.rows[3]]
    assert part.labels.tolist() == [1, 4, 1]
    assert (part.cache, part.resident) == (images.cache, None)
    assert len(images.part(np.array([], dtype=np.int64))) == 0
    assert images.labels.tolist() == [4, 3, 2, 1, 0]


def test_an_image_that_the_cache_lacks_is_named() -> None:
    split = pd.DataFrame([("nobody", "NV", "train")], columns=["image", "label", "subset"])
    with pytest.raises(DataError, match="run the resize stage again") as caught:
        Subset.of_split(IMAGES.cache, split, "train", ["NV"])
    assert [problem.where for problem in caught.value.problems] == ["nobody"]
