"""From the JPEG to the model's input: torchvision's bits, and files that are not what a photograph should be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from untested import require

from polymae.backends.presets import model_config
from polymae.backends.spec import Tap
from polymae.compare.levels.inputs import image_digests, preprocessed, preprocessing_taps
from polymae.compare.limits.metrics import error
from polymae.compare.limits.tensors import judge_tensor
from polymae.compare.limits.tolerance import APriori
from polymae.compare.record.inputs import photographs
from polymae.data import images as preprocessing
from polymae.data.images import centre_crop, demo_photographs, evaluation_pixels, normalise, resize, resized_sides
from polymae.files.errors import Problem

CONFIG = model_config("mae_vit_test_patch8")
RNG = np.random.default_rng(0)


def official(image: Image.Image, size: int) -> tuple[Any, Any]:
    """Pixels and imgs by torchvision, with the official evaluation's settings."""
    require("torch")
    from torchvision import transforms

    shorter = int(size / (224 / 256 if size <= 224 else 1.0))
    bicubic = transforms.InterpolationMode.BICUBIC
    steps = [transforms.Resize(shorter, interpolation=bicubic), transforms.CenterCrop(size)]
    cropped = transforms.Compose(steps)(image)
    to_imgs = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )
    return np.array(cropped), to_imgs(cropped).numpy()


@pytest.mark.parametrize("size", [224, 32, 100, 384])
def test_photographs_have_torchvisions_bits(size: int) -> None:
    for path in demo_photographs():
        expected_pixels, expected_imgs = official(Image.open(path).convert("RGB"), size)
        pixels = evaluation_pixels(path, (size, size))
        assert np.array_equal(pixels, expected_pixels)
        assert np.array_equal(normalise(pixels), expected_imgs)
        config = model_config("mae_vit_test_patch8", img_size=(size, size), patch_size=4)
        assert np.array_equal(photographs([path], config)["imgs"][0], expected_imgs)


def test_every_shape_has_torchvisions_bits() -> None:
    for _ in range(150):
        height, width = (int(side) for side in RNG.integers(1, 90, 2))
        size = int(RNG.integers(8, 60))
        image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
        pixels = np.array(centre_crop(resize(image, resized_sides((height, width), (size, size))), (size, size)))
        assert np.array_equal(pixels, official(image, size)[0]), (height, width, size)


@pytest.mark.parametrize("size", [(32, 64), (224, 112), (448, 224), (8, 240)])
@pytest.mark.parametrize("image", [(50, 50), (300, 41), (41, 300), (53, 101)])
def test_a_model_that_is_not_square_is_covered(size: tuple[int, int], image: tuple[int, int]) -> None:
    sides = resized_sides(image, size)
    margin = 256 / 224 if max(size) <= 224 else 1
    assert any(side == int(wanted * margin) for side, wanted in zip(sides, size))
    assert all(side >= int(wanted * margin) for side, wanted in zip(sides, size))
    assert abs(sides[0] / sides[1] / (image[0] / image[1]) - 1) < 0.2  # rounded down


def test_what_is_recorded() -> None:
    assert list(preprocessing_taps(CONFIG)) == [
        Tap("preprocessed/pixels", "decode and resize", exact=True),
        Tap("preprocessed/imgs", "normalise"),
    ]
    found = dict(preprocessed([], CONFIG))
    assert list(found) == [tap.name for tap in preprocessing_taps(CONFIG)]
    pixels, imgs = found.values()
    assert (pixels.shape, pixels.dtype) == ((2, 32, 32, 3), np.uint8)
    assert (imgs.shape, imgs.dtype) == ((2, 3, 32, 32), np.float32)
    oracle = dict(preprocessed([], CONFIG, "float64"))
    assert np.array_equal(oracle["preprocessed/pixels"], pixels)
    assert oracle["preprocessed/imgs"].dtype == np.float64
    assert 0 < error(imgs, oracle["preprocessed/imgs"]) < 3
    photo = demo_photographs()[1]
    assert np.array_equal(dict(preprocessed([photo], CONFIG))["preprocessed/pixels"], pixels[1:])
    assert image_digests([photo], CONFIG) == [hashlib.sha256(photo.read_bytes()).hexdigest()]
    assert image_digests([], CONFIG) == [image_digests([path], CONFIG)[0] for path in demo_photographs()]  # type: ignore[index]
    grey = model_config("mae_vit_test_patch8", in_chans=1)
    assert (list(preprocessing_taps(grey)), dict(preprocessed([], grey)), image_digests([], grey)) == ([], {}, None)


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("MEAN", (0.5, 0.5, 0.5), "imgs"),
        ("MEAN", (0.406, 0.456, 0.485), "imgs"),
        ("STD", (0.229, 0.224, 0.2250005), "imgs"),
        ("resize", lambda image, sides: image.resize(sides[::-1], Image.Resampling.BILINEAR), "pixels"),
        ("resized_sides", lambda image, size: size, "pixels"),
        ("centre_crop", lambda image, size: image.crop((0, 0, *size[::-1])), "pixels"),
    ],
)
def test_a_fault_shows(name: str, value: Any, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    twin, oracle = dict(preprocessed([], CONFIG)), dict(preprocessed([], CONFIG, "float64"))
    monkeypatch.setattr(preprocessing, name, value)
    found = dict(preprocessed([], CONFIG))
    seen = {
        tap.name.removeprefix("preprocessed/"): judge_tensor(
            "inputs", tap, found[tap.name], oracle[tap.name], [twin[tap.name]], APriori(0)
        )
        for tap in preprocessing_taps(CONFIG)
    }
    assert seen[where].verdict == "fault"
    assert where == "pixels" or (seen["imgs"].ratio > 2 and seen["pixels"].verdict == "exact")


def picture(mode: str) -> Image.Image:
    image = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", ".jpg"), ("CMYK", ".jpg"), ("RGBA", ".png"), ("LA", ".png"), ("P", ".png"), ("1", ".png"), ("P", ".gif"),
     ("RGB", ".webp"), ("RGB", ".tiff"), ("RGB", ".bmp"), ("RGB", ".ppm")],
)  # fmt: skip
def test_other_kinds_of_images_are_read_as_rgb(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    picture(mode).save(path)
    with Image.open(path) as image:
        expected = official(image.convert("RGB"), 32)[0]
    assert np.array_equal(evaluation_pixels(path, (32, 32)), expected)


def test_an_exif_rotation_is_not_applied(tmp_path: Path) -> None:
    image, exif = picture("RGB"), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.save(tmp_path / "plain.jpg")
    turned, plain = (evaluation_pixels(tmp_path / f"{name}.jpg", (32, 32)) for name in ("turned", "plain"))
    assert np.array_equal(turned, plain)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_values_of_more_than_8_bits_are_refused(mode: str, tmp_path: Path) -> None:
    kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    Image.fromarray(RNG.integers(0, 60000, (40, 60)).astype(kinds[mode])).save(tmp_path / "deep.tiff")
    with pytest.raises(Problem, match="more than 8 bits"):
        evaluation_pixels(tmp_path / "deep.tiff", (32, 32))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 90), (90, 1)])
def test_small_images_are_enlarged(width: int, height: int, tmp_path: Path) -> None:
    Image.new("RGB", (width, height), (10, 200, 30)).save(tmp_path / "small.png")
    pixels = evaluation_pixels(tmp_path / "small.png", (32, 48))
    assert (pixels == (10, 200, 30)).all()
    assert pixels.shape == (32, 48, 3)


def test_a_thread_of_pixels_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (60000, 1)).save(tmp_path / "long.png")
    with pytest.raises(Problem, match="long.png is 60000 x 1 pixels.*crop it"):
        evaluation_pixels(tmp_path / "long.png", (224, 224))


def test_files_that_are_no_images_are_told(tmp_path: Path) -> None:
    good = demo_photographs()[0].read_bytes()
    contents = {"empty.jpg": b"", "text.jpg": b"hello", "cut.jpg": good[:9000], "head.ppm": b"P6 3\x87 2 255\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Problem, match=f"{name} is not an image"):
            evaluation_pixels(tmp_path / name, (32, 32))
    with pytest.raises(Problem, match="No image"):
        evaluation_pixels(tmp_path / "none.jpg", (32, 32))
    with pytest.raises(Problem, match="Cannot read .*none.jpg"):
        image_digests([tmp_path / "none.jpg"], CONFIG)
    with pytest.raises(Problem, match="is a folder"):
        evaluation_pixels(tmp_path, (32, 32))
    (tmp_path / "program.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(Problem, match="is not an image"):
        evaluation_pixels(tmp_path / "program.jpg", (32, 32))


def test_an_installation_without_photographs_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "__file__", str(tmp_path / "compare" / "recording" / "preprocessing.py"))
    with pytest.raises(Problem, match="--images"):
        dict(preprocessed([], CONFIG))
