"""Files made to do harm or simply strange: nothing is run, nothing is read outside, and the Problem says why."""

import argparse
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from frameworks import frameworks_under_test
from polymae.backends.errors import Problem
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.formats import FORMATS
from polymae.convert.writing import write_checkpoint

CONFIG = model_config("mae_vit_test_patch8")
WEIGHTS = initial_weights(CONFIG, seed=1)


def zip_with(path, pickled, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return path


class Evil:
    def __init__(self, function, argument):
        self.function, self.argument = function, argument

    def __reduce__(self):
        return self.function, (self.argument,)


@pytest.mark.parametrize(("function", "named"), [(os.system, "os.system"), (eval, "builtins.eval")])
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_pickle_is_refused_by_name_and_not_run(function, named, protocol, tmp_path):
    ran = tmp_path / "ran"
    argument = f"touch {ran}" if function is os.system else f"open({str(ran)!r}, 'w')"
    pickled = pickle.dumps({"model": OrderedDict(cls_token=Evil(function, argument))}, protocol)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "pickled_data").write_bytes(pickled)
    (tmp_path / "w.pkl").write_bytes(pickled)
    zip_with(tmp_path / "w.pth", pickled)
    for name in ("folder", "w.pkl", "w.pth"):
        with pytest.raises(Problem, match=f"refused to load .*{named}"):
            open_checkpoint(tmp_path / name)
    assert not ran.exists()
    pickle.loads(pickled)
    assert ran.exists()  # Python's own reader does run it: the test would see it


def test_strides_offsets_shared_storage_and_parameters(tmp_path):
    if "torch" not in frameworks_under_test():
        pytest.skip("POLYMAE_FRAMEWORKS does not list torch")
    script = f"""
import torch
base = torch.arange(60, dtype=torch.float32).reshape(6, 10)
state = {{"blocks.0.norm1.weight": base[2], "a": base.t(), "b": base[1:4, 2:9:3], "c": torch.nn.Parameter(base[:2]),
         "d": torch.tensor(2.0), "e": base[:0], "f": base.to(torch.bfloat16), "g": base.double(), "h": base.half(),
         "i": torch.ones(1, 3).expand(4, 3), "j": torch.tensor(7)}}
torch.save(state, {str(tmp_path / "s.pth")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    tensors = FORMATS["pth"].read(tmp_path / "s.pth").tensors
    base = np.arange(60, dtype=np.float32).reshape(6, 10)
    bits = (base.view(np.uint32) >> 16).astype(np.uint16)  # small whole numbers are exact in bfloat16
    expected = {"a": base.T, "b": base[1:4, 2:9:3], "c": base[:2], "d": np.float32(2), "e": base[:0], "f": bits}
    expected |= {"g": base.astype("f8"), "h": base.astype("f2"), "i": np.ones((4, 3), "f4"), "j": np.int64(7)}
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name].load(), array)
        assert tensors[name].shape == array.shape
    assert [tensors[n].dtype for n in "fghj"] == ["bfloat16", "float64", "float16", "int64"]
    assert not tensors["a"].load().flags.owndata  # in place, not copied


def test_a_tensor_outside_its_storage_is_refused(tmp_path):
    path = torch_file(tmp_path)
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("archive/data.pkl")
    shape = b"".join(b"J" + struct.pack("<i", size) for size in (1, 1, 48))
    for larger, message in ((49, "does not fit in its storage"), (-1, "makes no sense"), (2**31 - 1, "does not fit")):
        changed = pickled.replace(shape, shape[:-4] + struct.pack("<i", larger), 1)
        assert changed != pickled
        with pytest.raises(Problem, match=message):
            open_checkpoint(zip_with(tmp_path / "long.pth", changed, **storages(path)))
    with pytest.raises(Problem, match=r"data/0 is not there"):
        open_checkpoint(zip_with(tmp_path / "long.pth", pickled))


def test_a_flipped_bit_in_a_storage_is_found(tmp_path):
    path = torch_file(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(Problem, match="checksum of its entry data/"):
        open_checkpoint(path).weights(CONFIG)


def storages(path):
    with zipfile.ZipFile(path) as archive:
        return {name.removeprefix("archive/"): archive.read(name) for name in archive.namelist() if "/data/" in name}


def test_a_compressed_entry_and_a_foreign_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(Problem, match="compressed"):
        open_checkpoint(tmp_path / "c.pth")
    with zipfile.ZipFile(tmp_path / "z.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(Problem, match=r"not one that torch\.save writes"):
        open_checkpoint(tmp_path / "z.pth")


def test_oneflow_tensors_stay_inside_their_folder(tmp_path):
    path = tmp_path / "w"
    write_checkpoint("oneflow", path, CONFIG, WEIGHTS)
    (tmp_path / "secret").mkdir()
    pickled = (path / "pickled_data").read_bytes()
    crafted = pickled.replace(b"X\x08\x00\x00\x00tensor_0", b"X\x09\x00\x00\x00../secret", 1)
    assert crafted != pickled
    (path / "pickled_data").write_bytes(crafted)
    with pytest.raises(Problem, match="no folder of its own"):
        open_checkpoint(path)


def test_deep_and_endless_structures_are_a_problem(tmp_path):
    deep = b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b"."
    (tmp_path / "deep.pkl").write_bytes(deep)
    with pytest.raises(Problem, match="no dict of tensors"):
        open_checkpoint(tmp_path / "deep.pkl")
    header = b"[" * 200_000
    (tmp_path / "deep.safetensors").write_bytes(struct.pack("<Q", len(header) + 1) + b"{" + header)
    with pytest.raises(Problem, match="header is not JSON"):
        open_checkpoint(tmp_path / "deep.safetensors")
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "big.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(Problem, match="needs"):
        open_checkpoint(tmp_path / "big.safetensors")


def test_inert_records_of_training_arguments():
    from polymae.convert.formats.pickle_reader import read_pickle

    value = argparse.Namespace(lr=0.1, out=pathlib.PosixPath("/a"), names={"x"}, big=2**70, none=None, raw=b"ab")
    for protocol in (2, 3, 4):
        allowed = {"argparse.Namespace", "pathlib.PosixPath", "_codecs.encode", "builtins.set", "__builtin__.set"}
        pickled = pickle.dumps(value, protocol)
        found = read_pickle(memoryview(pickled), allowed, "here")
        assert str(found.of).endswith("Namespace") or protocol == 2
        state = found.state
        assert (state["lr"], state["big"], state["none"]) == (0.1, 2**70, None)
        assert state["out"].args == ("/", "a")


def torch_file(folder):
    write_checkpoint("torch", folder / "w.pth", CONFIG, WEIGHTS)
    return folder / "w.pth"
