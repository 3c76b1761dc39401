"""The guide to similar classes: its example runs, and the numbers in it are what comes out."""

import re

from tests.project.modules import PROJECT

PAGE = (PROJECT / "docs" / "use" / "similar-classes.md").read_text(encoding="utf-8")


def test_the_example_gives_the_numbers_that_are_said():
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - the project's own page
    similarity = names["similarity"]
    pairs = similarity.pairs_.to_dict("records")  # pyright: ignore[reportAttributeAccessIssue]
    first, alike = pairs[0], [pair for pair in pairs if pair["verdict"] == "alike"]
    assert (first["a"], first["b"]) == ("1", "8") and alike == [first]
    said = re.search(r"\(([\d.]+); 95 % interval ([\d.]+) to ([\d.]+)\)", PAGE)
    assert said and [f"{first[name]:.2f}" for name in ("similarity", "low", "high")] == list(said.groups())
    [of_6_and_9] = [pair["similarity"] for pair in pairs if {pair["a"], pair["b"]} == {"6", "9"}]
    assert f"are not ({of_6_and_9:.3f})" in PAGE
    assert names["labels"].diagonal().mean().round(6) == 0.9  # pyright: ignore[reportAttributeAccessIssue]


def test_every_estimator_is_explained():
    from cclnet.metrics.estimators import ESTIMATORS

    for name in ESTIMATORS:
        assert f"`{name}`" in PAGE
