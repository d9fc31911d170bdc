"""Every dtype, both ways: what we write loads in the framework itself, what it writes loads here, bit for bit."""

import numpy as np
import pytest
from children import run_in
from states import bits, every_kind, read, state_of, write

from polymae.convert.tensors import DTYPES, State

FILES = {"pth": "w.pth", "safetensors": "w.safetensors", "npz": "w.npz", "megengine": "w.pkl", "mindspore": "w.ckpt"}
FILES |= {"oneflow": "w"}
NEEDS = {"pth": "torch", "safetensors": "torch", "npz": "numpy", "megengine": "megengine", "mindspore": "mindspore"}
NEEDS |= {"oneflow": "oneflow"}
HELD = {form: tuple(DTYPES) for form in FILES}
HELD["npz"] = HELD["megengine"] = tuple(dtype for dtype in DTYPES if dtype != "bfloat16")
HELD["oneflow"] = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool")

# Load our file with the framework's own loader, show every tensor's bits, and save them again with its own writers.
NATIVE = {
    "pth": """
import torch
state = torch.load(ours, weights_only=True)["model"]
arrays = {n: (t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).numpy() for n, t in state.items()}
dtypes = {n: str(t.dtype).removeprefix("torch.") for n, t in state.items()}
torch.save({"state_dict": state, "epoch": 3}, theirs + "1.pth")
torch.save(state, theirs + "2.pth", _use_new_zipfile_serialization=False)
torch.save({n: torch.nn.Parameter(t, requires_grad=False) for n, t in state.items()}, theirs + "3.pth", pickle_protocol=4)
torch.save({n: torch.nn.Parameter(t, requires_grad=False) for n, t in state.items()}, theirs + "4.pth", pickle_protocol=4,
           _use_new_zipfile_serialization=False)
""",
    "safetensors": """
import safetensors.torch, torch
state = safetensors.torch.load_file(ours)
arrays = {n: (t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).numpy() for n, t in state.items()}
dtypes = {n: str(t.dtype).removeprefix("torch.") for n, t in state.items()}
safetensors.torch.save_file(state, theirs + "1.safetensors", metadata={"format": "pt"})
""",
    "npz": """
arrays = dict(numpy.load(ours))
dtypes = {n: a.dtype.name for n, a in arrays.items()}
numpy.savez(theirs + "1.npz", **arrays)
numpy.savez_compressed(theirs + "2.npz", **arrays)
numpy.savez(theirs + "3.npz", **{n: numpy.array(a, order="F") for n, a in arrays.items()})
numpy.savez(theirs + "4.npz", **{n: a.astype(a.dtype.newbyteorder(">")) for n, a in arrays.items()})
""",
    "megengine": """
import collections, pickle, megengine
arrays = megengine.load(ours)
dtypes = {n: a.dtype.name for n, a in arrays.items()}
for protocol in (2, 3, 4, 5):
    megengine.save({"state_dict": dict(arrays), "epoch": 3}, theirs + f"{protocol}.pkl", pickle_protocol=protocol)
    odd = {n: numpy.array(a, order="F") for n, a in arrays.items()}
    megengine.save(collections.OrderedDict(odd), theirs + f"{protocol}f.pkl", pickle_protocol=protocol)
""",
    "mindspore": """
import mindspore
state = mindspore.load_checkpoint(ours, strict_load=True)
arrays = {n: p.asnumpy() for n, p in state.items()}
dtypes = {n: str(p.dtype).lower() for n, p in state.items()}
for i, crc in enumerate((False, True)):
    mindspore.save_checkpoint([{"name": n, "data": p} for n, p in state.items()], theirs + f"{i}.ckpt", crc_check=crc)
""",
    "oneflow": """
import oneflow
state = oneflow.load(ours)
arrays = {n: t.numpy() for n, t in state.items()}
dtypes = {n: str(t.dtype).removeprefix("oneflow.") for n, t in state.items()}
oneflow.save({"model": state, "epoch": 3}, theirs + "1")
oneflow.save(state, theirs + "2")
""",
}


@pytest.fixture(scope="module", params=FILES)
def native(request, tmp_path_factory):
    """The format, the state in our file, what the framework's loader finds in it, and the files it saves of that."""
    form = request.param
    folder = tmp_path_factory.mktemp(form)
    state = state_of(every_kind(HELD[form]), wrapper="model" if form == "pth" else None)
    ours = write(form, folder / FILES[form], state)
    script = f"import numpy\nours, theirs = {str(ours)!r}, {str(folder / 'theirs')!r}{NATIVE[form]}"
    script += "shown = {n + ' ' + dtypes[n]: numpy.ascontiguousarray(a).reshape(a.shape) for n, a in arrays.items()}\n"
    script += f"numpy.savez({str(folder / 'seen.npz')!r}, **shown)"
    run_in(NEEDS[form], script)
    return form, state, dict(np.load(folder / "seen.npz")), sorted(folder.glob("theirs*"))


def test_the_framework_loads_identical_bits(native):
    form, state, seen, _ = native
    expected = {f"{name} {dtype}": rest for name, (dtype, *rest) in bits(state.tensors).items()}
    assert {name: [array.shape, array.tobytes()] for name, array in seen.items()} == expected


def test_files_that_the_framework_wrote_are_read(native):
    form, state, _, theirs = native
    # MindSpore's saver silently leaves out what is empty.
    saved = {n: t for n, t in state.tensors.items() if form != "mindspore" or not n.endswith(".empty")}
    assert theirs
    for path in theirs:
        found = read(path)
        assert bits(found.tensors) == bits(saved), path
        assert found.extras in ((), ("epoch",))


def test_mindspore_would_write_the_same_bytes(native, tmp_path):
    form, state, _, theirs = native
    if form == "mindspore":
        saved = {n: t for n, t in state.tensors.items() if not n.endswith(".empty")}
        assert write(form, tmp_path / "w.ckpt", State(saved)).read_bytes() == theirs[0].read_bytes()
