"""Every file format by itself: what is written reads back the same, and damage is a clear Problem."""

import contextlib
import json

import numpy as np
import pytest
from children import run_in
from drawn import examples
from hypothesis import given
from hypothesis import strategies as st
from states import bits, every_kind, read, state_of, write, write_legacy

from polymae.convert.formats import FORMATS, find_format, mindspore, shards
from polymae.convert.formats.torch_tensors import STORAGES
from polymae.convert.tensors import DTYPES
from polymae.files.errors import Problem

WRITTEN = list(FORMATS)
FLOATS = {f"blocks.{i}.weight": array for i, array in enumerate(every_kind(("float32",)).values())}
HELD = {form: tuple(DTYPES) for form in WRITTEN}
HELD["npz"] = HELD["megengine"] = tuple(dtype for dtype in DTYPES if dtype != "bfloat16")
HELD["pth_legacy"] = tuple(STORAGES.values())
HELD["oneflow"] = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool")


def save(form, folder, arrays=FLOATS, **beside):
    return write(form, folder / f"w{FORMATS[form].ENDINGS[0]}", state_of(arrays, **beside))


def files_in(path):
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("form", WRITTEN)
def test_every_dtype_and_shape_comes_back_and_twice_the_same_bytes(form, tmp_path):
    arrays = every_kind(HELD[form])
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = save(form, tmp_path / name, arrays)
        assert find_format(path)[0] == form
        assert bits(read(path).tensors) == bits(state_of(arrays).tensors)
        written.append([file.read_bytes() for file in files_in(path)])
    assert written[0] == written[1]


@pytest.mark.parametrize("form", WRITTEN)
def test_what_a_format_cannot_express_is_refused_by_name(form, tmp_path):
    for dtype in set(DTYPES) - set(HELD[form]):
        with pytest.raises(Problem, match=rf"{dtype}\.matrix.*--dtype float32") as caught:
            save(form, tmp_path, every_kind((dtype,)))
        assert caught.value.code == "not-expressible"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", WRITTEN)
def test_the_note_is_kept_where_there_is_room(form, tmp_path):
    note = {"polymae": '{"hash": "ä"}', "format": "ms"}
    found = read(save(form, tmp_path, metadata=note)).metadata
    assert dict(found) == (note if FORMATS[form].HAS_ROOM else {})


@pytest.mark.parametrize(("form", "under"), [("pth", "model"), ("pth", "state_dict"), ("megengine", "state_dict")])
def test_tensors_under_a_key(form, under, tmp_path):
    for key in (under, None):
        (tmp_path / str(key)).mkdir()
        found = read(save(form, tmp_path / str(key), wrapper=key))
        assert (found.wrapper, bits(found.tensors)) == (key, bits(state_of(FLOATS).tensors))


def test_torch_before_1_6(tmp_path):
    found = read(write_legacy(tmp_path / "w.pth", state_of(FLOATS)))
    assert (found.wrapper, found.extras) == ("model", ("epoch",))
    assert bits(found.tensors) == bits(state_of(FLOATS).tensors)


def test_torch_reads_our_files_of_before_1_6(tmp_path):
    arrays = every_kind(HELD["pth_legacy"])
    save("pth_legacy", tmp_path, arrays)
    script = f"""
import json, torch
state = torch.load({str(tmp_path / "w.pth")!r}, weights_only=True)
print(json.dumps({{n: [str(t.dtype)[6:], list(t.shape), t.double().sum().item()] for n, t in state.items()}}))
"""
    found = json.loads(run_in("torch", script))
    tensors = state_of(arrays).tensors
    assert {n: row[:2] for n, row in found.items()} == {n: [t.dtype, list(t.shape)] for n, t in tensors.items()}
    assert all(row[2] == arrays[n].astype(float).sum() for n, row in found.items() if not n.startswith("bfloat16"))


def test_tensors_are_loaded_one_at_a_time_and_once(tmp_path):
    for form in WRITTEN:
        alive, loads = [], []

        def load(shape, alive=alive, loads=loads):
            class Watched(np.ndarray):
                def __del__(self):
                    alive.remove(1)

            assert not alive
            alive.append(1)
            loads.append(shape)
            return np.ndarray.__new__(Watched, shape, "<f4")

        state = state_of(FLOATS)
        for tensor in state.tensors.values():
            object.__setattr__(tensor, "load", lambda shape=tensor.shape: load(shape))
        write(form, tmp_path / f"w-{form}", state)
        assert len(loads) == len(FLOATS)


@pytest.mark.parametrize("whole", [600, 1000, 50_000])
def test_mindspore_slices_and_shards(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(mindspore, "SLICE_SIZE", whole)
    path = save("mindspore", tmp_path)
    assert bits(read(path).tensors) == bits(state_of(FLOATS).tensors)
    assert path.read_bytes().count(b"blocks.4.weight") == -(-70 * 33 * 4 // whole)
    FORMATS["shards"].write(tmp_path / "f", state_of(FLOATS), print, shard_size=whole)
    assert bits(read(tmp_path / "f").tensors) == bits(state_of(FLOATS).tensors)
    names = sorted(file.name for file in (tmp_path / "f").iterdir())
    shard, index = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], shards._INDEX
    assert names == ([*shard, index] if whole < 50_000 else [shards.WHOLE])
    if whole < 50_000:
        assert bits(read(tmp_path / "f" / index).tensors) == bits(state_of(FLOATS).tensors)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("form", FORMATS)
def test_cut_off_files_are_a_problem(form, share, tmp_path):
    path = save(form, tmp_path)
    for file in files_in(path):
        whole = file.read_bytes()
        if not whole:
            continue  # an empty tensor's file
        file.write_bytes(whole[: min(int(len(whole) * share), len(whole.rstrip()) - 1)])
        with pytest.raises(Problem) as caught:
            bits(read(path).tensors)
        # Where it is cut decides whether the rest is still of its format, and contradicts itself before it ends.
        assert caught.value.code in ("truncated", "damaged", "incomplete", "not-a-checkpoint"), caught.value
        file.write_bytes(whole)


@examples(150)
@given(data=st.data())
@pytest.mark.parametrize("form", FORMATS)
def test_changed_bytes_give_a_problem_or_a_state_never_another_error(form, tmp_path_factory, data):
    path = save(form, tmp_path_factory.mktemp("changed"))
    file = data.draw(st.sampled_from([file for file in files_in(path) if file.stat().st_size]))
    whole = bytearray(file.read_bytes())
    # The structure is at the ends of the files: change most there.
    place = st.one_of(st.integers(0, min(3000, len(whole) - 1)), st.integers(max(0, len(whole) - 3000), len(whole) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(place)] = data.draw(st.integers(0, 255))
    file.write_bytes(whole)
    with contextlib.suppress(Problem):
        bits(read(path).tensors)
