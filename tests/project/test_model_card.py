"""The numbers of the model card are those of the committed run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import binomtest

from cclnet.dataset.isic import CLASSES
from cclnet.metrics.resampling import clustered_bootstrap, weighted_scores
from cclnet.metrics.score_table import read_scores

PROJECT = Path(__file__).parents[2]
METRICS = PROJECT / "metrics"


def table(heading: str) -> list[list[str]]:
    """The rows of the card's table under this heading row."""
    card = (PROJECT / "docs" / "evidence" / "model-card.md").read_text(encoding="utf-8")
    [rows] = re.findall(rf"^\| {re.escape(heading)} \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", card, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]


def confusion() -> np.ndarray:
    counts = pd.read_json(METRICS / "confusion.json")["count"]
    return counts.to_numpy().reshape(len(CLASSES), len(CLASSES))


def between(interval: str) -> tuple[float, ...]:
    """The ends of ``0.500 – 0.629``."""
    return tuple(map(float, interval.split(" – ")))


def as_shown(*values: float) -> Any:
    """What rounding to three decimals allows."""
    return pytest.approx(values, abs=0.00051)


def test_settings_are_those_of_the_run():
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    groups = [name for name, value in params.items() if isinstance(value, dict)]
    grouped = {f"{group}.{key}": value for group in groups for key, value in params[group].items()}
    used = params | grouped | params["datasets"]["sample"]
    rows = table("key | value")
    assert {key: yaml.safe_load(value) for key, value in rows} == {key: used[key] for key, _ in rows}


def test_image_counts_are_those_of_the_split():
    split = pd.read_csv(METRICS / "leakage.csv").set_index("class")
    counts = split.loc[list(CLASSES), ["train_images", "validation_images"]]
    expected = [[name, *map(str, row)] for name, row in zip(CLASSES, counts.to_numpy().tolist(), strict=True)]
    assert table("class | training images | validation images") == expected


def test_metrics_and_their_intervals_are_those_of_the_run():
    scores = read_scores(METRICS / "scores.csv")
    counts = confusion().ravel()
    true, predicted = np.divmod(np.repeat(np.arange(counts.size), counts), len(CLASSES))
    statistic = weighted_scores(true, np.eye(len(CLASSES))[predicted])
    intervals = clustered_bootstrap(statistic, np.arange(len(true)))
    for name, value, interval in table("metric | value | 95 % interval"):
        key = name.replace(" ", "_")
        known = scores[key].value
        assert known is not None and (float(value),) == as_shown(known), name
        if interval:
            found = intervals[key]
            assert found and between(interval) == as_shown(found.low, found.high), name


def test_sensitivity_and_specificity_are_those_of_the_run():
    counts = confusion()
    rows = table("class | sensitivity | 95 % interval | specificity")
    assert [name for name, *_ in rows] == list(CLASSES)
    for place, (name, sensitivity, interval, specificity) in enumerate(rows):
        hits, images, others = counts[place, place], counts[place].sum(), np.delete(counts, place, axis=0)
        expected = as_shown(hits / images, 1 - others[:, place].sum() / others.sum())
        assert (float(sensitivity), float(specificity)) == expected, name
        assert between(interval) == as_shown(*binomtest(int(hits), int(images)).proportion_ci()), name


def test_the_card_counts_the_recognised_images_of_the_rare_classes():
    card = (PROJECT / "docs" / "evidence" / "model-card.md").read_text(encoding="utf-8")
    [counts] = re.findall(r"Only (\d+) of the (\d+) images of DF was recognised, and (\d+) of the (\d+) of VASC", card)
    hits, images = confusion().diagonal(), confusion().sum(axis=1)
    places = [CLASSES.index("DF"), CLASSES.index("VASC")]
    assert [int(count) for count in counts] == [number for place in places for number in (hits[place], images[place])]
