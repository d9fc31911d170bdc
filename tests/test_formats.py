"""Every file format: what we write loads in the framework itself, what it writes loads here, damage is a clear Problem."""

import argparse
import contextlib
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
from hypothesis import given, settings
from hypothesis import strategies as st
from polymae.backends.errors import Problem
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import installed
from polymae.backends.spelling import to_native
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.formats import FORMATS, mindspore
from polymae.convert.writing import write_checkpoint

CONFIG = model_config("mae_vit_test_patch8")
WEIGHTS = initial_weights(CONFIG, seed=1)
FILES = {"torch": "w.pth", "safetensors": "w.safetensors", "megengine": "w.pkl", "mindspore": "w.ckpt", "oneflow": "w"}
TARGETS = {name: "torch" if name == "safetensors" else name for name in FILES}

# Load our file with the framework's own loader, show the arrays, and save them again with its own writer.
NATIVE = {
    "torch": """
import argparse, collections, pathlib, torch
state = torch.load(ours, weights_only=True)["model"]
arrays = {n: t.numpy() for n, t in state.items()}
p = torch.nn.Parameter(torch.ones(2, 3)); o = torch.optim.AdamW([p]); p.sum().backward(); o.step()
args = argparse.Namespace(lr=1e-3, output_dir=pathlib.Path("/tmp/out"), betas=(0.9, 0.95), resume="")
torch.save({"model": state, "optimizer": o.state_dict(), "epoch": 3, "scaler": {"scale": 65536.0}, "args": args}, theirs)
""",
    "safetensors": """
import safetensors.numpy
arrays = safetensors.numpy.load_file(ours)
safetensors.numpy.save_file(arrays, theirs)
""",
    "megengine": """
import megengine
arrays = megengine.load(ours)
megengine.save({"state_dict": arrays, "epoch": 3}, theirs)
""",
    "mindspore": """
import mindspore
state = mindspore.load_checkpoint(ours, strict_load=True)
arrays = {n: p.asnumpy() for n, p in state.items()}
mindspore.save_checkpoint([{"name": n, "data": p} for n, p in state.items()], theirs)
""",
    "oneflow": """
import oneflow
state = oneflow.load(ours)
arrays = {n: t.numpy() for n, t in state.items()}
oneflow.save({"model": state, "epoch": 3}, theirs)
""",
}


def save(form, folder, weights=WEIGHTS, config=CONFIG):
    path = folder / FILES[form]
    write_checkpoint(TARGETS[form], path, config, weights)
    return path


@pytest.fixture(params=FILES)
def form(request):
    return request.param


@pytest.fixture(scope="module", params=FILES)
def native(request, tmp_path_factory):
    """Our file, the arrays that the framework's loader finds in it, and the file that the framework saves of them."""
    form = request.param
    if not installed(form):
        assert form not in os.environ.get("POLYMAE_FRAMEWORKS", ""), f"{form} is asked for but not installed"
        pytest.skip(f"{form} is not installed")
    folder = tmp_path_factory.mktemp(form)
    ours = save(form, folder)
    theirs = folder / f"theirs-{FILES[form]}"
    script = f"ours, theirs = {str(ours)!r}, {str(theirs)!r}{NATIVE[form]}"
    script += f"import numpy\nnumpy.savez({str(folder / 'seen.npz')!r}, **arrays)"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=300)
    return form, ours, dict(np.load(folder / "seen.npz")), theirs


def test_the_framework_loads_identical_bits(native):
    form, _, seen, _ = native
    expected = to_native(TARGETS[form], CONFIG, WEIGHTS)
    assert list(seen) == list(expected) or form == "safetensors"  # which lists names in its own order
    assert {n: (a.dtype, a.shape) for n, a in seen.items()} == {n: (a.dtype, a.shape) for n, a in expected.items()}
    assert all(seen[name].tobytes() == expected[name].tobytes() for name in expected)


def test_files_that_the_framework_wrote_are_read(native):
    form, _, _, theirs = native
    checkpoint = open_checkpoint(theirs)
    assert content_hash(checkpoint.weights(CONFIG)) == checkpoint.hash == content_hash(WEIGHTS)
    beside = {"torch": ("optimizer", "epoch", "scaler", "args"), "megengine": ("epoch",), "oneflow": ("epoch",)}
    assert checkpoint.extras == beside.get(form, ())


def test_mindspore_would_write_the_same_bytes(native):
    form, ours, _, theirs = native
    if form == "mindspore":
        assert ours.read_bytes() == theirs.read_bytes()
        assert ours.stat().st_mode & 0o444 == 0o444


def test_same_weights_same_bytes_and_same_hash(form, tmp_path):
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = save(form, tmp_path / name)
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        written.append([file.read_bytes() for file in files])
        assert open_checkpoint(path).hash == content_hash(WEIGHTS)
    assert written[0] == written[1]


def test_hash_does_not_depend_on_the_order_of_the_dict():
    backwards = dict(reversed(WEIGHTS.items()))
    changed = WEIGHTS | {"norm.bias": WEIGHTS["norm.bias"] + np.float32(1e-30)}
    assert content_hash(backwards) == content_hash(WEIGHTS) != content_hash(changed)


def test_mindspore_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(mindspore, "SLICE_SIZE", 1000)
    path = save("mindspore", tmp_path)
    assert path.read_bytes().count(b"cls_token") == 1
    assert path.read_bytes().count(b"blocks.0.attn.qkv.weight") == 28 + 13  # of 27,648 and 12,288 bytes
    assert open_checkpoint(path).hash == content_hash(WEIGHTS)
    if installed("mindspore"):
        script = f"import mindspore; print(mindspore.load_checkpoint({str(path)!r})['blocks.0.attn.qkv.weight'].shape)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
        assert "(144, 48)" in done.stdout


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_cut_off_files_are_a_problem(form, share, tmp_path):
    path = save(form, tmp_path)
    inside = (
        [path] if path.is_file() else [path / "pickled_data", path / "tensor_5" / "out", path / "tensor_5" / "meta"]
    )
    for file in inside:
        whole = file.read_bytes()
        file.write_bytes(whole[: min(int(len(whole) * share), len(whole.rstrip()) - 1)])
        with pytest.raises(Problem, match=r"damaged|cut off|empty|known formats|ends too early"):
            _ = open_checkpoint(path).hash
        file.write_bytes(whole)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("form", FILES)
def test_changed_bytes_give_a_problem_or_a_checkpoint_never_another_error(form, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("changed")
    path = save(form, folder, encoder_weights(), CONFIG)
    file = path if path.is_file() else path / data.draw(st.sampled_from(["pickled_data", "tensor_0/meta"]))
    whole = bytearray(file.read_bytes())
    # The structure is at the ends of the files: change most there.
    place = st.one_of(st.integers(0, min(3000, len(whole) - 1)), st.integers(max(0, len(whole) - 3000), len(whole) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(place)] = data.draw(st.integers(0, 255))
    file.write_bytes(whole)
    with contextlib.suppress(Problem):
        _ = open_checkpoint(path).hash


def encoder_weights():
    return {n: a for n, a in WEIGHTS.items() if n != "mask_token" and not n.startswith("decoder_")}


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
    if not installed("torch"):
        pytest.skip("torch is not installed")
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
    path = save("torch", tmp_path)
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
    path = save("torch", tmp_path)
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
    path = save("oneflow", tmp_path)
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
