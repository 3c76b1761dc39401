"""The inputs of an epoch in the form of torchvision's colour jitter."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from cclnet.images.augmentation import (
    JITTER_STEPS,
    MEAN,
    STANDARD_DEVIATION,
    ColorJitter,
    Views,
    jitter_orders,
    memory_layout,
)
from cclnet.images.subset import Subset
from cclnet.images.transfer import copied_pixels
from cclnet.training.batches import epoch_order, training_batches
from cclnet.training.distributed import ALONE, Processes
from tests.training.builders import CPU, IMAGES, params

LAYOUTS = ("contiguous", "channels_last")


class Share(Processes):
    """One of two processes, without the other."""

    count = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def share(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        return images[self.rank :: 2]


def inputs_by_image(images: Subset = IMAGES, processes: Processes = ALONE, **changes: Any) -> list[bytes]:
    """The network's inputs of epoch 2, sorted."""
    batches = training_batches(images, params(form="torchvision", **changes), 2, CPU, processes=processes)
    return sorted(image.contiguous().numpy().tobytes() for inputs, _, _ in batches for image in inputs)


def of_torchvision(row: int) -> Tensor:
    """The input of one image, made with torchvision's transforms."""
    views, rows, asked = Views.of_epoch(len(IMAGES.cache.images), 0, 2), np.array([row]), params()
    [crop] = views.crops(IMAGES.cache, rows, asked.crop)
    [factors] = ColorJitter(**asked.jitter.ranges).factors(views.color_draws(rows)).tolist()
    order = torch.from_numpy(jitter_orders(len(IMAGES.cache.images), 0, 2)[row])
    named = {f"{name}_factor": factor for name, factor in zip(JITTER_STEPS, factors, strict=True)}
    moved = v2.ColorJitter(**asked.jitter.ranges).transform(crop.permute(2, 0, 1), {"fn_idx": order, **named})
    to_floats = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(MEAN), list(STANDARD_DEVIATION))])
    return to_floats(moved)


def test_the_inputs_are_those_of_torchvisions_transforms():
    found = torch.cat([inputs for inputs, _, _ in training_batches(IMAGES, params(form="torchvision"), 2, CPU)])
    rows = IMAGES.rows[epoch_order(IMAGES.labels, 0, 2)]
    torch.testing.assert_close(found, torch.stack([of_torchvision(row) for row in rows]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", ["affine", "torchvision"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_inputs_have_the_layout_asked_for(form: str, name: Any):
    for inputs, _, _ in training_batches(IMAGES, params(form=form, memory_format=name), 1, CPU):
        assert inputs.is_contiguous(memory_format=memory_layout(name))


@pytest.mark.parametrize("batch_size", [2, 3, 16])
@pytest.mark.parametrize("name", LAYOUTS)
def test_an_image_s_input_depends_on_no_batch_or_layout(batch_size: int, name: str):
    assert inputs_by_image(batch_size=batch_size, memory_format=name) == inputs_by_image()


def test_two_processes_compute_the_same_inputs_as_one():
    together = [image for rank in (0, 1) for image in inputs_by_image(processes=Share(rank))]
    assert sorted(together) == inputs_by_image()


def test_images_in_the_memory_of_the_device_give_the_same_inputs():
    resident = replace(IMAGES, resident=copied_pixels(IMAGES.cache, CPU))
    assert inputs_by_image(resident) == inputs_by_image()


def test_a_resumed_epoch_has_the_inputs_of_a_whole_one():
    asked = params(form="torchvision", batch_size=4)
    whole = [inputs for inputs, _, _ in training_batches(IMAGES, asked, 2, CPU)]
    rest = [inputs for inputs, _, _ in training_batches(IMAGES, asked, 2, CPU, seen=8)]
    assert len(rest) == len(whole) - 2
    assert all(torch.equal(one, other) for one, other in zip(rest, whole[2:], strict=True))
