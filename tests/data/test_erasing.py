"""Random erasing: timm's images from the same draws, after standardising, for each image its own."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_images import picture
from untested import require

from polymae.data import augment, erasing
from polymae.data.augment import Augmentation
from polymae.data.draws import generator, normals
from polymae.files.errors import Problem

PLAIN = Augmentation(input_size=(20, 27), flip=0)
ERASING = replace(PLAIN, erase=0.25)


class Numbers:
    """The standard library's random and the normal pixels as timm uses them, with the numbers of a place."""

    def __init__(self, place: tuple[int, str, int, int]):
        self.generator = generator(*place)
        self.happens, self.number = self.generator.random(2).tolist()
        self.rows: list[list[float]] = []
        self.row: list[float] = []
        self.in_row = itertools.cycle((0, 1))

    def random(self) -> float:
        return self.happens

    def uniform(self, low: float, high: float) -> float:
        place = next(self.in_row)
        if place == 0:
            if not self.rows:
                self.rows = self.generator.random((10, 4)).tolist()
                self.places = iter(())
            self.row = self.rows.pop(0)
            self.places = iter(self.row[2:])
        return low + (high - low) * self.row[place]

    def randint(self, low: int, high: int) -> int:
        share = next(self.places) if self.row else self.number
        return low + int(share * (high - low + 1))

    def pixels(self, per_pixel: bool, rand_color: bool, shape: tuple[int, ...], **options: Any) -> Any:
        import torch

        assert per_pixel
        self.rows = []  # the next box is drawn anew
        return torch.from_numpy(normals(self.generator, shape).astype(np.float32))


def timms(monkeypatch: pytest.MonkeyPatch, img: Any, index: int, prob: float, count: int) -> Any:
    require("torch")
    import torch
    from timm.data import random_erasing

    numbers = Numbers((3, "erase", 1, index))
    with monkeypatch.context() as patched:
        patched.setattr(random_erasing, "random", numbers)
        patched.setattr(random_erasing, "_get_pixels", numbers.pixels)
        erased = random_erasing.RandomErasing(prob, mode="pixel", max_count=count, device="cpu")
        return erased(torch.from_numpy(img.copy())).numpy()


def different(monkeypatch: pytest.MonkeyPatch, prob: float, count: int, images: int) -> tuple[int, int]:
    """How many images timm and we make differently, and how many have a box that is erased."""
    ours = replace(ERASING, erase=prob, erase_count=count)
    wrong = erased = 0
    for index in range(images):
        image = picture(index % 20)
        before, after = PLAIN(image, 3, 1, index), ours(image, 3, 1, index)
        expected = timms(monkeypatch, before, index, prob, count)
        wrong += after.tobytes() != expected.tobytes()
        erased += not np.array_equal(before, after)
    return wrong, erased


@pytest.mark.parametrize(("prob", "count"), [(0.25, 1), (1.0, 1), (0.6, 3)])
def test_images_are_timms_from_the_same_draws(prob: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, erased = different(monkeypatch, prob, count, 300)
    assert wrong == 0
    assert abs(erased / 300 - prob) < 0.08


def _one_of_all(seed: int, purpose: str, epoch: int, index: int) -> np.random.Generator:
    return generator(seed, purpose, epoch, 0 if purpose == "erase" else index)


@pytest.mark.parametrize(
    ("module", "name", "fault"),
    [
        (augment, "generator", _one_of_all),
        (erasing, "_ASPECT", (-0.3, 0.3)),
        (erasing, "_AREA", (0.02, 0.4)),
        (erasing, "normals", lambda drawn, shape: np.zeros(shape)),
        (erasing, "normals", lambda drawn, shape: normals(drawn, (shape[0], 1, 1))),
    ],
    ids=["one erasing for all images", "aspect", "area", "black", "one colour a box"],
)
def test_other_boxes_and_pixels_would_be_seen(
    module: Any, name: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, fault)
    assert different(monkeypatch, 1.0, 1, 40)[0] > 20


def test_what_is_drawn_is_what_it_was() -> None:
    whole = hashlib.sha256()
    for index in range(100):
        img = np.zeros((3, 20, 27), np.float32)
        erasing.erase(img, generator(7, "erase", 3, index), 0.8, 2)
        whole.update(np.round(img.astype(np.float64) * 1e4).astype("<i8").tobytes())
    assert whole.hexdigest() == "d3a43dc16840613ec639a2b5307e186c6ace960accc25ab78fe075ad5d05f1cc"


def test_the_noise_is_normal_and_of_part_of_the_image() -> None:
    img = np.full((3, 200, 200), np.nan, np.float32)
    erasing.erase(img, generator(0, "erase", 0, 0), 1.0)
    filled = ~np.isnan(img)
    assert 0.02 * 0.98 <= filled.mean() <= 1 / 3 * 1.02
    assert abs(img[filled].mean()) < 0.05
    assert abs(img[filled].std() - 1) < 0.05
    assert ERASING.plain == replace(ERASING, crop="centre", erase=0.0)


@pytest.mark.parametrize("wrong", [{"erase": -0.1}, {"erase": 1.5}, {"erase_count": 0}], ids=str)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Problem, match=f"The augmentation's {next(iter(wrong))}"):
        Augmentation(**wrong)
