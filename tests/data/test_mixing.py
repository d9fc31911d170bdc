"""Mixup, CutMix, soft targets and drop path: timm's from the same draws, the same bytes however a batch is made."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_images import folder_of_classes, write
from untested import require

from polymae.data import mixing
from polymae.data.augment import Augmentation
from polymae.data.batches import Batches
from polymae.data.dataset import Dataset
from polymae.data.datasets import open_dataset
from polymae.data.draws import beta, drop_path, generator
from polymae.data.mixing import Mix, Mixing
from polymae.files.errors import Problem

SMALL = Augmentation(input_size=(15, 18))
EVERYTHING = Augmentation(input_size=16, auto_augment="rand-m9-mstd0.5-inc1", erase=0.25)
OFFICIAL = Mixing(5, smoothing=0.1, mixup=0.8, cutmix=1.0)
SETTINGS = {
    "official": OFFICIAL,
    "mixup": replace(OFFICIAL, cutmix=0, prob=0.7),
    "cutmix": replace(OFFICIAL, mixup=0, cutmix=0.3),
    "minmax": replace(OFFICIAL, cutmix_minmax=(0.2, 0.8), smoothing=0),
    "minmax alone": replace(OFFICIAL, cutmix_minmax=(0.3, 1.0), mixup=0, cutmix=0, prob=0.5),
    "smoothing": replace(OFFICIAL, mixup=0, cutmix=0),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(folder_of_classes(tmp_path_factory.mktemp("set")))


class Numbers:
    """NumPy as timm's Mixup uses it, with the numbers of a step."""

    sqrt, clip = np.sqrt, staticmethod(np.clip)

    def __init__(self, place: tuple[int, int]):
        self.happens, self.which, self.share, *rest = generator(1, "mix", *place).random(7).tolist()
        self.coins, self.places, self.random = iter((self.happens, self.which)), iter(rest), self

    def rand(self) -> float:
        return next(self.coins)

    def beta(self, alpha: float, other: float) -> float:
        assert alpha == other
        return beta(self.share, alpha)

    def randint(self, low: int, high: int, size: None = None) -> int:
        return low + int(next(self.places) * (high - low))


def timms(monkeypatch: pytest.MonkeyPatch, given: Mixing, place: tuple[int, int], plain: dict[str, Any]) -> Any:
    """Images and targets of a plain batch after timm's Mixup, or its one-hot labels where nothing is mixed."""
    require("torch")
    import torch
    from timm.data import mixup

    imgs, labels = torch.from_numpy(plain["imgs"].copy()), torch.from_numpy(plain["labels"])
    if not given.pairs:
        return imgs.numpy(), mixup.mixup_target(labels, given.classes, 1.0, given.smoothing).numpy()
    with monkeypatch.context() as patched:
        patched.setattr(mixup, "np", Numbers(place))
        mixed = mixup.Mixup(
            given.mixup, given.cutmix, given.cutmix_minmax, given.prob, given.switch_prob,
            label_smoothing=given.smoothing, num_classes=given.classes,
        )(imgs, labels)  # fmt: skip
    return tuple(tensor.numpy() for tensor in mixed)


def different(monkeypatch: pytest.MonkeyPatch, dataset: Dataset, given: Mixing, steps: int = 60) -> SimpleNamespace:
    """How many of so many batches timm and we make differently: their images, and targets by more than a unit in the last
    place; and how many are mixed."""
    plain, ours = Batches(dataset, SMALL, 4, 1), Batches(dataset, SMALL, 4, 1, mixing=given)
    count = SimpleNamespace(imgs=0, targets=0, mixed=0)
    for step in range(steps):
        before, batch = plain.batch(step), ours.batch(step)
        imgs, targets = timms(monkeypatch, given, ours.epoch_and_position(step), before)
        count.imgs += batch["imgs"].tobytes() != imgs.tobytes()
        count.targets += bool((abs(batch["targets"] - targets) > np.spacing(targets)).any())
        count.mixed += not np.array_equal(batch["imgs"], before["imgs"])
    return count


@pytest.mark.parametrize("name", SETTINGS)
def test_images_and_targets_are_timms(name: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    count = different(monkeypatch, dataset, SETTINGS[name])
    assert (count.imgs, count.targets) == (0, 0)
    assert count.mixed >= 25 or not SETTINGS[name].pairs


def _uncorrected(self: Mixing, drawn: np.random.Generator, height: int, width: int) -> Mix:
    share = copy.deepcopy(drawn).random(7)[2]
    mix = RIGHT_DRAWN(self, drawn, height, width)
    return mix if mix.box is None else replace(mix, lam=beta(share, self.cutmix))


def _smoothed_twice(self: Mixing, label: int) -> Any:
    return RIGHT_SMOOTHED(self, label) * np.float32(1 - self.smoothing) + np.float32(self.smoothing / self.classes)


def _rest_without_the_label(self: Mixing, label: int) -> Any:
    target = np.full(self.classes, self.smoothing / (self.classes - 1), np.float32)
    target[label] = 1 - self.smoothing
    return target


def _turned(self: Mix, one: Any, other: Any) -> None:
    RIGHT_IMAGES(replace(self, lam=1 - self.lam), one, other)


def _partner_at_once(self: Mix, one: Any, other: Any) -> None:
    RIGHT_IMAGES(self, one, other.copy())


RIGHT_DRAWN, RIGHT_SMOOTHED, RIGHT_IMAGES = Mixing.drawn, Mixing._smoothed, Mix.images


@pytest.mark.parametrize(
    ("owner", "name", "fault", "seen_in"),
    [
        (Mixing, "drawn", _uncorrected, "targets"),
        (Mixing, "_smoothed", _smoothed_twice, "targets"),
        (Mixing, "_smoothed", _rest_without_the_label, "targets"),
        (Mix, "images", _turned, "imgs"),
        (Mix, "images", _partner_at_once, "imgs"),
        (mixing, "beta", lambda share, alpha: share, "imgs"),
        (mixing, "box_of_share", lambda place, height, width, lam: (0, height // 2, 0, width // 2), "imgs"),
    ],
    ids=["lambda not that of the clipped box", "smoothing twice", "smoothing over the others only", "lambda turned round",
         "one of a pair not mixed", "lambda uniform", "box always at the corner"],
)  # fmt: skip
def test_faults_would_be_seen(
    owner: Any, name: str, fault: Callable[..., Any], seen_in: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, fault)
    count = different(monkeypatch, dataset, OFFICIAL, 20)
    assert getattr(count, seen_in) >= 4


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        (one[name].dtype, one[name].tobytes()) == (other[name].dtype, other[name].tobytes()) for name in one
    )


@pytest.fixture
def everything(dataset: Dataset) -> Batches:
    """Batches of a fine-tuning with all that is random."""
    return Batches(dataset, EVERYTHING, 8, seed=2, mixing=OFFICIAL, drop_path=(3, 0.5))


def test_a_batch_has_targets_and_factors(everything: Batches, dataset: Dataset) -> None:
    batch = everything.batch(2)
    assert {name: (array.dtype.name, array.shape) for name, array in batch.items()} == {
        "imgs": ("float32", (8, 3, 16, 16)),
        "targets": ("float32", (8, 5)),
        "drop_path": ("float32", (8, 3, 2)),
    }
    assert np.allclose(batch["targets"].sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(batch["drop_path"][3], drop_path(2, 2, 3, 3, 0.5))
    plain = Batches(dataset, EVERYTHING, 8, seed=2, drop_path=(3, 0.0)).batch(2)
    assert list(plain) == ["imgs", "labels"]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_workers_parts_and_resumes_change_nothing(everything: Batches, workers: int, parts: int) -> None:
    whole = {step: everything.batch(step) for step in range(5)}
    for part, first in itertools.product(range(parts), (0, 3)):
        start, stop = part * 8 // parts, (part + 1) * 8 // parts
        with everything.loader(first, 5, workers, start=start, stop=stop) as loader:
            for step, batch in loader:
                assert equal(batch, {name: array[start:stop] for name, array in whole[step].items()})
    assert not equal(whole[0], whole[1])


def test_uneven_parts_and_the_digest(everything: Batches) -> None:
    whole = everything.batch(1)
    for start, stop in ((0, 3), (3, 5), (2, 7), (7, 8), (4, 4)):
        assert equal(everything.part(1, start, stop), {name: array[start:stop] for name, array in whole.items()})
    assert everything.digest(2) == everything.digest([0, 1]) != everything.digest([0, 2])


def test_a_part_that_pairs_within_itself_would_be_seen(everything: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = everything.batch(1)

    def within(self: Batches, step: int, start: int, stop: int) -> list[tuple[int, ...]]:
        return [(start + place, stop - 1 - place) for place in range((stop - start) // 2)]

    monkeypatch.setattr(Batches, "groups", within)
    assert equal(everything.part(1, 0, 8), whole)
    assert not equal(everything.part(1, 0, 4), {name: array[:4] for name, array in whole.items()})


def test_a_broken_partner_is_skipped_with_its_label(tmp_path: Path) -> None:
    dataset = open_dataset(folder_of_classes(tmp_path))
    for name in ("cat/4.png", "dog/2.png"):
        (tmp_path / name).write_bytes(b"")
    batches = Batches(dataset, SMALL, 14, 1, skip_broken=True, mixing=OFFICIAL)
    whole = batches.batch(0)
    for start in range(14):
        part = batches.part(0, start, start + 1)
        assert equal(part, {name: array[start : start + 1] for name, array in whole.items()})


def test_images_are_mixed_without_targets(dataset: Dataset) -> None:
    """FlyEgle's pre-training: CutMix, by hand from the plain images; noise and labels are each image's own."""
    plain = Batches(dataset, SMALL, 4, 1, num_patches=4)
    mixed = Batches(dataset, SMALL, 4, 1, num_patches=4, mixing=Mixing(0, 0.0, cutmix=1.0))
    cut = 0
    for step in range(6):
        one, other = plain.batch(step), mixed.batch(step)
        box = mixed.mixing.drawn(generator(1, "mix", *mixed.epoch_and_position(step)), 15, 18).box
        top, bottom, left, right = box
        expected = one["imgs"].copy()
        expected[:, :, top:bottom, left:right] = one["imgs"][::-1, :, top:bottom, left:right]
        assert set(other) == {"imgs", "noise", "labels"}
        assert np.array_equal(other["imgs"], expected)
        assert np.array_equal(other["noise"], one["noise"])
        assert np.array_equal(other["labels"], one["labels"])
        cut += not np.array_equal(expected, one["imgs"])
    assert cut > 3
    with pytest.raises(Problem, match="an even batch_size"):
        Batches(dataset, SMALL, 3, 1, num_patches=4, mixing=Mixing(0, 0.0, cutmix=1.0))


def test_a_steps_mix_is_drawn_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    law = Mixing.drawn
    monkeypatch.setattr(Mixing, "drawn", lambda self, *place: drawn.append(1) or law(self, *place))
    batches = Batches(dataset, SMALL, 4, 1, mixing=OFFICIAL)
    with batches.loader(0, 3, workers=2) as loader:
        assert [step for step, _ in loader] == [0, 1, 2]
    assert len(drawn) == 3


def test_the_drawn_mixes_and_factors_are_what_they_were() -> None:
    whole = hashlib.sha256()
    for given, index in itertools.product(SETTINGS.values(), range(100)):
        mix = given.drawn(generator(7, "mix", 3, index), 224, 200)
        whole.update(f"{mix.lam!r} {mix.box} ".encode())
    for index in range(50):
        whole.update(drop_path(7, 3, index, 12, 0.1).astype("<f4").tobytes())
    assert whole.hexdigest() == "9c35afccff96593b70bec8e60e3335d6ba9e120f54d7e71cd1a10b1bd2548e3b"


def test_lambda_has_its_distribution() -> None:
    for alpha in (0.8, 1.0, 0.2):
        drawn = [beta(generator(0, "mix", 0, index).random(), alpha) for index in range(4000)]
        assert abs(np.mean(drawn) - 0.5) < 0.02
        assert abs(np.var(drawn) - 1 / (4 * (2 * alpha + 1))) < 0.01
    assert (beta(0.0, 0.8), beta(0.25, 1.0)) == (0.0, 0.25)
    mixes = [OFFICIAL.drawn(generator(0, "mix", 0, index), 32, 32) for index in range(1000)]
    assert abs(np.mean([mix.box is not None for mix in mixes]) - 0.5) < 0.05


def test_branches_are_dropped_more_often_in_later_blocks() -> None:
    factors = np.array([drop_path(0, 1, index, 5, 0.4) for index in range(4000)])
    assert (factors.dtype, factors.shape) == (np.float32, (4000, 5, 2))
    keep = 1 - np.linspace(0, 0.4, 5)
    for block in range(5):
        assert set(np.unique(factors[:, block])) <= {np.float32(0), np.float32(1 / keep[block])}
        assert abs((factors[:, block] > 0).mean() - keep[block]) < 0.02
    assert abs(np.corrcoef(factors[:, 4].T)[0, 1]) < 0.06  # attention and MLP are drawn apart


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": 1}, {"smoothing": 1.0}, {"smoothing": -0.1}, {"mixup": -1}, {"cutmix": -0.5}, {"mixup": float("inf")},
        {"cutmix_minmax": (0.5, 0.5)}, {"cutmix_minmax": (0.5, 1.5)}, {"prob": 2}, {"switch_prob": -1}, {"mode": "elem"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Problem, match=f"The mixing's {next(iter(wrong))} is"):
        Mixing(**{"classes": 5, **wrong})


def test_what_does_not_fit_the_data_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    def batches(data: Dataset, size: int = 4, given: Mixing = OFFICIAL, **options: Any) -> Batches:
        return Batches(data, SMALL, size, 1, mixing=given, **options)

    for given, option in (
        (OFFICIAL, "mixup=0"),
        (SETTINGS["cutmix"], "cutmix=0"),
        (SETTINGS["minmax alone"], "minmax=null"),
    ):
        with pytest.raises(Problem, match=f"has 5 images.*even batch_size.*{option}"):
            batches(dataset, 5, given)
    assert len(batches(dataset, 5, SETTINGS["smoothing"]).batch(0)["targets"]) == 5
    with pytest.raises(Problem, match="has 3 images.*drop the last"):
        batches(dataset, 4, drop_last=False)
    with pytest.raises(Problem, match=r"has 3 classes, and the model 2; .*num_classes=3"):
        batches(dataset, given=replace(OFFICIAL, classes=2))
    with pytest.raises(Problem, match="A label is 7, and the model has 5 classes"):
        OFFICIAL.target(1, 7, 0.5)
    for rate in (1.0, -0.1):
        with pytest.raises(Problem, match="drop_path is"):
            batches(dataset, drop_path=(3, rate))
    write(tmp_path / "flat" / "a.png")
    with pytest.raises(Problem, match="has no labels"):
        batches(open_dataset(tmp_path / "flat"), 1)
    (tmp_path / "one.csv").write_text("flat/a.png,0\n")
    with pytest.raises(Problem, match="one class only"):
        batches(open_dataset(tmp_path / "one.csv"), 1)
