"""The order of an epoch, its batches, and their inputs in both forms of colour jitter."""

import math
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
from cclnet.training.batches import epoch_order, split_into_batches, training_batches
from cclnet.training.distributed import ALONE, Processes
from tests.training.builders import CPU, IMAGES, K, params, subset_of

LAYOUTS = ("contiguous", "channels_last")


# order and batches


def test_epoch_order_is_a_permutation_of_its_own_in_every_epoch() -> None:
    labels = np.arange(50) % K
    orders = [epoch_order(labels, seed, epoch) for seed in (0, 1) for epoch in (1, 2)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(epoch_order(labels, 0, 1), orders[0])


def test_balanced_order_gives_every_class_and_every_image_of_it_the_same_chance() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 2, 5], [9000, 90, 10]))
    order = epoch_order(labels, seed=0, epoch=1, balanced=True)
    assert len(order) == 9100
    drawn = np.bincount(labels[order], minlength=6)
    assert set(np.flatnonzero(drawn)) == {0, 2, 5}
    # five standard deviations of a binomial count
    np.testing.assert_allclose(drawn[[0, 2, 5]], 9100 / 3, atol=5 * math.sqrt(9100 * 2 / 9))
    times = np.bincount(order, minlength=9100)[labels == 5]
    np.testing.assert_allclose(times, 9100 / 3 / 10, atol=5 * math.sqrt(9100 / 30))


def test_balanced_order_of_balanced_classes_keeps_their_shares() -> None:
    labels = np.arange(7000) % K
    drawn = np.bincount(labels[epoch_order(labels, 0, 1, balanced=True)])
    np.testing.assert_allclose(drawn, np.bincount(labels), atol=5 * math.sqrt(1000))


def test_batches_lose_nothing_and_are_never_of_one_image() -> None:
    for count in range(2, 70):
        order = np.random.default_rng(count).permutation(count)
        for batch_size in range(2, 12):
            batches = split_into_batches(order, batch_size)
            sizes = [len(batch) for batch in batches]
            np.testing.assert_array_equal(np.concatenate(batches), order)
            assert min(sizes) >= 2
            assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
            assert sizes[-1] <= batch_size + 1


def test_sizes_of_batches() -> None:
    sizes = {count: [len(batch) for batch in split_into_batches(np.arange(count), 4)] for count in (3, 4, 5, 8, 9, 10)}
    assert sizes == {3: [3], 4: [4], 5: [5], 8: [4, 4], 9: [4, 5], 10: [4, 4, 2]}
    assert [len(batch) for batch in split_into_batches(np.arange(8012), 128)] == [128] * 62 + [76]


def test_training_batches_hold_each_image_once_with_its_own_label() -> None:
    plain = params(brightness=0, contrast=0, saturation=0, hue=0, crop=36, batch_size=5)
    sides = subset_of([k % K for k in range(11)])
    square = np.flatnonzero(sides.cache.widths == 36)
    images = Subset(sides.cache, square, np.arange(len(square)) % K)
    mean_of = {}
    for row, label in zip(images.rows, images.labels, strict=True):
        normalised = (images.cache[row] / 255 - MEAN) / STANDARD_DEVIATION
        mean_of[round(float(normalised.mean()), 4)] = label  # neither a flip nor the order changes it
    found = [
        (round(image.mean().item(), 4), int(label))
        for inputs, labels, _ in training_batches(images, plain, 1, CPU)
        for image, label in zip(inputs, labels, strict=True)
    ]
    assert len(found) == len(images)
    assert {mean for mean, _ in found} == set(mean_of)
    assert all(mean_of[mean] == label for mean, label in found)


# inputs in the form of torchvision's colour jitter


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
