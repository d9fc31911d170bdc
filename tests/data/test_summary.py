"""What `polymae data show` says of a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_images import folder_of_classes, picture, write

from polymae.cli import data, main
from polymae.data.augment import CROPS
from polymae.data.datasets import FORMATS, open_dataset
from polymae.data.summary import broken_images, summary


def test_numbers_are_of_the_whole_set(tmp_path: Path) -> None:
    folder_of_classes(tmp_path, 50)
    write(tmp_path / "cat" / "wide.png", 1, height=20, width=90)
    found = summary(open_dataset(tmp_path))
    assert (found["format"], found["images"], found["classes"]) == ("folder", 151, {"cat": 51, "dog": 50, "eel": 50})
    assert found["bytes"] == sum(path.stat().st_size for path in tmp_path.rglob("*.png"))
    assert found["sample"] == 64
    before = found["digest"]
    for path in tmp_path.rglob("0.png"):
        path.write_bytes(picture(99).tobytes())
        picture(99).save(path)
    assert summary(open_dataset(tmp_path))["digest"] != before


def test_broken_images_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of_classes(tmp_path, 100)
    broken = {"cat/7.png": b"", "eel/99.png": b"GIF89a"}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    seen: list[int] = []
    assert list(broken_images(open_dataset(tmp_path), 3, seen.append)) == list(broken)
    assert seen == [256, 300]
    assert main(["data", "show", str(tmp_path), "--check", "--json"]) == 1
    assert list(json.loads(capsys.readouterr().out)["broken"]) == list(broken)
    assert main(["data", "show", str(tmp_path), "--check"]) == 1
    assert "2 of 300 images are broken" in capsys.readouterr().out
    assert main(["data", "show", str(tmp_path / "dog"), "--check"]) == 0
    assert "none: without labels" in capsys.readouterr().out


def test_the_command_offers_the_formats_that_there_are() -> None:
    assert data.FORMATS == FORMATS
    assert CROPS == ("random_resized", "first_box", "centre", "shift", "none")
