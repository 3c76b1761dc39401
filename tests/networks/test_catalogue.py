"""The names of networks and weights."""

import subprocess
import sys
from pathlib import Path

import pytest

from cclnet.networks.catalogue import library, model_names, name_problems, weight_names, weights_file

# weights


@pytest.mark.parametrize("weights", [None, "DEFAULT", "IMAGENET1K_V1", "safetensors"])
def test_names_are_no_files(weights: str | None) -> None:
    assert weights_file(weights) is None


def test_a_relative_path_is_one_from_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert weights_file("a/b.pt") == Path("a/b.pt")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert weights_file("a/b.pt") == tmp_path / "a/b.pt"
    assert weights_file("/a/b.pt") == Path("/a/b.pt")


# networks


@pytest.mark.parametrize(
    ("name", "expected"), [("resnet18", "torchvision"), ("timm/resnet18", "timm"), ("timm", "torchvision")]
)
def test_the_prefix_says_which_library_a_name_is_of(name: str, expected: str) -> None:
    assert library(name) == expected


def test_names_that_can_be_asked_for() -> None:
    names = model_names("resnet18")
    assert names == sorted(names)
    assert {"resnet18", "mobilenet_v2", "efficientnet_b0", "swin_t", "vit_b_16"} <= set(names)
    assert not any("segmentation" in name or name.startswith(("fcn", "deeplab", "raft", "r3d")) for name in names)
    assert set(weight_names("resnet18")) == {"IMAGENET1K_V1", "DEFAULT"}


def test_names_of_timm_that_can_be_asked_for() -> None:
    names = model_names("timm/")
    assert names == sorted(names)
    assert {"timm/convnext_atto", "timm/convnext_atto.d2_in1k", "timm/coatnet_0_224"} <= set(names)
    assert all(library(name) == "timm" for name in names)
    assert weight_names("timm/convnext_atto") == weight_names("timm/convnext_atto.d2_in1k") == ["DEFAULT"]
    assert weight_names("timm/coatnet_0_224") == []


# both


@pytest.mark.parametrize(
    ("backbone", "weights", "problems"),
    [
        ("resnet18", None, []),
        ("resnet50", "IMAGENET1K_V2", []),
        ("timm/test_vit", "DEFAULT", []),
        ("resnet18", "no/such/file.pt", []),  # whether it is there is asked later
        ("resnet81", None, ["backbone: torchvision has no 'resnet81'; did you mean resnet18?"]),
        ("resnet81", "BEST", ["backbone: torchvision has no 'resnet81'; did you mean resnet18?"]),
        (
            "resnet18",
            "IMAGENET1K_V3",
            ["weights: resnet18 has no 'IMAGENET1K_V3', only IMAGENET1K_V1, DEFAULT; did you mean IMAGENET1K_V1?"],
        ),
        ("timm/coatnet_0_224", "DEFAULT", ["weights: timm/coatnet_0_224 has no 'DEFAULT', only null"]),
    ],
)
def test_names_that_a_library_lacks_are_problems(backbone: str, weights: str | None, problems: list[str]) -> None:
    assert name_problems(backbone, weights) == problems


def test_a_library_that_is_missing_is_a_problem_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    [problem] = name_problems("timm/test_vit", None)
    assert problem.startswith("backbone: timm/test_vit needs timm, which is not installed: pip install timm")


def test_the_paper_s_backbones_are_known_without_torch() -> None:
    code = (
        "import sys; from cclnet.networks.catalogue import PAPER_BACKBONES, name_problems; "
        "print(*(name_problems(name, None) for name in PAPER_BACKBONES), 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ended.stdout == "[] [] [] False\n"
