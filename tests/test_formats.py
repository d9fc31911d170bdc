"""Every file format: what we write loads in the framework itself, what it writes loads here, damage is a clear Problem."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from frameworks import frameworks_under_test
from hypothesis import given, settings
from hypothesis import strategies as st
from polymae.backends.errors import Problem
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.spelling import to_native
from polymae.convert.checkpoint import content_hash, open_checkpoint
from polymae.convert.formats import mindspore
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


def under_test(form):
    """As in conftest.py: a framework that is under test but missing is a failure, not a skip."""
    return form == "safetensors" or form in frameworks_under_test()


@pytest.fixture(params=FILES)
def form(request):
    return request.param


@pytest.fixture(scope="module", params=FILES)
def native(request, tmp_path_factory):
    """Our file, the arrays that the framework's loader finds in it, and the file that the framework saves of them."""
    form = request.param
    if not under_test(form):
        pytest.skip(f"POLYMAE_FRAMEWORKS does not list {form}")
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
    if under_test("mindspore"):
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
