"""Small sound checkpoints of every format, each as parts that can be damaged one by one and put together again.

A part is a whole file, or an inner piece below a checksum or a length, past which damage would hardly ever get otherwise.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import tempfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import children
import numpy as np

from polymae.backends.config import MAEConfig
from polymae.backends.initial import initial_weights
from polymae.convert.dialects import DIALECTS
from polymae.convert.formats import FORMATS, shards
from polymae.convert.provenance import Provenance, beside
from polymae.convert.targets import TARGETS
from polymae.convert.tensors import DTYPES, State, Tensor
from polymae.convert.transform import WeightSet
from polymae.convert.writing import write_weights

CONFIG = MAEConfig(
    img_size=(4, 4), patch_size=2, in_chans=1, embed_dim=4, depth=1, num_heads=1,
    decoder_embed_dim=4, decoder_depth=1, decoder_num_heads=1,
)  # fmt: skip
Parts = dict[str, bytes]
LINK, PIPE, FOLDER = b"<link>", b"<pipe>", b"<folder>"  # a folder's part that is no file but this
_MIXED = ("float32", "float16", "bfloat16", "int64")


class Seed(NamedTuple):
    """A checkpoint in parts, and what puts parts together at a path."""

    parts: Parts
    build: Callable[[Parts, Path], None]
    is_folder: bool = False


def state(dtypes: tuple[str, ...] = ("float32",), count: int | None = None, wrapper: str | None = "model") -> State:
    """The first tensors of a tiny model, taking the dtypes in turn."""
    tensors = {}
    for i, (name, array) in enumerate(list(initial_weights(CONFIG, seed=1).items())[:count]):
        dtype = dtypes[i % len(dtypes)]
        changed = (array * 50).astype(DTYPES[dtype])
        tensors[name] = Tensor(array.shape, dtype, lambda changed=changed: changed)
    return State(tensors, wrapper=wrapper)


def seeds(kind: str, folder: Path) -> list[Seed]:
    """Seeds of one of KINDS, the same in every run. folder: a new one to make them in."""
    folder.mkdir()
    return list(_SEEDS[kind](folder))


def _written(path: Path, name: str, what: State) -> Path:
    FORMATS[name].write(path, what, lambda done: None)
    return path


def _converted(path: Path, target: str) -> Path:
    """The tiny model as convert_weights writes it, with its provenance in it or beside it."""
    row = TARGETS[target]
    weights = WeightSet(CONFIG, "mae", state().tensors)
    about = partial(Provenance, dialect=row.dialect, config=CONFIG)
    write_weights(weights, DIALECTS[row.dialect], row.formats[0], path, lambda hashed: about(hashed.content))
    return path


def _file(path: Path) -> Seed:
    return Seed({"": path.read_bytes()}, _put_file)


def _put_file(parts: Parts, path: Path) -> None:
    path.write_bytes(parts.get("", b""))


def _with_provenance(path: Path) -> Seed:
    def put(parts: Parts, target: Path) -> None:
        _put_file(parts, target)
        beside(target).write_bytes(parts.get("provenance", b""))

    return Seed({"": path.read_bytes(), "provenance": beside(path).read_bytes()}, put)


def _folder(path: Path) -> Seed:
    return Seed({str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}, _put_folder, True)


def _put_folder(parts: Parts, path: Path) -> None:
    path.mkdir()
    for name, content in parts.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if content == LINK:
            place.symlink_to("/etc/passwd")
        elif content == PIPE:
            os.mkfifo(place)
        elif content == FOLDER:
            place.mkdir()
        else:
            place.write_bytes(content)


def _zip(path: Path, compression: int = zipfile.ZIP_STORED) -> Seed:
    """The entries of a zip archive; put together again with the checksums that they have then."""

    def put(parts: Parts, target: Path) -> None:
        with zipfile.ZipFile(target, "w", compression) as archive:
            for name, content in parts.items():
                archive.writestr(zipfile.ZipInfo(name), content, compression)

    with zipfile.ZipFile(path) as archive:
        return Seed({name: archive.read(name) for name in archive.namelist()}, put)


def _header_and_body(path: Path) -> Seed:
    """A .safetensors file, put together with the length that its header has then."""

    def put(parts: Parts, target: Path) -> None:
        header = parts.get("header", b"")
        target.write_bytes(struct.pack("<Q", len(header)) + header + parts.get("body", b""))

    whole = path.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    return Seed({"header": whole[8:end], "body": whole[end:]}, put)


def _with_checksum(path: Path) -> Seed:
    """A MindSpore file, put together with MindSpore's checksum of what it is then."""

    def put(parts: Parts, target: Path) -> None:
        data = parts.get("", b"")
        target.write_bytes(data + b"crc_num" + zlib.crc32(data).to_bytes(10, "big"))

    return Seed({"": path.read_bytes()}, put)


# What torch alone writes: training files, both generations; views, offsets, shared storages, parameters, scalars.
_BY_TORCH = """
import argparse, pathlib, sys, torch
folder, names = sys.argv[1], ["cls_token", "pos_embed", "blocks.0.norm1.weight", "blocks.0.attn.qkv.weight"]
torch.manual_seed(1)
base = torch.randn(6, 4)
weights = dict(zip(names, [base[:1], torch.nn.Parameter(torch.randn(2, 3)), base[2], base.t(), base.half(), base[0, 0]]))
state = {**weights, "d": base.to(torch.bfloat16), "e": base[1:4, 1:3], "f": torch.tensor(7), "g": base[:0]}
averages = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2, 2), "exp_avg_sq": torch.zeros(2, 2)}
optimizer = {"state": {0: averages}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95), "params": [0]}]}
args = argparse.Namespace(lr=1e-3, output_dir=pathlib.PosixPath("/out"), device=torch.device("cpu"), mask_ratio=0.75)
training = {"model": state, "optimizer": optimizer, "epoch": 3, "args": args, "scaler": {"scale": 65536.0}}
for name, value in (("plain", state), ("training", training)):
    for new in (True, False):
        torch.save(value, f"{folder}/{name}{int(new)}.pth", _use_new_zipfile_serialization=new)
"""


@cache
def _made_by_torch() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        children.run([sys.executable, "-c", _BY_TORCH, folder], check=True)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _by_torch(folder: Path, generation: int) -> Iterator[Path]:
    for name, content in _made_by_torch().items():
        if name.endswith(f"{generation}.pth"):
            (folder / name).write_bytes(content)
            yield folder / name


def _pth(folder: Path) -> Iterator[Seed]:
    written = [_written(folder / "a", "pth", state()), _written(folder / "b", "pth", state(_MIXED, 4, None))]
    for path in [*written, *_by_torch(folder, 1)]:
        yield from (_file(path), _zip(path))


def _pth_legacy(folder: Path) -> Iterator[Seed]:
    yield from map(_file, _by_torch(folder, 0))


def _safetensors(folder: Path) -> Iterator[Seed]:
    written = [_written(folder / f"{i}", "safetensors", what) for i, what in enumerate((state(), state(_MIXED, 4)))]
    for path in (*written, _converted(folder / "a.safetensors", "safetensors")):
        yield from (_file(path), _header_and_body(path))


def _megengine(folder: Path) -> Iterator[Seed]:
    yield _file(_written(folder / "a", "megengine", state()))
    arrays = OrderedDict(
        (name, tensor.load()) for name, tensor in state(("float32", "float16", "int64"), 4).tensors.items()
    )
    arrays["f"], arrays["g"] = np.asfortranarray(np.ones((2, 3), ">f4")), np.zeros((0, 3), "<f8")
    for protocol in (2, 4):
        whole = {"state_dict": arrays, "epoch": 3, "best": np.float64(0.5)}
        (folder / f"{protocol}").write_bytes(pickle.dumps(whole, protocol))
        yield _file(folder / f"{protocol}")


def _mindspore(folder: Path) -> Iterator[Seed]:
    for i, what in enumerate((state(), state(_MIXED, 4))):
        path = _written(folder / f"{i}", "mindspore", what)
        yield from (_file(path), _with_checksum(path))


def _oneflow(folder: Path) -> Iterator[Seed]:
    yield _folder(_written(folder / "a", "oneflow", state(("float32",), 3, None)))
    yield _folder(_written(folder / "b", "oneflow", state(("float32", "int64"), 2, "model")))
    yield _folder(_converted(folder / "c", "oneflow"))


def _oneflow_legacy(folder: Path) -> Iterator[Seed]:
    made = _folder(_written(folder / "a", "oneflow", state(("float32", "float16"), 3, None)))
    kept = {f"var{name}": content for name, content in made.parts.items() if "/" in name}
    yield Seed({**kept, "snapshot_done": b""}, made.build, True)


def _shards(folder: Path) -> Iterator[Seed]:
    yield _folder(_converted(folder / "a", "huggingface"))
    shards.write(folder / "b", state(), lambda done: None, shard_size=600)
    yield _folder(folder / "b")


def _npz(folder: Path) -> Iterator[Seed]:
    path = _written(folder / "a", "npz", state())
    yield from (_file(path), _zip(path), _with_provenance(_converted(folder / "b.npz", "numpy")))
    arrays = {"cls_token": np.ones((1, 1, 4), "f4"), "b": np.asfortranarray(np.ones((2, 3), ">f8")), "c": np.float16(1)}
    np.savez_compressed(folder / "packed.npz", **arrays)
    yield from (_file(folder / "packed.npz"), _zip(folder / "packed.npz", zipfile.ZIP_DEFLATED))


_SEEDS: dict[str, Callable[[Path], Iterator[Seed]]] = {
    "pth": _pth, "pth_legacy": _pth_legacy, "safetensors": _safetensors, "megengine": _megengine,
    "mindspore": _mindspore, "oneflow": _oneflow, "oneflow_legacy": _oneflow_legacy, "shards": _shards,
    "npz": _npz,
}  # fmt: skip
KINDS = tuple(_SEEDS)
