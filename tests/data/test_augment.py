"""Augmentation: torchvision's law of boxes and its pixels from the same draws, and what each kind of crop does."""

from __future__ import annotations

import itertools
import types
from typing import Any

import numpy as np
import pytest
from made_images import picture
from PIL import Image
from untested import require

from polymae.data import augment
from polymae.data.augment import Augmentation, first_box, random_resized_crop_box, random_shift
from polymae.data.draws import generator
from polymae.data.images import MEAN, STD, centre_crop, normalise, normalise_into, resize, resized_sides
from polymae.files.errors import Problem

SIZES = [(375, 500), (500, 375), (300, 300), (28, 28), (1, 1), (1, 50), (60, 2), (333, 47), (9, 200)]
SETTINGS = [((0.2, 1.0), (3 / 4, 4 / 3)), ((0.08, 1.0), (3 / 4, 4 / 3)), ((1.0, 1.0), (0.5, 0.5)), ((0.9, 1), (1, 3))]


class Drawn:
    """torch, as torchvision's crop uses it, with numbers that are given: four for each try, in float64."""

    def __init__(self, place: tuple[int, str, int, int]):
        import torch

        self.log, self.exp, self.float64, self.real = torch.log, torch.exp, torch.float64, torch
        self.rows = iter(generator(*place).random((10, 4)).tolist())
        self.uniforms, self.whole = itertools.cycle((0, 1)), itertools.cycle((2, 3))

    def tensor(self, values: Any) -> Any:
        return self.real.tensor(values, dtype=self.float64)

    def empty(self, size: int) -> Any:
        return types.SimpleNamespace(uniform_=self.uniform)

    def uniform(self, low: Any, high: Any) -> Any:
        number = next(self.uniforms)
        if number == 0:
            self.row = next(self.rows)
        return self.tensor([float(low) + self.row[number] * (float(high) - float(low))])

    def randint(self, low: int, high: int, size: tuple[int, ...]) -> Any:
        return self.real.tensor([low + int(self.row[next(self.whole)] * (high - low))])


def torchvisions(monkeypatch: pytest.MonkeyPatch, place: tuple[int, str, int, int]) -> Any:
    require("torch")
    from torchvision.transforms import transforms

    monkeypatch.setattr(transforms, "torch", Drawn(place))
    return transforms


def different_boxes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of images for which torchvision and we draw other boxes, of 3,600."""
    wrong = []
    for (height, width), (scale, ratio), index in itertools.product(SIZES, SETTINGS, range(100)):
        place = (3, "crop", 1, index)
        image = Image.new("L", (width, height))
        expected = torchvisions(monkeypatch, place).RandomResizedCrop.get_params(image, list(scale), list(ratio))
        if augment.random_resized_crop_box(generator(*place), height, width, scale, ratio) != tuple(expected):
            wrong.append((height, width))
    return wrong


def test_boxes_are_torchvisions_from_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    assert different_boxes(monkeypatch) == []


def test_a_box_one_pixel_off_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = random_resized_crop_box

    def off(drawn, height, width, scale, ratio):
        top, left, rows, columns = right(drawn, height, width, scale, ratio)
        return max(0, top - 1), left, rows, columns

    monkeypatch.setattr(augment, "random_resized_crop_box", off)
    assert len(different_boxes(monkeypatch)) > 500


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_torchvisions_from_the_same_draws(interpolation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (height, width) in enumerate(SIZES):
        place = (3, "crop", 1, number)
        image = picture(number, height, width)
        transforms = torchvisions(monkeypatch, place)
        crop = transforms.RandomResizedCrop(
            (32, 48), (0.2, 1.0), interpolation=transforms.InterpolationMode(interpolation)
        )
        cropped = crop(image)
        flipped = generator(3, "flip", 1, number).random() < 0.5
        expected = np.asarray(transforms.F.hflip(cropped) if flipped else cropped)
        ours = Augmentation(input_size=(32, 48), interpolation=interpolation)
        assert np.array_equal(ours.pixels(image, 3, 1, number), expected)
        assert np.array_equal(ours(image, 3, 1, number), normalise(np.ascontiguousarray(expected)))


def test_boxes_are_distributed_as_the_law_says() -> None:
    boxes = np.array([random_resized_crop_box(generator(0, "crop", 0, i), 400, 400) for i in range(6000)])
    top, left, rows, columns = boxes.T
    assert (boxes.min(), (top + rows).max(), (left + columns).max()) == (0, 400, 400)
    share = rows * columns / 160_000
    assert 0.195 < share.min() < 0.21 < 0.95 < share.max() <= 1
    # Every shape of up to 3/4 of the area fits; of a larger share s those of |log(width/height)| up to -log(s).
    fits = (0.55 + (1 - 0.75 + 0.75 * np.log(0.75)) / np.log(4 / 3)) / 0.8
    small = share < 0.5
    assert abs(small.mean() - 0.3 / 0.8 / fits) < 0.02
    assert abs(share[small].mean() - 0.35) < 0.01
    shape = np.log(columns / rows)[small]
    assert abs(shape).max() < np.log(4 / 3) + 0.02
    assert abs(shape.mean()) < 0.02
    assert abs(shape.std() - 2 * np.log(4 / 3) / 12**0.5) < 0.01
    place = (top / np.maximum(400 - rows, 1))[small]
    assert abs(place.mean() - 0.5) < 0.02
    assert abs(place.std() - 1 / 12**0.5) < 0.02
    assert abs(np.corrcoef(top[small], left[small])[0, 1]) < 0.08


class Given:
    """A generator that gives these numbers."""

    def __init__(self, *numbers: float):
        self.random = lambda count: np.array(numbers)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        # All of 100 x 200 pixels as a square: of side sqrt(20000) = 141, of which the height has 100. Then 0 of 1, 30 of 60.
        ((1.0, 0.5, 0.5, 0.5), (0, 30, 100, 141)),
        # 8 %, of 3:4: sqrt(1600 / .75) = 46.2 by sqrt(1600 x .75) = 34.6. Then int(.999 x 55) and int(.25 x 166).
        ((0.0, 0.0, 0.999, 0.25), (54, 41, 46, 35)),
        # 77 %, of 4:3: sqrt(15400 / 1.33) = 107 by sqrt(15400 x 1.33) = 143; int(.75 x 58).
        ((0.75, 1.0, 0.75, 0.75), (0, 43, 100, 143)),
    ],
)
def test_the_probes_box_is_the_first_one_drawn(numbers: tuple[float, ...], expected: tuple[int, ...]) -> None:
    assert first_box(Given(*numbers), 100, 200, (0.08, 1.0), (3 / 4, 4 / 3)) == expected


def test_a_first_box_that_fits_is_that_of_ten_tries() -> None:
    whole = [(s, a, index) for s in SIZES for a in SETTINGS[:2] for index in range(50)]
    same = 0
    for (height, width), (scale, ratio), index in whole:
        place = (3, "crop", 1, index)
        top, left, rows, columns = first_box(generator(*place), height, width, scale, ratio)
        assert 0 <= top <= height - rows < height
        assert 0 <= left <= width - columns < width
        tries = random_resized_crop_box(generator(*place), height, width, scale, ratio)
        same += (top, left, rows, columns) == tries
    assert 0.3 * len(whole) < same < 0.95 * len(whole)
    image = picture(7, 40, 90)
    ours = Augmentation(input_size=32, crop="first_box", scale=(0.9, 1.0), flip=0.0)
    boxes = set()
    for index in range(20):
        top, left, rows, columns = first_box(generator(3, "crop", 1, index), 40, 90, (0.9, 1.0), (3 / 4, 4 / 3))
        box = image.crop((left, top, left + columns, top + rows)).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.array_equal(ours.pixels(image, 3, 1, index), np.asarray(box))
        boxes.add((left, rows, columns))
    assert {rows for _, rows, _ in boxes} == {
        40
    }  # its sides would be 60: none of ten tries would fit, and all be one box
    assert len(boxes) > 10


def test_a_flip_is_drawn_for_each_image() -> None:
    image = picture(0, 16, 16)
    plain = np.asarray(image)
    ours = Augmentation(input_size=16, crop="none")
    flipped = [np.array_equal(ours.pixels(image, 0, 0, index), plain[:, ::-1]) for index in range(600)]
    assert 240 < sum(flipped) < 360
    for flip, expected in ((0.0, plain), (1.0, plain[:, ::-1])):
        always = Augmentation(input_size=16, crop="none", flip=flip)
        assert all(np.array_equal(always.pixels(image, 0, 0, index), expected) for index in range(20))


def test_a_centre_crop_is_the_official_evaluations() -> None:
    image = picture(0, 50, 70)
    expected = np.asarray(centre_crop(resize(image, resized_sides((50, 70), (32, 32))), (32, 32)))
    ours = Augmentation(input_size=32, crop="centre", flip=0)
    assert np.array_equal(ours.pixels(image, 0, 0, 0), expected)


def test_a_shift_moves_over_black() -> None:
    shifts = [random_shift(generator(0, "crop", 0, index), 2) for index in range(1000)]
    assert set(shifts) == set(itertools.product(range(-2, 3), repeat=2))
    ours = Augmentation(input_size=16, crop="shift", flip=0, channels=1, mean=(0.0,), std=(1.0,))
    image = picture(0, 16, 16, "L")
    padded = np.pad(np.asarray(image), 2)
    for index, (down, right) in enumerate(shifts[:50]):
        expected = padded[2 - down : 18 - down, 2 - right : 18 - right]
        assert np.array_equal(ours.pixels(image, 0, 0, index)[..., 0], expected)
    assert ours(picture(0, 50, 50, "L"), 0, 0, 0).shape == (1, 16, 16)


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.5,), (0.25,))])
def test_a_plane_at_a_time_gives_the_same_bits(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, len(mean)), dtype=np.uint8)
    for view in (pixels, pixels[:, ::-1]):
        imgs = np.empty((len(mean), 40, 50), np.float32)
        normalise_into(imgs, view, mean, std)
        assert np.array_equal(imgs, normalise(view, "float32", mean, std))


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": "random"}, {"interpolation": "cubic"}, {"input_size": 0}, {"channels": 4}, {"scale": (0, 1)},
        {"scale": (0.5, 1.1)}, {"scale": (0.6, 0.5)}, {"ratio": (0, 1)}, {"ratio": (2, 1)}, {"flip": 1.5}, {"flip": -0.1},
        {"shift": -1}, {"shift": 224}, {"mean": (0.5,)}, {"channels": 1}, {"std": (1, 1, 0)},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Problem, match=f"The augmentation's .*{next(iter(wrong))}"):
        Augmentation(**wrong)
    assert Augmentation(channels=1, mean=(0.5,), std=(0.5,)).size == (224, 224)


def test_an_image_of_another_size_is_refused_where_nothing_is_cropped() -> None:
    with pytest.raises(Problem, match="32 x 24 pixels.*takes 16 x 16"):
        Augmentation(input_size=16, crop="none").pixels(picture(0), 0, 0, 0)
