import colorsys
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare
from torch import Tensor
from torchvision.transforms import functional, v2

from cclnet.images import augmentation
from cclnet.images.augmentation import (
    GREY,
    IMAGENET,
    JITTER_STEPS,
    MEAN,
    STANDARD_DEVIATION,
    ColorJitter,
    Views,
    color_maps,
    color_matrices,
    jitter,
    jitter_orders,
    jitter_to_network,
    normalize,
    to_network,
    torchvision_jitter,
)
from cclnet.images.cache import ImageCache


def cache_of(sizes: list[tuple[int, int]]) -> ImageCache:
    """Images of these heights and widths; each byte tells its place."""
    heights, widths = np.array(sizes).T
    ends = np.cumsum(heights * widths * 3)
    pixels = (np.arange(ends[-1]) % 251).astype(np.uint8)
    return ImageCache(pixels, [str(row) for row in range(len(sizes))], heights, widths, ends - heights * widths * 3)


def colors(low: float, high: float, images: int = 4, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(images, 9, 11, 3, generator=random)


def factors(
    brightness: float = 1, contrast: float = 1, saturation: float = 1, hue: float = 0, images: int = 4
) -> Tensor:
    return torch.tensor([[brightness, contrast, saturation, hue]], dtype=torch.float32).expand(images, 4)


def of_torchvision(adjust, images: Tensor, factor: float) -> Tensor:
    return adjust(images.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)


# views


def test_a_view_depends_on_seed_epoch_and_image_alone():
    cache = cache_of([(12, 16), (20, 12), (13, 13), (12, 40), (30, 30)])
    everything = np.arange(5)
    all_at_once = Views.of_epoch(5, seed=3, epoch=7).crops(cache, everything, 12)
    all_draws = Views.of_epoch(5, seed=3, epoch=7).color_draws(everything)
    for rows in ([4, 0], [2], [1, 3, 0], [0, 0, 4]):
        views = Views.of_epoch(5, seed=3, epoch=7)  # another process, another batch
        assert torch.equal(views.crops(cache, np.array(rows), 12), all_at_once[rows])
        assert torch.equal(views.color_draws(np.array(rows)), all_draws[rows])


def test_every_epoch_and_seed_has_views_of_its_own():
    drawn = [Views.of_epoch(5, seed, epoch).uniforms.tobytes() for seed in range(4) for epoch in range(4)]
    assert len(set(drawn)) == len(drawn)
    draws = Views.of_epoch(1000, 0, 1).uniforms
    assert len(np.unique(draws, axis=0)) == 1000
    assert np.abs(np.corrcoef(draws.T) - np.eye(8)).max() < 0.15


def test_crops_are_flipped_as_drawn():
    cache = cache_of([(12, 16), (20, 12), (13, 13), (12, 40), (30, 30)] * 8)
    views, everything = Views.of_epoch(40, 0, 1), np.arange(40)
    crops = views.crops(cache, everything, 12).numpy()
    for row, (top, left, upside_down, mirrored) in enumerate(views.uniforms[:, :4]):
        image = cache[row]
        y, x = int(top * (len(image) - 11)), int(left * (image.shape[1] - 11))
        for down in range(12):
            for right in range(12):
                source = y + (11 - down if upside_down < 0.5 else down), x + (11 - right if mirrored < 0.5 else right)
                assert np.array_equal(crops[row, down, right], image[source])


def test_every_position_and_flip_is_equally_likely():
    height, width, size = 7, 9, 5
    images = 20_000
    one = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    same = np.zeros(images, dtype=np.int64)
    cache = ImageCache(one.reshape(-1), ["0"] * images, same + height, same + width, same)
    crops = Views.of_epoch(images, 0, 1).crops(cache, np.arange(images), size)
    where = {}
    for top in range(height - size + 1):
        for left in range(width - size + 1):
            crop = one[top : top + size, left : left + size]
            for upside_down in (False, True):
                for mirrored in (False, True):
                    turned = crop[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
                    where[turned.tobytes()] = len(where)
    counts = np.bincount([where[crop.tobytes()] for crop in crops.numpy()], minlength=len(where))
    assert len(where) == 3 * 5 * 4
    assert counts.min() > 0
    assert chisquare(counts).pvalue > 0.001


def test_the_largest_draw_stays_inside_the_image():
    below_one = np.nextafter(np.float32(1), np.float32(0))
    cache = cache_of([(12, 4096)])
    crops = Views(np.full((1, 8), below_one, dtype=np.float32)).crops(cache, np.array([0]), 12)
    assert np.array_equal(crops[0], cache[0][:, -12:])


def test_a_crop_of_the_whole_image():
    cache = cache_of([(12, 12)])
    crop = Views(np.full((1, 8), 0.9, dtype=np.float32)).crops(cache, np.array([0]), 12)[0]
    assert np.array_equal(crop, cache[0])


# colours


def test_factors_lie_within_the_reach():
    reach = ColorJitter(0.2, 0.3, 0.4, 0.1)
    drawn = reach.factors(torch.tensor([[0.0] * 4, [0.5] * 4, [1.0] * 4]))
    expected = [[0.8, 0.7, 0.6, -0.1], [1.0, 1.0, 1.0, 0.0], [1.2, 1.3, 1.4, 0.1]]
    torch.testing.assert_close(drawn, torch.tensor(expected))


def test_neutral_factors_change_nothing():
    images = colors(0, 1)
    torch.testing.assert_close(jitter(images, factors()), images, atol=2e-6, rtol=0)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.2])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_one_step_is_torchvisions(name: str, factor: float):
    images = colors(0.35, 0.65)  # so that nothing is cut to [0, 1]
    theirs = of_torchvision(getattr(functional, f"adjust_{name}"), images, factor)
    only = {"brightness": factors(factor), "contrast": factors(1, factor), "saturation": factors(1, 1, factor)}
    torch.testing.assert_close(jitter(images, only[name]), theirs, atol=1e-4, rtol=0)


def test_the_steps_follow_each_other_as_torchvisions():
    images = colors(0.35, 0.65)
    theirs = images
    for name, factor in {"brightness": 1.1, "contrast": 0.8, "saturation": 1.2}.items():
        theirs = of_torchvision(getattr(functional, f"adjust_{name}"), theirs, factor)
    torch.testing.assert_close(jitter(images, factors(1.1, 0.8, 1.2)), theirs, atol=1e-4, rtol=0)


def test_every_image_has_factors_of_its_own():
    images = colors(0, 1, images=3)
    of_each = torch.tensor([[0.8, 1.2, 0.9, 0.05], [1.2, 0.8, 1.1, -0.1], [1.0, 1.0, 1.0, 0.0]])
    together = jitter(images, of_each)
    for number in range(3):
        alone = jitter(images[number : number + 1], of_each[number : number + 1])
        torch.testing.assert_close(together[number : number + 1], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("hue", [-0.5, -0.1, 0.07, 0.1, 0.5])
def test_grey_has_no_hue(hue: float):
    grey = colors(0, 1)[..., :1].expand(-1, -1, -1, 3)
    torch.testing.assert_close(jitter(grey, factors(hue=hue)), grey, atol=2e-6, rtol=0)


@pytest.mark.parametrize("hue", [-0.5, -0.1, 0.07, 0.1, 0.5])
def test_a_turn_of_the_hue_keeps_the_luma(hue: float):
    images = colors(0.4, 0.6)
    luma = torch.tensor(GREY)
    torch.testing.assert_close(jitter(images, factors(hue=hue)) @ luma, images @ luma, atol=2e-6, rtol=0)


def test_turns_of_the_hue_add_up():
    one = torch.ones(1)
    two_steps = color_matrices(one, 0.3 * one) @ color_matrices(one, 0.2 * one)
    torch.testing.assert_close(two_steps, color_matrices(one, 0.5 * one), atol=2e-6, rtol=0)
    torch.testing.assert_close(color_matrices(one, one), torch.eye(3)[None], atol=2e-6, rtol=0)


def hue_angle(image: Tensor) -> Tensor:
    """The angle on the colour wheel, red at 0, green at a third of the circle (independent of YIQ)."""
    red, green, blue = image.unbind(dim=-1)
    return torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue)


@pytest.mark.parametrize("hue", [-0.1, -0.05, 0.05, 0.1])
def test_the_hue_turns_in_torchvisions_direction(hue: float):
    pure = torch.tensor([[0.8, 0.3, 0.3], [0.3, 0.8, 0.3], [0.3, 0.3, 0.8], [0.8, 0.8, 0.3], [0.3, 0.8, 0.8]])
    pure = torch.cat([pure, torch.tensor([[0.8, 0.3, 0.8], [0.8, 0.5, 0.4]])]).view(7, 1, 1, 3)
    ours = jitter(pure, factors(hue=hue, images=7))
    theirs = of_torchvision(functional.adjust_hue, pure, hue)
    for turned in (ours, theirs):
        turn = torch.remainder(hue_angle(turned) - hue_angle(pure) + math.pi, 2 * math.pi) - math.pi
        assert (turn * math.copysign(1, hue) > 0).all()
        assert ((turn.abs() > 0.4 * 2 * math.pi * abs(hue)) & (turn.abs() < 2.1 * 2 * math.pi * abs(hue))).all()


def test_how_far_the_hue_departs_from_torchvisions():
    skin_and_lesion = torch.tensor([[0.80, 0.58, 0.50], [0.65, 0.42, 0.36], [0.45, 0.27, 0.20], [0.30, 0.16, 0.12]])
    images = (skin_and_lesion[:, None, None, :] + colors(-0.05, 0.05)).clamp(0, 1)
    moves, departures, departures_in_color = [], [], []
    for hue in torch.linspace(-0.1, 0.1, 21).tolist():
        theirs = of_torchvision(functional.adjust_hue, images, hue)
        departure = jitter(images, factors(hue=hue)) - theirs
        in_color = departure - (departure @ torch.tensor(GREY))[..., None]
        moves.append((theirs - images).abs().mean().item())
        departures.append(departure.abs().mean().item())
        departures_in_color.append(in_color.abs().mean().item())
    # most of it is lightness: HSV's hue changes it, and YIQ's does not
    assert np.mean(departures) < 0.042
    assert max(departures) < 0.095
    assert np.mean(departures_in_color) < 0.017 < np.mean(moves)


def test_values_are_cut_once_at_the_end():
    image = torch.tensor([0.1, 0.9, 0.9, 0.9]).view(1, 2, 2, 1).expand(1, 2, 2, 3)
    brighter = torch.tensor([0.12, 1.08, 1.08, 1.08])  # cut here, the bright ones would end as 0.94
    expected = (0.5 * brighter + 0.5 * brighter.mean()).clamp(max=1).view(1, 2, 2, 1).expand(1, 2, 2, 3)
    torch.testing.assert_close(jitter(image, factors(brightness=1.2, contrast=0.5, images=1)), expected)


def test_values_stay_between_0_and_1():
    wild = jitter(colors(0, 1), factors(1.8, 1.9, 1.9, 0.4))
    assert wild.min() == 0
    assert wild.max() == 1


# what the network takes


def test_normalisation_is_torchvisions():
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8))
    theirs = functional.normalize(crops.permute(0, 3, 1, 2) / 255, list(MEAN), list(STANDARD_DEVIATION))
    ours = to_network(crops)
    torch.testing.assert_close(ours, theirs)
    assert ours.shape == (3, 3, 5, 7)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_channels_keep_their_order():
    red = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    red[..., 0] = 255
    for network_input in (to_network(red), jitter_to_network(red, factors(images=1), torch.contiguous_format)):
        expected = [(1 - MEAN[0]) / STANDARD_DEVIATION[0], -MEAN[1] / STANDARD_DEVIATION[1]]
        expected.append(-MEAN[2] / STANDARD_DEVIATION[2])
        torch.testing.assert_close(network_input[0, :, 0, 0], torch.tensor(expected), atol=2e-5, rtol=0)


def test_jitter_comes_before_normalisation():
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3), dtype=np.uint8))
    moved = jitter(crops / 255, factors(1.1, 0.9, 1.2, 0.05)).permute(0, 3, 1, 2)
    theirs = functional.normalize(moved, list(MEAN), list(STANDARD_DEVIATION))
    ours = jitter_to_network(crops, factors(1.1, 0.9, 1.2, 0.05), torch.contiguous_format)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("cached_values", [1, 500, 350_000])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_same_bytes_however_many_at_once_and_in_whatever_layout(
    cached_values: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
):
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 9, 9, 3), dtype=np.uint8))
    of_each = ColorJitter(0.2, 0.2, 0.2, 0.1).factors(torch.rand(5, 4, generator=torch.Generator().manual_seed(0)))
    one_by_one = [
        jitter_to_network(*one, torch.channels_last) for one in zip(crops.split(1), of_each.split(1), strict=True)
    ]
    monkeypatch.setattr(augmentation, "CACHED_VALUES", cached_values)
    ours = jitter_to_network(crops, of_each, layout)
    assert ours.is_contiguous(memory_format=layout)
    assert torch.equal(ours, torch.cat(one_by_one))
    torch.testing.assert_close(ours, normalize(jitter(crops / 255, of_each)).permute(0, 3, 1, 2), atol=2e-6, rtol=0)


def test_the_colour_map_rounds_once_for_each_multiplication_and_addition():
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 9, 11, 3), dtype=np.uint8))
    of_each = torch.tensor([[0.8, 1.2, 0.9, 0.05], [1.2, 0.8, 1.1, -0.1], [1, 1, 1, 0]])
    matrices, grey_weights = (tensor.numpy() for tensor in color_maps(of_each, 255, IMAGENET))
    mean, deviation = (np.array(values, np.float32) for values in (MEAN, STANDARD_DEVIATION))
    low, high = -mean / deviation, (1 - mean) / deviation
    expected = np.empty(crops.shape, np.float32)
    for number, image in enumerate(crops.numpy()):
        sums = [int(image[..., channel].sum(dtype=np.int64)) for channel in range(3)]
        mean_grey = np.float32(sum(weight * total for weight, total in zip(GREY, sums, strict=True)) / 99)
        for channel, weights in enumerate(matrices[number]):
            value = np.full((9, 11), low[channel] + grey_weights[number, channel] * mean_grey)
            for source, weight in enumerate(weights):  # exact in 64 bits, then rounded to 24
                value = (value + np.longdouble(weight) * image[..., source]).astype(np.float32)
            expected[number, ..., channel] = np.clip(value, low[channel], high[channel])
    ours = jitter_to_network(crops, of_each, torch.channels_last).permute(0, 2, 3, 1)
    assert np.array_equal(ours.numpy(), expected)


# torchvision's own colour jitter


def bytes_of(images: int = 6) -> Tensor:
    crops = np.random.default_rng(0).integers(0, 256, (images, 9, 11, 3), dtype=np.uint8)
    crops[0] = crops[0, ..., :1]  # grey
    return torch.from_numpy(crops)


DRAWS = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("reach", [(0.2, 0.2, 0.2, 0.1), (1.0, 1.0, 1.0, 0.5), (0.0, 0.4, 0.0, 0.2), (0.3, 0, 0, 0)])
def test_torchvisions_jitter_is_that_of_its_class(reach: tuple[float, float, float, float]):
    crops, of_each = bytes_of(), ColorJitter(*reach).factors(DRAWS)
    orders = jitter_orders(6, seed=0, epoch=1)
    theirs = v2.ColorJitter(*reach)
    for crop, factors_of_it, order, ours in zip(
        crops, of_each.tolist(), orders, torchvision_jitter(crops, of_each, orders), strict=True
    ):
        drawn = zip(JITTER_STEPS, factors_of_it, reach, strict=True)
        chosen = {f"{name}_factor": factor if its_reach else None for name, factor, its_reach in drawn}
        moved = theirs.transform(crop.permute(2, 0, 1), {"fn_idx": torch.tensor(order), **chosen})
        assert torch.equal(ours, moved.permute(1, 2, 0))
        assert not torch.equal(ours, crop)


def byte_hsv(image: NDArray[np.uint8], hue: float) -> NDArray[np.float64]:
    turned = [
        colorsys.hsv_to_rgb((h + hue) % 1, s, v)
        for h, s, v in (colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3) / 255)
    ]
    return np.array(turned).reshape(image.shape) * 255


def test_torchvisions_hue_turns_the_wheel_of_hsv():
    crops, hues = bytes_of(), torch.linspace(-0.5, 0.4, 6)
    of_each = torch.stack([torch.ones(6), torch.ones(6), torch.ones(6), hues], dim=1)
    ours = torchvision_jitter(crops, of_each, jitter_orders(6, 0, 1))
    for crop, hue, turned in zip(crops.numpy(), hues.tolist(), ours.numpy(), strict=True):
        assert np.abs(turned - byte_hsv(crop, hue)).max() <= 1  # rounded to a byte


def test_torchvisions_steps_clip_after_each_other():
    bright = torch.full((1, 2, 2, 3), 200, dtype=torch.uint8)
    of_it = torch.tensor([[1.5, 0.5, 1.0, 0.0]])
    brightness_first = torchvision_jitter(bright, of_it, np.array([[0, 1, 2, 3]]))
    contrast_first = torchvision_jitter(
        bright * torch.tensor([1, 0, 1], dtype=torch.uint8), of_it, np.array([[1, 0, 2, 3]])
    )
    assert brightness_first.unique().tolist() == [254]  # 300, clipped to 255; the mean grey is 254
    assert contrast_first[0, 0, 0].tolist() == [211, 61, 211]  # grey 82: 141 and 41, then 1.5 times


def test_an_order_depends_on_seed_epoch_and_image_alone():
    orders = jitter_orders(5000, 3, 7)
    assert np.array_equal(orders, jitter_orders(5000, 3, 7))
    assert len({jitter_orders(50, seed, epoch).tobytes() for seed in range(3) for epoch in range(3)}) == 9
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert chisquare(counts).pvalue > 0.001
    draws = Views.of_epoch(5000, 3, 7).uniforms
    related = np.asarray(np.corrcoef(np.concatenate([draws, orders], axis=1).T))
    assert np.abs(related[:8, 8:]).max() < 0.06


def test_torchvisions_jitter_is_the_same_in_any_batch_and_order_of_images():
    crops, of_each, orders = bytes_of(), ColorJitter(0.2, 0.2, 0.2, 0.1).factors(DRAWS), jitter_orders(6, 0, 1)
    together = torchvision_jitter(crops, of_each, orders)
    for rows in ([5, 2], [0], [3, 3, 1]):
        assert torch.equal(torchvision_jitter(crops[rows], of_each[rows], orders[rows]), together[rows])


def test_everything_is_computed_where_the_crops_are():
    crops, of_each = bytes_of().to("meta"), ColorJitter(0.2, 0.2, 0.2, 0.1).factors(DRAWS)  # a device without memory
    moved = torchvision_jitter(crops, of_each, jitter_orders(6, 0, 1))
    for inputs in (jitter_to_network(crops, of_each, torch.channels_last), to_network(moved)):
        assert inputs.device == crops.device
        assert inputs.shape == (6, 3, 9, 11)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_network_s_layout(layout: torch.memory_format):
    inputs = to_network(bytes_of(), layout=layout)
    assert inputs.is_contiguous(memory_format=layout)
    assert torch.equal(inputs, to_network(bytes_of()))


def test_an_epoch_s_inputs_come_out_the_same_from_an_opened_cache(tmp_path: Path):
    memory = cache_of([(12, 16), (20, 12), (13, 13)])
    np.save(tmp_path / "pixels.npy", memory.pixels)
    mapped = ImageCache(
        np.load(tmp_path / "pixels.npy", mmap_mode="r"), memory.images, memory.heights, memory.widths, memory.offsets
    )
    views, rows = Views.of_epoch(3, 0, 1), np.arange(3)
    assert torch.equal(views.crops(mapped, rows, 12), views.crops(memory, rows, 12))
