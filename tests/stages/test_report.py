"""What the page is made of; the page itself is that of ``views``."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cclnet.dataset.sample import planted_similarity
from cclnet.system.errors import CCLNetError
from cclnet.system.files import read_json, write_json
from cclnet.views.page import Report
from stages import report
from tests.stages.builders import Copied
from tests.views.builders import Page

RESULTS = ("data", "metrics", "models/conditions.json")


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """What the page would be made of."""
    found: list[Report] = []

    def report_page(given: Report) -> str:
        found.append(given)
        return "page"

    monkeypatch.setattr(report, "report_page", report_page)
    return found


def test_the_page_says_what_the_metrics_say(finished: Path):
    page = Page((finished / "metrics/report.html").read_text(encoding="utf-8"))
    accuracy = read_json(finished / "metrics/metrics.json")["accuracy"]
    assert f"{accuracy:.3f}" in page.text
    assert all(name in page.text for name in ("MEL", "VASC", "shufflenet_v2_x0_5"))


def test_every_part_is_the_file_that_a_stage_wrote(copied: Copied, reported: list[Report]):
    folder = copied(*RESULTS)
    report.main()
    assert (folder / "metrics/report.html").read_text(encoding="utf-8") == "page"
    [found] = reported
    predictions = pd.read_csv(folder / "metrics/predictions.csv")
    assert sorted(found.run.truth.index) == sorted(predictions["image"])
    assert found.run.scores["accuracy"].value == read_json(folder / "metrics/metrics.json")["accuracy"]
    assert found.history["epoch"].tolist() == [1]
    assert found.class_table["class"].tolist() == list(found.run.classes)
    assert len(found.split) == len(found.cache.images) == 100
    assert found.provenance == read_json(folder / "data/provenance.json")
    assert found.conditions == read_json(folder / "models/conditions.json")
    assert found.similarity == read_json(folder / "metrics/similarity.json")
    assert (found.params.backbone, found.params.dataset) == ("shufflenet_v2_x0_5", "sample")


@pytest.mark.parametrize("source", ["drawn", "mine"])
def test_a_similarity_was_planted_in_drawn_images_alone(copied: Copied, reported: list[Report], source: str):
    folder = copied(*RESULTS)
    record = [file | {"source": source} for file in read_json(folder / "data/provenance.json")]
    write_json(folder / "data/provenance.json", record)
    report.main()
    planted = reported[0].planted
    if source == "mine":
        assert planted is None
    else:
        separation = reported[0].params.sample.separation
        np.testing.assert_array_equal(np.asarray(planted), planted_similarity(separation))


def test_a_result_that_is_missing_is_named(copied: Copied, reported: list[Report]):
    folder = copied(*RESULTS)
    (folder / "metrics/reliability.csv").unlink()
    with pytest.raises(CCLNetError, match=r"metrics/reliability\.csv"):
        report.main()
    assert reported == []
