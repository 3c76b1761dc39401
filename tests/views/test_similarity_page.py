"""The page about similar classes, read back."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from cclnet.inference.examples import examples, with_examples
from cclnet.metrics.similarity import ClassSimilarity
from cclnet.views.image_pairs import image_pair
from cclnet.views.similarity_page import (
    DRAWN_IMAGES,
    class_map,
    control_sentence,
    similarity_page,
)
from tests.views.builders import HOSTILE, Page


def drawn(classes: list[str], each: int = 30):
    generator = np.random.default_rng(0)
    centres = 3 * generator.normal(size=(len(classes), 6))
    centres[1] = centres[0] + 0.5
    labels = [name for name in classes for _ in range(each)]
    return np.repeat(centres, each, axis=0) + generator.normal(size=(len(labels), 6)), labels


def page_of(classes: list[str], estimator: str = "predictions", pairs=(), **options):
    features, labels = drawn(classes)
    model = ClassSimilarity(estimator, classes=classes, **{"resamples": 200, "shuffles": 2, **options})
    model.fit(features, labels)
    return model, similarity_page("it.npz", model, features, labels, None, pairs)


@pytest.mark.parametrize("estimator", ["predictions", "class_means", "discriminant"])
def test_every_pair_is_in_the_table_with_its_numbers(estimator: str):
    model, source = page_of(["a", "b", "c", "d"], estimator)
    rows = Page(source).table("All pairs")[1:]
    assert len(rows) == 6
    for row, pair in zip(rows, model.pairs_.to_dict("records"), strict=True):
        assert row[:2] == [pair["a"], pair["b"]]
        assert row[3] == f"{pair['similarity']:.3f}".replace("-", "−")
        assert row[4] == f"{pair['low']:.3f} to {pair['high']:.3f}".replace("-", "−")
        assert row[6] == pair["verdict"]


def test_bars_lie_on_the_line_and_hold_their_mark():
    _, source = page_of(["a", "b", "c", "d"], "class_means")
    bars = re.findall(r'<i style="left: ([\d.]+)%; width: ([\d.]+)%"></i><b style="left: ([\d.]+)%"></b>', source)
    assert len(bars) == 6
    for left, width, place in (map(float, bar) for bar in bars):
        assert 0 <= left <= place <= left + width + 0.11 <= 100.3


def test_the_matrix_holds_each_value_twice_beside_the_dendrogram():
    model, source = page_of(["a", "b", "c", "d"])
    drawing = source[source.index("<svg") : source.index("</svg>")]
    texts = re.findall(r">([\d.]+)</text>", drawing)
    beside = model.similarity_[~np.eye(4, dtype=bool)]
    assert sorted(texts) == sorted(f"{value:.2f}" for value in beside)
    assert drawing.count("<path") == 3  # one fewer than classes
    first, second = re.findall(r'text-anchor="end"[^>]*>(\w)</text>', drawing)[:2], model.pairs_.iloc[0]
    order = re.findall(r'text-anchor="end"[^>]*>(\w)</text>', drawing)
    assert abs(order.index(second["a"]) - order.index(second["b"])) == 1
    assert first == order[:2]


def test_many_classes_are_drawn_as_a_picture():
    names = [f"class {number}" for number in range(50)]
    model, source = page_of(names, "class_means", shuffles=1)
    (data,) = re.findall(r'href="data:image/png;base64,([^"]+)"', source)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (50, 50)
    assert len(Page(source).table("The 30 most similar of 1,225 pairs")) == 31
    assert len(model.pairs_) == 1225


def test_names_are_escaped_and_nothing_runs():
    _, source = page_of(HOSTILE)
    page = Page(source)
    assert page.scripts == []
    assert "default-src 'none'" in source
    assert all(name in page.text for name in HOSTILE)


def test_heads_have_no_intervals(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cclnet.metrics.estimators.HEAD_STEPS", 2)
    _, source = page_of(["a", "b", "c"], "head")
    assert [row[4] for row in Page(source).table("All pairs")[1:]] == ["–"] * 3
    assert "<i style" not in source


def test_images_are_shown_in_pairs():
    features, labels = drawn(["a", "b", "c"])
    model = ClassSimilarity(resamples=200, shuffles=1).fit(features, labels)
    names = [f"image {row}" for row in range(len(labels))]
    described = with_examples(model, features, labels, names)["pairs"][0]
    page = Page(similarity_page("it", model, features, labels, 45, [image_pair(described, lambda it: f"data:{it}")]))
    shown = [(it["alt"], it["src"]) for it in page.all("img")]
    nearest = described["nearest"]
    expected = [*(a for a, _ in nearest), *(b for _, b in nearest), *described["typical_a"], *described["typical_b"]]
    assert shown == [(name, f"data:{name}") for name in expected] and len(shown) == 16
    found = examples(features, labels, described["a"], described["b"])
    assert nearest == [[names[a], names[b]] for a, b in found.nearest]
    assert "do not publish it" in page.text and "90 images of 45 groups" in page.text
    assert "names no image files" in Page(page_of(["a", "b", "c"])[1]).text


def test_the_map_shows_every_mean_and_some_of_every_class():
    names = ["a", "b", "c"]
    generator = np.random.default_rng(1)
    labels = ["a"] * 4000 + ["b"] * 30 + ["c"] * 10
    features = generator.normal(size=(4040, 5))
    features[-10:] += 20
    points, means = class_map(features, labels, names)
    assert len(points) == 4040 and [mean["name"] for mean in means] == names
    far = np.hypot(means[2]["x"] - means[0]["x"], means[2]["y"] - means[0]["y"])
    assert far > 5 * np.hypot(means[1]["x"] - means[0]["x"], means[1]["y"] - means[0]["y"])
    model = ClassSimilarity("class_means", resamples=200, shuffles=0).fit(features, labels)
    source = similarity_page("it", model, features, labels, None, [])
    assert source.count("<circle") <= DRAWN_IMAGES + 3
    assert source.count("var(--green)") >= 11  # the ten images of c, and their mean


def test_the_same_input_gives_the_same_page():
    assert page_of(["a", "b", "c"])[1] == page_of(["a", "b", "c"])[1]


def test_what_class_counts_explain_is_said():
    model, _ = page_of(["a", "b", "c", "d"])
    share = model.count_share_
    assert share is None or f"{share.explained:.0%}" in control_sentence(model)
