"""Folders: OneFlow's and LiBai's, Hugging Face's shards. That nothing outside them is read: test_hostile.py."""

import json

import numpy as np
import pytest
from children import run_in
from repository import ROOT
from states import bits, read, state_of, write

from polymae.convert.formats import oneflow, shards
from polymae.files.errors import Problem

ARRAYS = {"norm.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "norm.bias": np.float32(2.5).reshape(())}
STATE = state_of(ARRAYS)


def test_oneflow_notes_libai_folders_and_leftovers(tmp_path):
    note = {"polymae": "{}", "hash": "ä" * 64}
    libai = write("oneflow", tmp_path / "model_final", state_of(ARRAYS, wrapper="model", metadata=note))
    assert oneflow.replaceable(libai)
    (libai / "lr_scheduler").mkdir()
    (libai / "model" / "tensor_99").mkdir()  # of an earlier save
    found = read(libai)
    assert (found.wrapper, found.extras, found.metadata) == ("model", ("lr_scheduler",), note)
    assert bits(found.tensors) == bits(STATE.tensors)
    inside = read(libai / "model")
    assert (inside.wrapper, inside.extras, bits(inside.tensors)) == (None, (), bits(STATE.tensors))
    (libai / "lr_scheduler" / "pickled_data").touch()
    assert not oneflow.replaceable(libai)
    with pytest.raises(Problem, match=r"Did you mean .*model_final\?") as caught:
        read(tmp_path)
    assert caught.value.code == "not-a-checkpoint"
    script = (
        f"import oneflow; print({{n: t.numpy().tolist() for n, t in oneflow.load({str(libai / 'model')!r}).items()}})"
    )
    assert str({n: a.tolist() for n, a in ARRAYS.items()}) in run_in("oneflow", script)


def test_oneflow_older_layout(tmp_path):
    for name, array in ARRAYS.items():
        (tmp_path / name).mkdir()
        dims = "".join(f"dim: {size} " for size in array.shape)
        (tmp_path / name / "meta").write_text(f"shape {{ {dims}}} data_type: kFloat")
        array.tofile(tmp_path / name / "out")
    (tmp_path / "snapshot_done").touch()
    (tmp_path / "System-Train").mkdir()
    found = read(tmp_path)
    assert (bits(found.tensors), found.extras) == (dict(sorted(bits(STATE.tensors).items())), ("System-Train",))


def test_shards_and_their_index(tmp_path):
    path = tmp_path / "f"
    shards.write(
        path, state_of(ARRAYS, metadata={"config.json": '{"a": 1}', "hash": "x"}), lambda done: None, shard_size=1
    )
    assert dict(read(path).metadata) == {"format": "pt", "config.json": '{"a": 1}', "hash": "x"}
    assert shards.replaceable(path)
    index = path / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    assert good["metadata"] == {"total_size": 52}
    first, second = good["weight_map"].values()
    index.write_text(json.dumps(good | {"weight_map": {"norm.weight": f"./{first}", "norm.bias": second}}))
    assert bits(read(index).tensors) == bits(STATE.tensors)


def test_a_snapshot_in_hugging_faces_cache_is_links(tmp_path):
    snapshot = tmp_path / "models--a" / "snapshots" / "0123"
    (tmp_path / "models--a" / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    write("safetensors", tmp_path / "models--a" / "blobs" / "abc", STATE)
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    assert bits(read(snapshot).tensors) == bits(STATE.tensors)


def test_transformers_reads_our_shards_and_we_read_its(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
import pathlib, torch, transformers
from polymae.convert.formats import shards
config = transformers.ViTMAEConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    image_size=32, patch_size=8, decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
    decoder_intermediate_size=64)
model = transformers.ViTMAEForPreTraining(config)
folder = pathlib.Path({str(tmp_path)!r})
for size in ("1GB", "50KB"):
    model.save_pretrained(folder / size, max_shard_size=size)
    state = shards.read(folder / size)
    assert len(state.tensors) == len(model.state_dict()) and "ViTMAE" in state.metadata["config.json"]
    for shard_size in (10**9, 50_000):
        ours = folder / f"{{size}}-{{shard_size}}"
        shards.write(ours, state, lambda done: None, shard_size=shard_size)
        again, info = transformers.ViTMAEForPreTraining.from_pretrained(ours, output_loading_info=True)
        assert not any(info.values()), info
        assert (len(list(ours.glob("*.safetensors"))) == 1) == (shard_size > 10**6)
        assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())
print("equal")
"""
    assert "equal" in run_in("torch", script)
