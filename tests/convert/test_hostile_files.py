"""Files made to do harm or simply strange: nothing is run, nothing is read outside, and the Problem says why."""

import argparse
import json
import os
import pathlib
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from states import bits, read, state_of, write, write_legacy

from polymae.convert.formats import pickle_reader
from polymae.convert.formats import pickle_writer as raw
from polymae.convert.formats.pickle_names import Names
from polymae.convert.formats.pickle_reader import read_pickle
from polymae.files.errors import Problem

ARRAYS = {"cls_token": np.ones((1, 1, 48), np.float32), "norm.bias": np.zeros(48, np.float32)}
STATE = state_of(ARRAYS)


def zip_with(path, pickled, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return path


def refused(path, match):
    with pytest.raises(Problem, match=match):
        bits(read(path).tensors)


class Evil:
    def __init__(self, function, argument):
        self.function, self.argument = function, argument

    def __reduce__(self):
        return self.function, (self.argument,)


@pytest.mark.parametrize(("function", "named"), [(os.system, "os.system"), (eval, "builtins.eval")])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_code_in_a_pickle_is_refused_by_name_and_not_run(function, named, protocol, tmp_path):
    ran = tmp_path / "ran"
    argument = f"touch {ran}" if function is os.system else f"open({str(ran)!r}, 'w')"
    pickled = pickle.dumps({"model": OrderedDict(cls_token=Evil(function, argument))}, protocol)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "pickled_data").write_bytes(pickled)
    (tmp_path / "w.pkl").write_bytes(pickled)
    zip_with(tmp_path / "w.pth", pickled)
    legacy = write_legacy(tmp_path / "l.pth", STATE).read_bytes()
    start = legacy.index(b"model") - 8
    (tmp_path / "l.pth").write_bytes(legacy[:start] + pickled)
    for name in ("folder", "w.pkl", "w.pth", "l.pth"):
        refused(tmp_path / name, f"refused to load .*{named}")
    assert not ran.exists()
    pickle.loads(pickled)
    assert ran.exists()  # Python's own reader does run it: the test would see it


def test_a_tensor_outside_its_storage_is_refused(tmp_path):
    path = write("pth", tmp_path / "w.pth", STATE)
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("archive/data.pkl")
        entries = {name.removeprefix("archive/"): archive.read(name) for name in archive.namelist() if "/data/" in name}
    shape = b"".join(b"J" + struct.pack("<i", size) for size in (1, 1, 48))
    for larger, message in ((49, "does not fit in its storage"), (-1, "makes no sense"), (2**31 - 1, "does not fit")):
        changed = pickled.replace(shape, shape[:-4] + struct.pack("<i", larger), 1)
        assert changed != pickled
        refused(zip_with(tmp_path / "long.pth", changed, **entries), message)
    refused(zip_with(tmp_path / "long.pth", pickled), r"data/0 is not there")


@pytest.mark.parametrize("form", ["pth", "npz"])
def test_a_flipped_bit_in_an_entry_is_found(form, tmp_path):
    path = write(form, tmp_path / "w", state_of({"a": np.ones((400, 10), np.float32)}))
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    refused(path, "checksum of its entry")


def test_compressed_and_foreign_zips(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    refused(tmp_path / "c.pth", "compressed")
    with zipfile.ZipFile(tmp_path / "z.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "z.pth", r"not one that torch\.save writes")


def test_a_zip_that_claims_to_unpack_to_more_than_the_memory(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(200_000_000, np.int8))
    assert (tmp_path / "bomb.npz").stat().st_size < 300_000
    refused(tmp_path / "bomb.npz", r"no honest checkpoint: its [\d,]+ bytes claim to unpack to 200,000,")
    np.savez_compressed(tmp_path / "lie.npz", a=np.zeros(1_000, np.int8))
    whole = (tmp_path / "lie.npz").read_bytes()
    size = struct.pack("<I", 1_128)
    assert size in whole
    (tmp_path / "lie.npz").write_bytes(whole.replace(size, struct.pack("<I", 10_000_000)))
    refused(tmp_path / "lie.npz", "not there with all its values")
    # The same bytes as two entries, by a second line in the directory.
    path = write("npz", tmp_path / "twice.npz", state_of({"a": np.ones(1000, np.float32)}))
    whole = path.read_bytes()
    directory = whole.index(b"PK\x01\x02")
    end = whole.index(b"PK\x05\x06")
    line = whole[directory:end]
    ending = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 2, 2, 2 * len(line), directory, 0)
    path.write_bytes(whole[:directory] + line + line.replace(b"a.npy", b"b.npy") + ending)
    refused(path, "claim more bytes than it has")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "whole Python objects"),
        ("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "dtype c8"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "no plain array of numbers"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (9**9**9,), }", "no plain array of numbers"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "no plain array of numbers"),
        ("(" * 5000, "no plain array of numbers"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 4000000000), }", "not there with all"),
        ("{'descr': '<f4', 'shape': (1,), }", "makes no sense"),
    ],
)
def test_headers_of_arrays(header, message, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"\0" * 4)
    refused(tmp_path / "w.npz", message)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([(0, 4), (4, 8)], None),
        ([(4, 8), (0, 4)], None),
        ([(0, 4), (0, 4)], "begins at byte 0, not where the tensor before it ends"),
        ([(0, 4), (2, 6)], "begins at byte 2"),
        ([(0, 4), (5, 9)], "begins at byte 5"),
        ([(0, 4), (8, 12)], "begins at byte 8"),
        ([(0, 8), (8, 8)], "needs 4 bytes"),
        ([(-4, 0), (0, 4)], "begins at byte -4"),
    ],
)
def test_safetensors_that_overlap_or_leave_holes(places, message, tmp_path):
    header = {f"t{i}": {"dtype": "F32", "shape": [1], "data_offsets": place} for i, place in enumerate(places)}
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    if message:
        refused(path, message)
    else:
        assert len(read(path).tensors) == 2
        path.write_bytes(path.read_bytes() + b"\0")
        refused(path, "end at byte 8 of 9")


def test_deep_endless_and_colliding_structures_are_a_problem(tmp_path, monkeypatch):
    deep = b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b"."
    (tmp_path / "deep.pkl").write_bytes(deep)
    refused(tmp_path / "deep.pkl", "no dict of tensors")
    monkeypatch.setattr(pickle_reader, "MAX_OPCODES", 1000)
    refused(tmp_path / "deep.pkl", "more than 1,000 steps")
    colliding = b"\x80\x04}(" + raw.integer(2**61 - 1) + b"Nu."
    (tmp_path / "keys.pkl").write_bytes(colliding)
    refused(tmp_path / "keys.pkl", "a key in it is a int")
    header = b"[" * 200_000
    (tmp_path / "deep.safetensors").write_bytes(struct.pack("<Q", len(header) + 1) + b"{" + header)
    refused(tmp_path / "deep.safetensors", "header is not JSON")
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "big.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(tmp_path / "big.safetensors", "needs")
    length = b"\xff" * 9 + b"\x01"
    (tmp_path / "w.ckpt").write_bytes(b"\x0a" + length + b"\x0a\x01a")
    refused(tmp_path / "w.ckpt", "ends too early")
    (tmp_path / "m.ckpt").write_bytes(b"\x0a\x03\x0a\x01a" * 110_000)
    refused(tmp_path / "m.ckpt", "more than 200,000 fields")


def test_more_tensors_than_any_model_has(tmp_path):
    header = {f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)}
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    refused(tmp_path / "w.safetensors", "lists 20,001 tensors")


def test_a_small_file_cannot_become_a_large_model(tmp_path):
    shared = np.ones(100_000, np.float32)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({f"t{i}": shared for i in range(40)}, 4))
    refused(tmp_path / "w.pkl", "share their bytes so that 40")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": shared, "b": shared}, 4))
    assert len(bits(read(tmp_path / "w.pkl").tensors)) == 2  # tied weights


@pytest.mark.parametrize("name", ["\x1b[2J", "a" * 1000, "\ud800", ""])
def test_names_that_would_upset_a_terminal(name, tmp_path):
    text = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    refused(tmp_path / "w.safetensors", "which is no name")
    if name != "\ud800":
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({name: np.ones(3, np.float32)}, 4))
        refused(tmp_path / "w.pkl", "which is no name")


def test_arrays_of_objects_and_strings_in_a_pickle(tmp_path):
    for value, message in ((np.array([{}]), "whole Python objects"), (np.array(["a"]), "dtype U1")):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": np.ones(3, np.float32), "b": value}, 4))
        refused(tmp_path / "w.pkl", f"array b holds {message}")


def test_inert_records_of_training_arguments():
    value = argparse.Namespace(lr=0.1, out=pathlib.PosixPath("/a"), names={"x"}, big=2**70, none=None, raw=b"ab")
    for protocol in (2, 3, 4, 5):
        names = Names(())
        pickled = pickle.dumps(value, protocol)
        found = read_pickle(memoryview(pickled), names, "here")
        assert not names.unknown
        assert str(found.of).endswith("Namespace") or protocol == 2
        state = found.state
        assert (state["lr"], state["big"], state["none"]) == (0.1, 2**70, None)
        assert state["out"].args == ("/", "a")
