"""Inputs that do not fit the model are told apart, and nothing is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import MODEL, inputs, refused

from polymae.cli import main
from polymae.compare.trace import Trace


def bad_inputs(folder: Path) -> dict[str, tuple[Any, str]]:
    """Inputs that do not fit, as arrays or as the bytes of a file, and what must be said of each."""
    with np.load(inputs()) as given:
        imgs, noise = given["imgs"], given["noise"]
    nan = imgs.copy()
    nan[0, 1, 2, 3:5] = np.nan
    np.save(folder / "array.npy", imgs)
    return {
        "size": ({"imgs": imgs[..., :24], "noise": noise}, "imgs in"),
        "channels": ({"imgs": imgs[:, :1], "noise": noise}, "[N, 3, 32, 32]"),
        "none": ({"imgs": imgs[:0], "noise": noise[:0]}, "(0, 3, 32, 32)"),
        "three": ({"imgs": imgs[0], "noise": noise}, "(3, 32, 32)"),
        "noise": ({"imgs": imgs, "noise": noise[:, :9]}, "it must be (2, 16)"),
        "fewer": ({"imgs": imgs, "noise": noise[:1]}, "it must be (2, 16)"),
        "nan": ({"imgs": nan, "noise": noise}, "imgs in"),
        "infinite": ({"imgs": imgs, "noise": noise / 0}, "noise in"),
        "large": ({"imgs": imgs * 1e60, "noise": noise}, "NaN or infinite"),
        "no noise": ({"imgs": imgs}, "needs imgs and noise"),
        "no imgs": ({"noise": noise}, "holds noise"),
        "nothing": ({}, "holds nothing"),
        "text": ({"imgs": imgs.astype(str), "noise": noise}, "imgs in"),
        "complex": ({"imgs": imgs, "noise": noise * 1j}, "complex64"),
        "objects": ({"imgs": imgs.astype(object), "noise": noise}, "not a readable .npz"),
        "empty": (b"", "not a readable .npz"),
        "page": (b"<!DOCTYPE html>", "not a readable .npz"),
        "cut": (inputs().read_bytes()[:3000], "not a readable .npz"),
        "array": ((folder / "array.npy").read_bytes(), "one array without a name"),
    }


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_inputs_that_do_not_fit_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (content, message) in bad_inputs(tmp_path).items():
        path = tmp_path / f"{name}.npz"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.savez(path, **content)
        before = sorted(tmp_path.rglob("*"))
        said = refused(
            capsys, "record", "--framework", "numpy", "-m", MODEL, "--inputs", path, "--out", tmp_path / "o" / "t.npz"
        )
        assert message in said, name
        assert str(path) in said, name
        assert len(said.splitlines()) == 1
        assert sorted(tmp_path.rglob("*")) == before
    none = refused(
        capsys, "record", "--framework", "numpy", "-m", MODEL, "--inputs", tmp_path / "x", "--out", tmp_path / "t.npz"
    )
    assert "No inputs file" in none


def test_classifiers_get_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(inputs()) as given:
        imgs = given["imgs"]
    path, out = tmp_path / "in.npz", tmp_path / "t.npz"
    words = ["record", "--framework", "numpy", "-m", "vit_test_patch8", "--inputs", path, "--out", out]
    for labels, message in (
        (np.array([0, 10]), "0 to 9 fit"),
        (np.array([-1, 1]), "0 to 9 fit"),
        (np.array([[1, 2]]), "must be (2,)"),
        (np.array([0.5, 1.0]), "whole numbers"),
    ):
        np.savez(path, imgs=imgs, labels=labels)
        assert message in refused(capsys, *words)
    np.savez(path, imgs=imgs * np.nan, labels=np.array([0, 9]))
    assert "imgs in" in refused(capsys, *words)
    assert not out.exists()
    np.savez(path, imgs=imgs, labels=np.array([0, 9]))
    assert main([str(word) for word in words]) == 0
    assert Trace(out)["logits"].shape == (2, 10)
