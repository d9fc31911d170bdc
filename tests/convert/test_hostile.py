"""Files made to do harm or simply strange: each is refused with its code by a reader under guard, and nothing else happens.

Under guard (guard.py): no code is run, nothing is imported, written or opened elsewhere; bounded time and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_seeds import CONFIG, state
from guard import refusal
from hostile_files import ALL_IN_ONE, FOLDERS, TABLES, indexed, oneflow_folder
from hostile_pickles import (
    ARRAYS,
    EVERYWHERE,
    PLACES,
    RECORDS,
    SOUND_RECORD,
    STRUCTURES,
    Hostile,
    dict_of,
    oneflow,
    pkl,
    pth,
    pth_legacy,
    pth_legacy_of_a_model,
)  # fmt: skip
from states import bits, read

from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.formats import FORMATS
from polymae.convert.formats.pickle_names import Names
from polymae.convert.formats.pickle_reader import read_pickle
from polymae.convert.provenance import Provenance


def read_all(path: Path) -> None:
    """All that a conversion reads, and the tensors that are of no model."""
    bits(read(path).tensors)
    checkpoint = open_checkpoint(path)
    checkpoint.weights(checkpoint.config or CONFIG)


def assert_refused(path: Path, code: str, named: tuple[str, ...] = ()) -> None:
    actual, message = refusal(path, read_all)
    assert actual == code, message
    for value in (str(path), *named):
        assert value in message
    assert len(message) < 2000
    assert not Path("canary").exists()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


CASES = {
    **{f"{put.__name__}, {name}": (put, case) for name, case in EVERYWHERE.items() for put in PLACES},
    **{f"record, {name}": (pth, Hostile(dict_of(case.content), *case[1:])) for name, case in RECORDS.items()},
    **{f"{put.__name__}, {name}": (put, case) for name, case in STRUCTURES.items() for put in (pkl, pth)},
    **{f"arrays, {name}": (pkl, case) for name, case in ARRAYS.items()},
    # There the next pickle follows, of which it takes the end for its own.
    "pth_legacy, no end": (pth_legacy, EVERYWHERE["no end"]._replace(code="damaged")),
}


@pytest.mark.parametrize("name", CASES)
def test_pickles(name: str, tmp_path: Path) -> None:
    put, (content, code, named) = CASES[name]
    beside = {"data/0": bytes(4)} if name.startswith("record") else {}
    assert_refused(put(tmp_path, content, **beside), code, named)


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, (table, _) in TABLES.items() for name in table])
def test_files(file: str, name: str, tmp_path: Path) -> None:
    content, code, named = TABLES[file][0][name]
    (tmp_path / file).write_bytes(content)
    assert_refused(tmp_path / file, code, named)


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name: str, tmp_path: Path) -> None:
    make, code, named = FOLDERS[name]
    assert_refused(make(tmp_path), code, named)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"depth": 10**9}, "bad-note"), ({"decoder_depth": 2**63}, "bad-note"), ({"embed_dim": 2**63}, "bad-note"),
        ({"img_size": [10**9, 10**9]}, "bad-note"), ({"depth": -1}, "bad-note"), ({"depth": "1"}, "bad-note"),
        ({"mlp_ratio": 1e308}, "bad-note"), ({"mlp_ratio": float("nan")}, "bad-note"), ({"in_chans": True}, "bad-note"),
        ({"kind": "os.system"}, "bad-note"),
    ],
    ids=str,
)  # fmt: skip
def test_provenance_that_lies(config: dict[str, Any], code: str, tmp_path: Path) -> None:
    """What a file says of its model costs nothing before it is checked against the tensors."""
    note = json.loads(Provenance("0" * 64, "polymae", CONFIG).text())
    note["config"].update(config)
    path = tmp_path / "w.safetensors"
    FORMATS["safetensors"].write(path, replace(state(), metadata={"polymae": json.dumps(note)}), lambda done: None)
    assert_refused(path, code)


def test_sound_files_of_the_same_makers_are_read(tmp_path: Path) -> None:
    """So that each of the others is refused for what is wrong with it."""
    assert read(pth(tmp_path, dict_of(SOUND_RECORD), **{"data/0": bytes(4)})).tensors["cls_token"].shape == (1,)
    for file, (_, sound) in TABLES.items():
        for content in sound:
            (tmp_path / file).write_bytes(content)
            assert bits(read(tmp_path / file).tensors)
    assert bits(read(oneflow_folder(tmp_path / "sound")).tensors)["cls_token"][1] == (2,)
    assert bits(read(indexed(ALL_IN_ONE)(tmp_path)).tensors) == bits(state().tensors)
    shared = np.ones(100_000, np.float32)
    assert len(bits(read(pkl(tmp_path, pickle.dumps({"a": shared, "b": shared}, 4))).tensors)) == 2  # tied weights


class Evil:
    def __init__(self, function: Callable[..., object], argument: str):
        self.function, self.argument = function, argument

    def __reduce__(self) -> tuple[object, ...]:
        return self.function, (self.argument,)


@pytest.mark.parametrize(("function", "name"), [(os.system, "os.system"), (eval, "builtins.eval")])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_code_in_a_pickle_is_not_run(function: Callable[..., object], name: str, protocol: int, tmp_path: Path) -> None:
    argument = "touch canary" if function is os.system else "open('canary', 'w')"
    pickled = pickle.dumps({"model": OrderedDict(cls_token=Evil(function, argument))}, protocol)
    for put in (oneflow, pkl, pth, pth_legacy_of_a_model):
        assert_refused(put(tmp_path, pickled), "runs-code", (name,))
    pickle.loads(pickled)
    assert Path("canary").exists()  # Python's own reader does run it: the test would see it


def test_inert_records_of_training_arguments() -> None:
    value = argparse.Namespace(lr=0.1, out=pathlib.PosixPath("/a"), names={"x"}, big=2**70, none=None, raw=b"ab")
    for protocol in (2, 3, 4, 5):
        names = Names(())
        record = read_pickle(memoryview(pickle.dumps(value, protocol)), names, "here")
        assert not names.unknown
        assert str(record.of).endswith("Namespace") or protocol == 2
        inside = record.state
        assert (inside["lr"], inside["big"], inside["none"]) == (0.1, 2**70, None)
        assert inside["out"].args in {("/", "a"), ("/a",)}  # the second since Python 3.13
