"""``cclnet predict``."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from cclnet.cli.predict import show_predictions
from cclnet.inference.prediction import Predictions
from cclnet.inference.probabilities import class_probabilities
from cclnet.networks.model import CCLNet
from tests.cli.builders import BALANCED, BASELINE, CONTENTS, MODEL, NO_IMAGE, PROJECT, lines_of, words_of

# the files


def test_predictions_go_to_the_screen_and_into_a_file(run, model: Path):
    status, out, err = run("predict", model, "in.zip", "-o", "new/p.csv", "--device", "cpu")
    assert (status, err) == (0, "images predicted: 4 of 4 (100%)\n")
    written = pd.read_csv("new/p.csv")
    assert list(written) == ["image", *MODEL.classes]
    assert written["image"].tolist() == list(CONTENTS)
    best = written[MODEL.classes].to_numpy().argmax(axis=1)
    expected = [[image, MODEL.classes[label]] for image, label in zip(CONTENTS, best, strict=True)]
    assert [line.split()[:2] for line in out.splitlines()[1:5]] == expected
    assert [path.name for path in Path("new").iterdir()] == ["p.csv"]


def test_images_that_cannot_be_predicted_end_with_1_and_the_others_are_there(run, model: Path):
    Path("page.jpg").write_bytes(b"<html>")
    status, out, err = run("predict", model, "page.jpg", "lost", "in.zip", "-o", "p.csv")
    assert status == 1
    assert "4 predicted: " in out
    assert len(pd.read_csv("p.csv")) == 4
    assert err.splitlines()[-3:] == [
        "cclnet: the rest could not be predicted:",
        "  lost: is missing",
        f"  page.jpg: {NO_IMAGE}",
    ]


def test_predictions_as_json_are_those_of_the_table(run, model: Path):
    Path("page.jpg").write_bytes(b"<html>")
    assert run("predict", model, "page.jpg", "in.zip", "-o", "p.csv", "--json", "p.json").status == 1
    table = pd.read_csv("p.csv").set_index("image")
    found = json.loads(Path("p.json").read_text(encoding="utf-8"))
    assert [it["image"] for it in found["images"]] == list(table.index)
    assert [it["predicted"] for it in found["images"]] == table.idxmax(axis=1).tolist()
    assert [list(it["probabilities"]) for it in found["images"]] == [sorted(MODEL.classes)] * 4
    probabilities = [[it["probabilities"][name] for name in MODEL.classes] for it in found["images"]]
    np.testing.assert_allclose(probabilities, table.to_numpy(), rtol=0, atol=1e-15)
    assert found["problems"] == [{"where": "page.jpg", "what": NO_IMAGE}]


def test_the_suffix_of_the_output_decides_its_format(run, model: Path):
    assert run("predict", model, "in.zip", "-o", "o.json", "--json", "p.json").status == 0
    assert Path("o.json").read_bytes() == Path("p.json").read_bytes()
    assert run("predict", model, "in.zip", "-o", "o.txt").status == 0
    assert list(pd.read_csv("o.txt")) == ["image", *MODEL.classes]


def test_the_batch_size_is_that_of_the_network(run, model: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = []

    def count(model: CCLNet, inputs: torch.Tensor) -> NDArray[np.float64]:
        sizes.append(len(inputs))
        return class_probabilities(model, inputs)

    monkeypatch.setattr("cclnet.inference.prediction.class_probabilities", count)
    assert run("predict", model, "in.zip", "--batch-size", "3", "-o", "three.csv").status == 0
    assert run("predict", model, "in.zip", "-o", "all.csv").status == 0
    assert sizes == [3, 1, 4]
    three, all_at_once = (pd.read_csv(name).set_index("image") for name in ("three.csv", "all.csv"))
    pd.testing.assert_frame_equal(three, all_at_once, rtol=1e-4)
    status, _, err = run("predict", model, "in.zip", "--batch-size", "0")
    assert status == 2
    assert "--batch-size" in err


def test_no_file_is_written_if_ids_are_repeated(run, model: Path):
    Path("ISIC_1.png").write_bytes(CONTENTS["ISIC_1"])
    status, out, err = run("predict", model, "in.zip", "ISIC_1.png", "-o", "p.csv")
    assert (status, out) == (1, "")
    assert err == (
        "cclnet: images go by their files' names; rename or leave out:\n"
        "  ISIC_1.png: is called 'ISIC_1' like in.zip: 'Input/ISIC_1.jpg'\n"
    )
    assert not Path("p.csv").exists()


def test_predictions_go_through_a_link_and_into_a_pipe(run, model: Path):
    Path("real.csv").write_bytes(b"before")
    Path("link.csv").symlink_to("real.csv")
    assert run("predict", model, "in.zip", "-o", "link.csv").status == 0
    assert Path("link.csv").is_symlink()
    os.mkfifo("pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_bytes()))
    reader.start()
    assert run("predict", model, "in.zip", "-o", "pipe").status == 0
    reader.join(timeout=60)
    assert read == [Path("real.csv").read_bytes()]
    assert Path("pipe").is_fifo()


# with onnxruntime


def test_the_runtime_changes_neither_files_nor_decisions(run, model: Path, computed_by_onnxruntime: list[int]):
    Path("page.jpg").write_bytes(b"<html>")
    written = {}
    for runtime in ("torch", "onnxruntime"):
        command = ["predict", model, "page.jpg", "in.zip", "--runtime", runtime, "--batch-size", 3]
        ended = run(*command, "-o", "p.csv", "--json", "p.json")
        found = json.loads(Path("p.json").read_text(encoding="utf-8"))
        probabilities = [list(image.pop("probabilities").values()) for image in found["images"]]
        written[runtime] = ended.status, ended.err, found, probabilities, pd.read_csv("p.csv").set_index("image")
    *same, probabilities, table = written["torch"]
    *others, others_probabilities, others_table = written["onnxruntime"]
    assert others == same
    np.testing.assert_allclose(others_probabilities, probabilities, rtol=0, atol=1e-5)
    pd.testing.assert_frame_equal(others_table, table, rtol=0, atol=1e-5)
    assert computed_by_onnxruntime == [3, 1]
    status, _, err = run("predict", model, "in.zip", "--runtime", "tensorrt")
    assert status == 2
    assert "--runtime" in err


def test_onnxruntime_computes_on_the_cpu(run, model: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def select(name: str) -> torch.device:
        asked.append(str(name))
        return torch.device("mps" if name == "mps" else "cpu")

    monkeypatch.setattr("cclnet.system.machine.select_device", select)
    for runtime in ("torch", "onnxruntime"):
        assert run("predict", model, "in.zip", "--runtime", runtime).status == 0
    monkeypatch.setattr(CCLNet, "to", lambda model, device: model)
    said = "cclnet: device: mps is set, but onnxruntime computes on the CPU; set device: auto or cpu\n"
    assert run("predict", model, "in.zip", "--runtime", "onnxruntime", "--device", "mps") == (1, "", said)
    assert asked == ["auto", "cpu", "mps"]


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_without_a_package_of_onnxruntime_one_line_says_what_to_install(
    run, model: Path, package: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    said = (
        f"cclnet: the export to ONNX needs {package}, which is not installed: pip install onnx onnxruntime onnxscript\n"
    )
    assert run("predict", model, "in.zip", "--runtime", "onnxruntime", "-o", "p.csv") == (1, "", said)
    assert not Path("p.csv").exists()


def test_onnxruntime_adds_nothing_to_what_a_process_prints(model: Path):
    command = [sys.executable, "-m", "cclnet", "predict", "model", "in.zip", "--runtime", "onnxruntime", "-o", "p.csv"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "images predicted: 4 of 4 (100%)\n")
    assert len(ended.stdout.splitlines()) == 7


# the screen


def predictions(images: int = 2) -> Predictions:
    """MEL, then NV."""
    rows = np.array([[0.6, 0.3, 0.1], [0.25, 0.5, 0.25]])
    return Predictions(BALANCED.classes, [f"ISIC_{n}" for n in range(images)], rows[np.arange(images) % 2], problems=[])


EXPLANATION = "looks like it: to what the learned soft label of the predicted class gives most besides itself"


def test_the_most_probable_classes_and_what_looks_like_the_first_one():
    lines = lines_of(show_predictions, predictions(), BALANCED, None)
    assert words_of(lines) == [
        ["image", "predicted", "then", "then", "looks like it"],
        ["ISIC_0", "MEL 0.600", "NV 0.300", "BCC 0.100", "NV 0.25, BCC 0.25"],
        ["ISIC_1", "NV 0.500", "MEL 0.250", "BCC 0.250", "MEL 0.25, BCC 0.25"],
        [EXPLANATION],
        ["2 predicted: MEL 1, NV 1"],
    ]


def test_labels_that_were_not_learned_say_nothing_of_looks():
    lines = lines_of(show_predictions, predictions(), BASELINE, None)
    assert words_of(lines) == [
        ["image", "predicted", "then", "then"],
        ["ISIC_0", "MEL 0.600", "NV 0.300", "BCC 0.100"],
        ["ISIC_1", "NV 0.500", "MEL 0.250", "BCC 0.250"],
        ["2 predicted: MEL 1, NV 1"],
    ]


def test_two_classes_have_two_columns():
    two = replace(BALANCED, classes=["cat", "dog"], label_matrix=[[0.8, 0.2], [0.3, 0.7]])
    lines = lines_of(show_predictions, Predictions(two.classes, ["a"], np.array([[0.4, 0.6]]), []), two, None)
    assert words_of(lines[:2]) == [
        ["image", "predicted", "then", "looks like it"],
        ["a", "dog 0.600", "cat 0.400", "cat 0.30"],
    ]


@pytest.mark.parametrize(("file", "where"), [(None, "-o FILE writes them all"), ("p.csv", "p.csv has them all")])
def test_thousands_of_images_do_not_flood_the_screen(file: str | None, where: str):
    lines = lines_of(show_predictions, predictions(2_345), BALANCED, file)
    assert len(lines) == 1 + 20 + 3
    assert lines[20].startswith("ISIC_19 ")
    assert lines[-2:] == [f"2,325 more are not shown; {where}", "2,345 predicted: MEL 1,173, NV 1,172"]
    assert "not shown" not in "".join(lines_of(show_predictions, predictions(20), BALANCED, file))


def test_names_are_no_markup_and_are_not_cut():
    name = f"[bold]{'long' * 50}:smile:[/]"
    shown = replace(predictions(1), images=[name])
    assert lines_of(show_predictions, shown, BALANCED, None)[1].startswith(f"{name}  MEL 0.600 ")
    lines = lines_of(show_predictions, shown, BALANCED, None, terminal=True, width=80)
    assert max(map(len, lines)) <= 80
    column = lines[0].index("predicted")
    below = lines.index(next(line for line in lines if line.startswith("looks like it: ")))
    assert "".join(line[:column].strip() for line in lines[2:below]) == name
