"""Difference of each augmentation step from torchvision's, in 8-bit levels, compared with the effect of the step.

Both forms of the colour jitter are compared with torchvision: the affine one with its operations on floating-point
values, and the torchvision form with its class ``ColorJitter`` on bytes.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from benchmarks.catalogue import Settings
from benchmarks.images import photographs
from benchmarks.measure import Comparison, Series
from cclnet.images.augmentation import ColorJitter, jitter, jitter_orders, torchvision_jitter
from cclnet.images.decoding import central_crop, decode, resize

IMAGES, SHORT_SIDE, SIZE = 35, 256, 224
REACH = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}
"""The values of the params."""
STEPS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "hue": functional.adjust_hue,
}
Images = Float[Tensor, "n 3 h w"]


def run(settings: Settings) -> list[Comparison]:
    """Compare each step alone and all steps together; both use floating-point values, without rounding to bytes."""
    shots = photographs(7 if settings.tiny else IMAGES, settings.images)
    crops = np.stack([central_crop(resize(decode(shot.jpeg), SHORT_SIDE), SIZE) for shot in shots])
    images = torch.from_numpy(crops).permute(0, 3, 1, 2) / 255
    draws = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (len(shots), len(STEPS))).astype(np.float32))
    moves = draws * torch.tensor(list(REACH.values()))
    comparisons = []
    for steps in [*([name] for name in STEPS), list(STEPS)]:
        theirs, ours = of_torchvision(images, moves, steps), of_cclnet(images, moves, steps)
        case = " and ".join(steps) if len(steps) == 1 else "all four"
        departure, moved = (ours - theirs).abs() * 255, (theirs - images).abs() * 255
        for words, over in (("mean", Tensor.mean), ("largest", Tensor.amax)):
            ours_at, theirs_at = (over(levels, dim=(1, 2, 3)).tolist() for levels in (departure, moved))
            departures, moves_of_theirs = Series("departure", ours_at), Series("torchvision's move", theirs_at)
            comparisons.append(Comparison(f"{case}, {words}", "levels", departures, moves_of_theirs))
    return [*comparisons, *of_the_torchvision_form(torch.from_numpy(crops), draws)]


def of_the_torchvision_form(crops: UInt8[Tensor, "n h w 3"], draws: Float[Tensor, "n 4"]) -> list[Comparison]:
    """Compare the form ``torchvision`` with torchvision's class, given the same factors and orders."""
    factors, orders = ColorJitter(**REACH).factors((1 + draws) / 2), jitter_orders(len(crops), seed=0, epoch=1)
    ours, theirs = torchvision_jitter(crops, factors, orders), []
    of_class = v2.ColorJitter(**REACH)
    for crop, its_factors, order in zip(crops, factors.tolist(), orders, strict=True):
        named = {f"{name}_factor": factor for name, factor in zip(STEPS, its_factors, strict=True)}
        image = of_class.transform(crop.permute(2, 0, 1), {"fn_idx": torch.from_numpy(order), **named})
        theirs.append(image.permute(1, 2, 0))
    departure, moved = (
        (one.int() - other.int()).abs().float() for one, other in ((ours, torch.stack(theirs)), (ours, crops))
    )
    return [
        Comparison(
            f"form: torchvision, {words}",
            "levels",
            Series("departure", over(departure, dim=(1, 2, 3)).tolist()),
            Series("torchvision's move", over(moved, dim=(1, 2, 3)).tolist()),
        )
        for words, over in (("mean", Tensor.mean), ("largest", Tensor.amax))
    ]


def of_torchvision(images: Images, moves: Float[Tensor, "n 4"], steps: list[str]) -> Images:
    """Apply the steps in order, image by image, with clipping to [0, 1] after each step."""
    moved = []
    for image, its_moves in zip(images, moves.tolist(), strict=True):
        for name, move in zip(STEPS, its_moves, strict=True):
            if name in steps:
                image = STEPS[name](image, move if name == "hue" else 1 + move)
        moved.append(image)
    return torch.stack(moved)


def of_cclnet(images: Images, moves: Float[Tensor, "n 4"], steps: list[str]) -> Images:
    """Apply the same steps as one affine map."""
    chosen = torch.tensor([float(name in steps) for name in STEPS])
    factors = moves * chosen + torch.tensor([1.0, 1.0, 1.0, 0.0])
    return jitter(images.permute(0, 2, 3, 1).contiguous(), factors).permute(0, 3, 1, 2)
