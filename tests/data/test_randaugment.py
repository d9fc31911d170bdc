"""RandAugment: timm's uint8 images from the same draws, for every operation, magnitude and direction; policies read strictly."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_images import picture
from PIL import Image
from untested import require

from polymae.data import randaugment
from polymae.data.augment import Augmentation
from polymae.data.draws import generator, standard_normal
from polymae.data.randaugment import OPS, Applied, Canvas, Policy, augmented, fill_colour, policy
from polymae.files.errors import Problem

OFFICIAL = "rand-m9-mstd0.5-inc1"
POLICIES = (OFFICIAL, "rand-m5-mstd3-n4-p0.9-inc1", "rand-n3-p1-inc1", "rand-m3-n1-inc1")
CANVAS = Canvas((124, 116, 104), Image.Resampling.BICUBIC)


class Numbers:
    """The standard library's random, and numpy.random.choice, as timm uses them, with a policy's numbers at a place."""

    def __init__(self, index: int, layers: int, always: bool):
        self.rows, self.always = generator(0, "augment", 2, index).random((layers, 4)).tolist(), always
        self.coins: Iterator[float] = iter(())
        self.share = 0.0

    def choice(self, ops: list[Any], count: int, **options: Any) -> list[Callable[[Any], Any]]:
        assert (options["replace"], len(ops), count) == (True, 15, len(self.rows))
        return [lambda image, row=row: self.applied(ops[int(row[0] * 15)], row, image) for row in self.rows]

    def applied(self, op: Any, row: list[float], image: Any) -> Any:
        _, happens, self.share, sign = row
        self.coins = iter([sign] if self.always else [happens, sign])
        return op(image)

    def random(self) -> float:
        return next(self.coins)

    def gauss(self, mean: float, deviation: float) -> float:
        return mean + deviation * standard_normal(self.share)


def timms(monkeypatch: pytest.MonkeyPatch, text: str, index: int, image: Any, canvas: Canvas) -> Any:
    """The image after timm's RandAugment."""
    require("torch")
    from timm.data import auto_augment

    transform = auto_augment.rand_augment_transform(text, {"img_mean": canvas.fill, "interpolation": canvas.resample})
    numbers = Numbers(index, policy(text).layers, policy(text).prob == 1)
    with monkeypatch.context() as patched:
        patched.setattr(auto_augment, "random", numbers)
        patched.setattr(auto_augment, "np", SimpleNamespace(random=numbers))
        return transform(image)


def different(monkeypatch: pytest.MonkeyPatch, text: str, count: int, mode: str = "RGB") -> tuple[int, Counter[str]]:
    """How many of so many images timm and we make differently, and how often each operation was applied."""
    canvas = CANVAS if mode == "RGB" else replace(CANVAS, fill=33)
    wrong, seen = 0, Counter[str]()
    for index in range(count):
        image = picture(index % 50, 12, 17, mode)
        operations = policy(text).drawn(generator(0, "augment", 2, index))
        seen.update(one.op for one in operations)
        expected = timms(monkeypatch, text, index, image, canvas)
        actual = augmented(image, operations, canvas)
        wrong += actual.mode != expected.mode or not np.array_equal(np.asarray(actual), np.asarray(expected))
    return wrong, seen


@pytest.mark.parametrize(
    ("text", "count", "mode"), [(OFFICIAL, 600, "RGB"), *((text, 200, "RGB") for text in POLICIES[1:]), (OFFICIAL, 200, "L")]
)  # fmt: skip
def test_images_are_timms_from_the_same_draws(
    text: str, count: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, seen = different(monkeypatch, text, count, mode)
    assert wrong == 0
    assert len(seen) == 15
    assert abs(seen.total() / (count * policy(text).layers) - policy(text).prob) < 0.1


@pytest.mark.parametrize("op", OPS)
def test_every_magnitude_and_direction_is_timms(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    from timm.data import auto_augment

    rest = [generator(0, "augment", 0, index).random() * 10 for index in range(20)]
    for number, magnitude in enumerate([*np.arange(0, 10.5, 0.5).tolist(), 9.999999, 7.4999999, *rest]):
        for negative in (False, True):
            coin = 0.75 if negative else 0.25
            monkeypatch.setattr(auto_augment, "random", SimpleNamespace(random=lambda coin=coin: coin))
            hparams = {"img_mean": CANVAS.fill, "interpolation": CANVAS.resample}
            image = picture(number, 13, 18)
            expected = auto_augment.AugmentOp(op, 1.0, magnitude, hparams)(image)
            actual = augmented(image, [Applied(op, magnitude, negative)], CANVAS)
            assert np.array_equal(np.asarray(actual), np.asarray(expected)), (magnitude, negative)


def _never_negative(self: Policy, drawn: np.random.Generator) -> list[Applied]:
    return [replace(one, negative=False) for one in DRAWN(self, drawn)]


def _fixed(self: Policy, drawn: np.random.Generator) -> list[Applied]:
    return DRAWN(replace(self, std=0), drawn)


def _reversed(self: Policy, drawn: np.random.Generator) -> list[Applied]:
    return DRAWN(self, drawn)[::-1]


DRAWN = Policy.drawn


@pytest.mark.parametrize("fault", [_never_negative, _fixed, _reversed])
def test_other_draws_would_be_seen(fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "drawn", fault)
    assert different(monkeypatch, OFFICIAL, 100)[0] > 10


@pytest.mark.parametrize(
    ("op", "fault"),
    [
        ("PosterizeIncreasing", lambda magnitude, sign: int(magnitude / 10 * 4)),  # of the older set
        ("SolarizeIncreasing", lambda magnitude, sign: int(magnitude / 10 * 256)),
        ("ColorIncreasing", lambda magnitude, sign: magnitude / 10 * 1.8 + 0.1),
        ("SharpnessIncreasing", lambda magnitude, sign: 1.0 + magnitude / 10 * 0.9),
        ("Rotate", lambda magnitude, sign: sign * magnitude / 10 * 0.3),  # radians
        ("TranslateXRel", lambda magnitude, sign: sign * magnitude / 10 * 0.5),
    ],
)
def test_another_range_of_an_operation_would_be_seen(
    op: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPS, op, (fault, OPS[op][1]))
    assert different(monkeypatch, OFFICIAL, 150)[0] > 0


def test_the_drawn_operations_are_what_they_were() -> None:
    whole = hashlib.sha256()
    for text in POLICIES:
        for index in range(200):
            for one in policy(text).drawn(generator(7, "augment", 3, index)):
                whole.update(f"{one.op} {one.magnitude!r} {one.negative} ".encode())
    assert whole.hexdigest() == "045e110529d333b4b2592021160fe7f07fa23b0af0c3e233628bb98a7c186615"


def test_magnitudes_are_normally_distributed() -> None:
    shares = [generator(0, "augment", 0, index).random() for index in range(500)]
    normal = statistics.NormalDist()
    assert max(abs(standard_normal(share) - normal.inv_cdf(share)) for share in shares) < 1e-9
    assert np.isfinite(standard_normal(0.0))
    drawn = [one for index in range(4000) for one in policy(OFFICIAL).drawn(generator(0, "augment", 0, index))]
    magnitudes = np.array([one.magnitude for one in drawn])
    assert abs(np.median(magnitudes) - 9) < 0.05
    assert magnitudes.max() == 10
    assert abs(np.mean(magnitudes == 10) - normal.cdf(-2)) < 0.01
    assert abs(np.mean([one.negative for one in drawn]) - 0.5) < 0.05


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_cropped_flipped_and_then_varied(channels: int) -> None:
    mean = (0.485, 0.456, 0.406)[:channels]
    plain = Augmentation(input_size=16, channels=channels, mean=mean, std=mean)
    varied = replace(plain, auto_augment=OFFICIAL)
    changed = 0
    for index in range(20):
        image = picture(index, mode="RGB" if channels == 3 else "L")
        before = plain.pixels(image, 0, 1, index)
        operations = policy(OFFICIAL).drawn(generator(0, "augment", 1, index))
        canvas = Canvas(fill_colour(mean), Image.Resampling.BICUBIC)
        given = Image.fromarray(np.ascontiguousarray(before if channels == 3 else before[..., 0]))
        expected = np.asarray(augmented(given, operations, canvas)).reshape(16, 16, channels)
        assert np.array_equal(varied.pixels(image, 0, 1, index), expected)
        changed += not np.array_equal(before, expected)
    assert changed > 8
    assert varied.plain.auto_augment is None
    assert fill_colour((0.485, 0.456, 0.406)) == (124, 116, 104)


def test_a_policy_is_read() -> None:
    assert policy(OFFICIAL) == Policy(9, 0.5, 2, 0.5)
    assert policy("rand-inc1-p0.25-n3-m4") == Policy(4, 0, 3, 0.25)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begins with ''"), ("augmix-m3-inc1", "begins with 'augmix'"), ("rand-m9-mstd0.5", "lacks inc1"),
        ("rand-m9-inc0", "lacks inc1"), ("rand-m9-mmax20-inc1", "'mmax20' is no part"), ("rand-m-inc1", "'m' is no part"),
        ("rand-m9-m8-inc1", "m is given twice"), ("rand-m11-inc1", "m is 11"), ("rand-n0-inc1", "n is 0"),
        ("rand-n1.5-inc1", "n is 1.5"), ("rand-p2-inc1", "p is 2"), ("rand-mstd101-inc1", "mstd is 101"),
        ("rand--inc1", "'' is no part"), ("rand-m9 -inc1", "'m9 ' is no part"), ("RAND-m9-inc1", "begins with 'RAND'"),
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str, said: str) -> None:
    with pytest.raises(Problem, match=f"auto_augment is .*{said}.*{OFFICIAL}") as caught:
        Augmentation(auto_augment=text)
    assert caught.value.code == "bad-argument"
    with pytest.raises(Problem, match="lanczos"):
        Augmentation(auto_augment=OFFICIAL, interpolation="lanczos")
    assert randaugment.policy(OFFICIAL) is policy(OFFICIAL)
