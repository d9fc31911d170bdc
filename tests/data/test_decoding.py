"""Images of a data set, decoded from their bytes: every kind that people have, and those that are damaged."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from made_images import encoded, picture
from PIL import Image, ImageOps

from polymae.data.images import BrokenImage, decode, decode_bytes


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("L", "PNG"),
     ("P", "PNG"), ("1", "PNG"), ("RGB", "WEBP"), ("RGB", "TIFF"), ("CMYK", "TIFF"), ("RGB", "BMP"), ("RGB", "PPM"),
     ("P", "GIF")],
)  # fmt: skip
def test_every_kind_becomes_rgb_or_grey(mode: str, kind: str, tmp_path: Path) -> None:
    data = encoded(picture(1, mode=mode), kind)
    (tmp_path / "x").write_bytes(data)
    with Image.open(tmp_path / "x") as opened:
        opened.load()
        for channels, wanted in ((3, "RGB"), (1, "L")):
            image = decode_bytes(data, "x", channels)
            assert image.mode == wanted
            assert np.array_equal(np.asarray(image), np.asarray(opened.convert(wanted)))
    assert np.array_equal(np.asarray(decode_bytes(data, "x")), np.asarray(decode(tmp_path / "x")))


def test_a_palette_with_transparency_loses_it() -> None:
    image = picture(1, mode="P")
    data = encoded(image, transparency=b"\0\x80" * 128)
    assert np.array_equal(np.asarray(decode_bytes(data, "x")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_its_higher_byte(kind: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    deep = Image.fromarray(values) if kind != "PPM" else Image.fromarray(values.astype(np.int32))
    image = decode_bytes(encoded(deep, kind), "x", 1)
    assert np.array_equal(np.asarray(image), values >> 8)
    assert np.array_equal(np.asarray(decode_bytes(encoded(deep, kind), "x"))[..., 1], values >> 8)


def test_16_bit_colour_keeps_its_higher_byte_too() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(np.asarray(decode_bytes(png, "x")), values >> 8)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_more_than_16_bits_are_refused(dtype: type) -> None:
    with pytest.raises(BrokenImage, match=r"^deep.tiff holds values of more than 16 bits"):
        decode_bytes(encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"), "deep.tiff")


@pytest.mark.parametrize("turn", range(1, 9))
def test_an_exif_rotation_is_applied_only_if_asked(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    image = picture(1)
    data = encoded(image, exif=exif)
    assert np.array_equal(np.asarray(decode_bytes(data, "x")), np.asarray(image))
    upright = decode_bytes(data, "x", upright=True)
    with Image.open(BytesIO(data)) as opened:
        assert np.array_equal(np.asarray(upright), np.asarray(ImageOps.exif_transpose(opened)))
    assert (turn == 1) == np.array_equal(np.asarray(upright), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_a_damaged_file_is_named_and_never_anything_else(kind: str) -> None:
    whole = encoded(picture(1, 60, 80), kind)
    rng = np.random.default_rng(0)
    refused = []
    for number in range(150):
        data = bytearray(whole[: int(rng.integers(len(whole)))] if number % 3 == 0 else whole)
        for place in rng.integers(0, len(data) or 1, int(rng.integers(0, 6))) if number % 3 else ():
            data[place] = rng.integers(256)
        try:
            decode_bytes(bytes(data), "in/image.x")
        except BrokenImage as problem:
            refused.append(str(problem))
    assert len(refused) > 20
    assert [said for said in refused if not said.startswith("in/image.x ") or "BytesIO" in said] == []


def test_what_is_no_image_is_told() -> None:
    with pytest.raises(BrokenImage, match=r"^a is empty"):
        decode_bytes(b"", "a")
    with pytest.raises(BrokenImage, match=r"^a is not a whole image \(its format is none of JPEG"):
        decode_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "a")
    with pytest.raises(BrokenImage, match=r"^a is not a whole image \(image file is truncated"):
        decode_bytes(encoded(picture(1, 200, 200), "JPEG")[:3000], "a")
