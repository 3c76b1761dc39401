"""What training is given, what it leaves, and when it does not begin; the training itself is that of ``training``."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cclnet.dataset.isic import CLASSES
from cclnet.images.cache import ImageCache
from cclnet.images.subset import Subset
from cclnet.networks.model import load_model
from cclnet.system.errors import CCLNetError
from cclnet.system.files import read_json
from cclnet.system.locks import only_process
from cclnet.training.trainer import Trainer
from stages import train
from tests.stages.builders import Copied

DATA = ("data/classes.json", "data/split.csv", "data/images.npy", "data/images.csv", "data/images.json")


def test_a_model_that_describes_itself_and_no_state_are_left(finished: Path):
    _, description = load_model(finished / "models/model.safetensors")
    assert description.classes == list(CLASSES)
    assert (description.backbone, description.short_side, description.crop) == ("shufflenet_v2_x0_5", 18, 16)
    conditions = read_json(finished / "models/conditions.json")
    assert conditions == description.ran_on
    assert (conditions["threads"], "weights" in conditions) == (torch.get_num_threads(), False)
    history = pd.read_csv(finished / "metrics/history.csv")
    assert history["epoch"].tolist() == [1]
    assert history["softness"].iloc[-1] == pytest.approx(description.softness, rel=1e-6)
    states = finished / ".cclnet" / "training"
    assert not [path for path in states.rglob("images-*") if path.is_file()]


def test_the_colours_are_those_of_the_training_images_crops(finished: Path):
    _, description = load_model(finished / "models/model.safetensors")
    cache = ImageCache.open(finished / "data/images.npy", finished / "data/images.csv")
    split = pd.read_csv(finished / "data/split.csv")
    means = []
    for row in cache.rows(split.loc[split["subset"] == "train", "image"].tolist()):
        top, left = ((side - 16) // 2 for side in cache[row].shape[:2])
        means.append(cache[row][top : top + 16, left : left + 16].reshape(-1, 3).mean(axis=0))
    assert description.colour_mean == pytest.approx(np.mean(means, axis=0), abs=0.3)
    assert description.colour_deviation == pytest.approx(np.std(means, axis=0), abs=0.3)


Given = tuple[Trainer, Subset, Subset]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Given]:
    """What the loop gets, which then trains nothing."""
    found: list[Given] = []

    def fit(trainer: Trainer, training: Subset, validation: Subset, *_: Any) -> None:
        found.append((trainer, training, validation))

    monkeypatch.setattr(train, "fit", fit)
    return found


def test_shuffled_labels_are_those_of_training_alone(copied: Copied, given: list[Given]):
    for labels in ("original", "shuffled"):
        copied(*(DATA if labels == "original" else ()), training_labels=labels)
        train.main()
    (_, training, validation), (_, shuffled, same_validation) = given
    assert (len(training), len(validation)) == (80, 20)
    assert shuffled.labels.tolist() != training.labels.tolist()
    assert sorted(shuffled.labels) == sorted(training.labels)
    np.testing.assert_array_equal(shuffled.rows, training.rows)
    np.testing.assert_array_equal(same_validation.labels, validation.labels)


def test_soft_labels_of_a_file_are_trained_on_and_recorded(copied: Copied, given: list[Given]):
    rows = np.full((7, 7), 0.05) + 0.65 * np.eye(7)
    folder = copied(*DATA, soft_label_source="votes.csv")
    pd.DataFrame(rows, index=pd.Index(CLASSES, name="label"), columns=list(CLASSES)).to_csv(folder / "votes.csv")
    train.main()
    [(trainer, _, _)] = given
    np.testing.assert_allclose(trainer.label_matrix(), rows, atol=1e-6)
    assert len(read_json(Path("models/conditions.json"))["soft_labels"]["sha256"]) == 64


def test_a_folder_is_trained_in_once_at_a_time(copied: Copied, given: list[Given]):
    copied(*DATA)
    with ExitStack() as held:
        held.enter_context(only_process(train.LOCK, "is training in this folder"))
        with pytest.raises(CCLNetError, match="is training in this folder"):
            train.main()
    assert given == []
    train.main()
    assert len(given) == 1


def test_several_processes_are_started_and_this_one_does_not_train(
    copied: Copied, given: list[Given], monkeypatch: pytest.MonkeyPatch
):
    started: list[tuple[int, str]] = []
    monkeypatch.setattr(train, "start_processes", lambda count, module: started.append((count, module)))
    copied(*DATA, device="cpu", processes=2)
    train.main()
    assert started == [(2, "stages.train")]
    assert given == []


def test_a_model_that_cannot_be_written_is_said_before_the_training(copied: Copied, given: list[Given]):
    folder = copied(*DATA)
    (folder / "models").write_text("no folder")
    with pytest.raises(CCLNetError, match="cannot be written"):
        train.main()
    assert given == []
