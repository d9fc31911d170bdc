"""Broken traces: exit status 2 or 3 and a sentence that says what to do, never a traceback, never parity."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken import TINY, members, npy, rewritten, small_inputs
from numpy.typing import NDArray
from runs import Edited, oracle, plain, recorded, refused, report, twins

from polymae.cli import main
from polymae.compare.options import Run
from polymae.compare.record.record import record
from polymae.compare.trace import FORMAT, Trace

WORDS = ("record it again", "record both", "record in", "ask its owner")  # one of which says what to do


def said_of(*paths: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Judge traces beside the oracle and its twins. Returns the exit status, and all that was said."""
    capsys.readouterr()
    status = main(["compare", "--traces", *map(str, [oracle(), *twins(), *paths]), "--reference", "none"])
    said = capsys.readouterr()
    text = said.out + said.err
    assert "Traceback" not in text
    assert "should not happen" not in text
    return status, " ".join(text.split())


def with_tensor(name: str, change: Callable[[NDArray[Any]], Any]) -> Callable[[Path], Path]:
    """A trace with one tensor changed."""

    def make(out: Path) -> Path:
        return rewritten(plain(), out, **{name.replace(".", "__"): npy(np.asarray(change(Trace(plain())[name])))})

    return make


def with_manifest(**changes: Any) -> Callable[[Path], Path]:
    """A trace with other fields of its manifest."""

    def make(out: Path) -> Path:
        manifest = Trace(plain()).manifest | changes
        return rewritten(plain(), out, manifest=npy(np.array(json.dumps(manifest))))

    return make


def with_nan(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flat[3] = np.nan
    return array


def cut(out: Path) -> Path:
    out.write_bytes(plain().read_bytes()[:-5000])
    return out


def cut_member(out: Path) -> Path:
    return rewritten(plain(), out, pred=members(plain())["pred.npy"][:-100])


def other_header(out: Path) -> Path:
    return rewritten(plain(), out, pred=members(plain())["pred.npy"].replace(b"'shape': (2,", b"'shape': (9,"))


def twice(out: Path) -> Path:
    rewritten(plain(), out)
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("pred.npy", members(plain())["pred.npy"])
    return out


def empty(out: Path) -> Path:
    out.touch()
    return out


def folder(out: Path) -> Path:
    out.mkdir()
    return out


def of_another_model(out: Path) -> Path:
    record(Run("numpy", out, small_inputs(out.parent), model=TINY))
    return out


BROKEN: dict[str, tuple[Callable[[Path], Path], int, str]] = {
    "truncated": (cut, 2, "is not a whole trace"),
    "a member truncated": (cut_member, 2, "pred in"),
    "a member's header wrong": (other_header, 2, "pred in"),
    "empty": (empty, 2, "is not a whole trace"),
    "a folder": (folder, 2, "is not a whole trace"),
    "NaN": (with_tensor("pred", with_nan), 2, "pred: 1 of 6144 elements are NaN or infinite"),
    "NaN in what must be equal": (with_tensor("mask", with_nan), 2, "mask: 1 of 32 elements are NaN"),
    "an extra tap": (lambda out: rewritten(plain(), out, extra=npy(np.ones(3))), 3, "extra is unknown"),
    "no tap": (lambda out: rewritten(plain(), out, pred=None), 3, "pred is missing"),
    "a tap twice": (twice, 2, "holds pred twice"),
    "float16": (with_tensor("pred", lambda a: a.astype("f2")), 2, "of type float16"),
    "whole numbers": (with_tensor("pred", lambda a: a.astype("i8")), 2, "type int64, the oracle's is float64"),
    "real numbers": (with_tensor("ids_restore", lambda a: a.astype("f4")), 2, "type float32, the oracle's is int64"),
    "complex": (with_tensor("pred", lambda a: a.astype("c8")), 2, "of type complex64"),
    "text": (with_tensor("pred", lambda a: a.astype(str)), 2, "of type <U"),
    "objects": (with_tensor("pred", lambda a: a.astype(object)), 2, "pred in"),
    "dates": (with_tensor("pred", lambda a: a.astype("i8").view("M8[s]")), 2, "of type datetime64"),
    "another shape": (with_tensor("pred", lambda a: a[:1]), 2, "shape (1, 16, 192), the oracle's is (2, 16, 192)"),
    "a scalar": (with_tensor("pred", lambda a: a.mean()), 2, "shape (), the oracle's is"),
    "another model": (of_another_model, 2, "config differs"),
    "other weights": (lambda out: recorded("seed 1", seed=1), 2, "source differs"),
    "another mask ratio": (lambda out: recorded("ratio", mask_ratio=0.5), 2, "mask_ratio differs"),
    "other inputs": (with_manifest(inputs={"imgs": "0", "noise": "0"}), 2, "inputs differs"),
    "a later format": (with_manifest(format=FORMAT + 1), 2, f"trace format {FORMAT + 1}"),
    "an older format": (with_manifest(format=1), 2, "trace format 1"),
    "bfloat16": (with_manifest(dtype="bfloat16"), 2, "u from the oracle"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_trace_is_told(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, status, words = BROKEN[kind]
    path = make(tmp_path / "broken.npz")
    found, said = said_of(path, capsys=capsys)
    assert found == status, said
    judged = report(path, reference=None)
    (reason,) = map(judged.reason, judged.judgements)
    assert words in reason
    assert any(word in reason for word in WORDS), reason
    assert " ".join(reason.split()) in said


def test_a_big_endian_trace_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = with_tensor("pred", lambda array: array.astype(">f4"))(tmp_path / "t.npz")
    assert said_of(path, capsys=capsys)[0] == 0


def test_a_trace_that_may_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Edited(plain()).save(tmp_path / "t.npz")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything but this
        path.unlink()
        path.symlink_to("/proc/self/mem")
    status, said = said_of(path, capsys=capsys)
    assert status == 2
    assert "t.npz" in said
    assert "may not be read; ask its owner" in said or "is not a whole trace" in said
    assert "t.npz" in refused(capsys, "compare", "--traces", path, path)
