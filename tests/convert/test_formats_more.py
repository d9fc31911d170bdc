"""What frameworks and training scripts really leave on the disk: views, folders, scalars, wrappers, older layouts."""

import numpy as np
import pytest
from children import run_in
from states import read

from polymae.convert.formats import FORMATS, find_format
from polymae.files.errors import Problem


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_views_shared_storages_parameters_and_what_training_saves(zipped, tmp_path):
    script = f"""
import argparse, collections, pathlib, numpy, torch
base = torch.arange(60, dtype=torch.float32).reshape(6, 10)
class Marked(torch.nn.Parameter): pass
note = torch.nn.Parameter(base[3:]); note.written_by = "me"
state = collections.OrderedDict({{
    "whole": base, "a": base.t(), "b": base[1:4, 2:9:3], "c": torch.nn.Parameter(base[:2]), "d": torch.tensor(2.0),
    "e": base[:0], "f": base.to(torch.bfloat16), "i": torch.ones(1, 3).expand(4, 3), "j": torch.tensor(7), "k": note,
    "l": base[5], "m": base.int()[1:2]}})
state._metadata = collections.OrderedDict({{"": {{"version": 1}}, "norm": {{"version": 2}}}})
p = torch.nn.Parameter(torch.ones(2, 3)); o = torch.optim.AdamW([p]); p.sum().backward(); o.step()
args = argparse.Namespace(lr=numpy.float64(1e-3), out=pathlib.Path("/tmp/out"), betas=(0.9, 0.95), dtype=torch.float16,
                          device=torch.device("cpu"), size=torch.Size([1, 2]), names={{"x"}}, resume="", raw=b"\\0")
beside = {{"optimizer": o.state_dict(), "epoch": 3, "scaler": {{"scale": 65536.0}}, "args": args}}
torch.save({{"model": state, **beside}}, {str(tmp_path / "s.pth")!r}, _use_new_zipfile_serialization={zipped})
"""
    run_in("torch", script)
    found = read(tmp_path / "s.pth")
    assert find_format(tmp_path / "s.pth")[0] == ("pth" if zipped else "pth_legacy")
    assert (found.wrapper, found.extras) == ("model", ("optimizer", "epoch", "scaler", "args"))
    base = np.arange(60, dtype=np.float32).reshape(6, 10)
    upper = (base.view(np.uint32) >> 16).astype(np.uint16)  # small whole numbers are exact in bfloat16
    expected = {"whole": base, "a": base.T, "b": base[1:4, 2:9:3], "c": base[:2], "d": np.float32(2), "e": base[:0]}
    expected |= {"f": upper, "i": np.ones((4, 3), "f4"), "j": np.int64(7), "k": base[3:], "l": base[5]}
    expected["m"] = base.astype(np.int32)[1:2]
    assert list(found.tensors) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found.tensors[name].load(), array)
        assert found.tensors[name].shape == array.shape
    assert [found.tensors[n].dtype for n in "fjm"] == ["bfloat16", "int64", "int32"]
    assert not found.tensors["a"].load().flags.owndata  # in place, not copied


def test_a_negated_view_is_refused(tmp_path):
    run_in(
        "torch",
        f"import torch; t = torch.ones(2); torch.save({{'a': torch._neg_view(t)}}, {str(tmp_path / 'n.pth')!r})",
    )
    with pytest.raises(Problem, match=r"tensor a: .*resolve_neg\(\)") as caught:
        read(tmp_path / "n.pth")
    assert caught.value.code == "unsupported"


def test_megengine_tensors_parameters_and_wrappers(tmp_path):
    script = f"""
import megengine, numpy
t, p = megengine.tensor(numpy.arange(6, dtype="f4").reshape(2, 3)), megengine.Parameter(numpy.ones(2, "f4"))
megengine.save({{"model": {{"t": t, "p": p}}, "epoch": 3, "best": numpy.float64(0.5)}}, {str(tmp_path / "w.pkl")!r})
"""
    run_in("megengine", script)
    found = read(tmp_path / "w.pkl")
    assert (found.wrapper, found.extras) == ("model", ("epoch", "best"))
    np.testing.assert_array_equal(found.tensors["t"].load(), np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(found.tensors["p"].load(), np.ones(2))


def message(tag, kind, dims, content):
    """One value of a MindSpore checkpoint, its lengths below 128."""
    tensor = b"".join(b"\x08" + bytes([size]) for size in dims) + b"\x12" + bytes([len(kind)]) + kind
    tensor += b"\x1a" + bytes([len(content)]) + content
    value = b"\x0a" + bytes([len(tag)]) + tag + b"\x12" + bytes([len(tensor)]) + tensor
    return b"\x0a" + bytes([len(value)]) + value


def test_mindspore_scalars_slices_by_element_texts_and_checksums(tmp_path):
    values = np.arange(7, dtype="<f4").tobytes()
    data = message(b"new", b"Float32", (), b"\0\0\x80\x3f") + message(b"old", b"Int32", (0,), b"\x05\0\0\0")
    data += message(b"none", b"Float32", (0,), b"") + message(b"text", b"str", (0,), "ab".encode("utf-32-le"))
    data += b"".join(message(b"cut", b"Float32", (7,), piece) for piece in (values[:12], values[12:20], values[20:]))
    path = tmp_path / "w.ckpt"
    path.write_bytes(data)
    found = read(path)
    assert found.extras == ("text",)
    assert {n: t.load().tolist() for n, t in found.tensors.items()} == {
        "new": 1,
        "old": 5,
        "none": [],
        "cut": list(range(7)),
    }
    for more, code in (
        (b"crc_num" + (1).to_bytes(10, "big"), "checksum"),
        (message(b"new", b"Float32", (), b"\0\0\x80\x3f"), "damaged"),
        (message(b"four", b"Int4", (2,), b"\0"), "unsupported"),
    ):
        path.write_bytes(data + more)
        with pytest.raises(Problem) as caught:
            read(path)
        assert caught.value.code == code


def test_mindspore_appended_numbers_and_encryption(tmp_path):
    script = f"""
import mindspore, numpy
def save(name, **how):
    data = [{{"name": "a", "data": mindspore.Tensor(numpy.ones((2, 3), "f4"))}}]
    mindspore.save_checkpoint(data, {str(tmp_path)!r} + "/" + name, **how)
save("plain.ckpt", append_dict={{"epoch_num": 3, "lr": 0.1, "who": "me"}})
for mode in ("AES-GCM", "AES-CBC", "SM4-CBC"):
    save(mode + ".ckpt", enc_key=b"0123456789abcdef", enc_mode=mode)
"""
    run_in("mindspore", script)
    found = read(tmp_path / "plain.ckpt")
    assert {n: t.shape for n, t in found.tensors.items()} == {"a": (2, 3), "epoch_num": (), "lr": ()}
    assert (found.extras, int(found.tensors["epoch_num"].load())) == (("who",), 3)
    for mode in ("AES-GCM", "AES-CBC", "SM4-CBC"):
        with pytest.raises(Problem, match="dec_key") as caught:
            read(tmp_path / f"{mode}.ckpt")
        assert caught.value.code == "unsupported"


def test_every_format_says_what_it_is():
    for form in FORMATS.values():
        assert form.NAME
        assert all(isinstance(flag, bool) for flag in (form.FOLDER, form.HAS_ROOM))
