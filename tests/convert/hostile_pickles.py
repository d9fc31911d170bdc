"""Pickles made to do harm, as tables: bytes, the code that refuses them, and values that the message names."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from states import state_of, write_legacy


class Hostile(NamedTuple):
    """A file's content, the code of the problem that it is, and what its message names."""

    content: bytes
    code: str
    named: tuple[str, ...] = ()


def hostile(content: bytes, code: str, *named: str) -> Hostile:
    return Hostile(content, code, named)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def dict_of(value: bytes, name: str = "cls_token") -> bytes:
    """A pickle of {name: value}."""
    return b"\x80\x04}" + text(name) + value + b"s."


def doubled(times: int) -> bytes:
    """A tuple of two references to a tuple of two references and so on: tiny in the file, endless when it is printed."""
    pairs = [b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x940" for i in range(times)]
    return b")\x940" + b"".join(pairs) + b"h" + bytes([times])


# Where a pickle may stand: .pkl, .pth of both generations, OneFlow's folder.


def pkl(folder: Path, pickled: bytes) -> Path:
    (folder / "w.pkl").write_bytes(pickled)
    return folder / "w.pkl"


def pth(folder: Path, pickled: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(folder / "w.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return folder / "w.pth"


def pth_legacy(folder: Path, pickled: bytes) -> Path:
    start = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    (folder / "w.pt").write_bytes(start + pickled + pickle.dumps([], 2))
    return folder / "w.pt"


def pth_legacy_of_a_model(folder: Path, pickled: bytes) -> Path:
    whole = write_legacy(folder / "l.pth", state_of({"cls_token": np.ones((1, 1, 48), np.float32)})).read_bytes()
    (folder / "l.pth").write_bytes(whole[: whole.index(b"model") - 8] + pickled)
    return folder / "l.pth"


def oneflow(folder: Path, pickled: bytes) -> Path:
    (folder / "w").mkdir()
    (folder / "w" / "pickled_data").write_bytes(pickled)
    return folder / "w"


PLACES = (pkl, pth, pth_legacy, oneflow)

CALL = text("touch canary") + b"\x85R"
ORDERED_DICT = b"ccollections\nOrderedDict\n"
EVERYWHERE = {
    "os.system": hostile(dict_of(b"cos\nsystem\n" + CALL), "runs-code", "os.system"),
    "posix.system": hostile(dict_of(b"cposix\nsystem\n" + CALL), "runs-code", "posix.system (os.system)"),
    "eval": hostile(dict_of(b"cbuiltins\neval\n" + CALL), "runs-code", "builtins.eval"),
    "nested reduce": hostile(
        dict_of(ORDERED_DICT + b"(" + ORDERED_DICT + b"(c__builtin__\ngetattr\n" + CALL + b"tRtR"),
        "runs-code", "__builtin__.getattr (builtins.getattr)",
    ),
    "unused": hostile(b"\x80\x04cos\nsystem\n" + CALL + b"0}.", "runs-code", "os.system"),
    "in the memo": hostile(
        b"\x80\x04" + text("os") + b"\x94" + text("system") + b"\x940h\x00h\x01\x93.", "runs-code", "os.system"
    ),
    "STACK_GLOBAL of no texts": hostile(dict_of(b"K\x01K\x02\x93"), "damaged"),
    "an attribute of something allowed": hostile(
        dict_of(text("collections") + text("OrderedDict.fromkeys.__globals__") + b"\x93"),
        "runs-code", "collections.OrderedDict.fromkeys.__globals__",
    ),
    "a submodule instead": hostile(dict_of(b"ccollections.abc\nOrderedDict\n"), "runs-code", "collections.abc.OrderedDict"),
    "BUILD of a name": hostile(dict_of(ORDERED_DICT + b"}b"), "damaged"),
    "calling a value": hostile(dict_of(text("print") + b")R"), "damaged"),
    "INST": hostile(dict_of(b"(S'x'\nios\nsystem\n"), "damaged", "0x53"),
    "INST alone": hostile(dict_of(b"(ios\nsystem\n"), "damaged", "0x69"),
    "OBJ": hostile(dict_of(b"(" + ORDERED_DICT + b"o"), "damaged", "0x6f"),
    "NEWOBJ_EX": hostile(dict_of(ORDERED_DICT + b")}\x92"), "damaged", "0x92"),
    "EXT1": hostile(dict_of(b"\x82\x01"), "damaged", "0x82"),
    "EXT4": hostile(dict_of(b"\x84\x01\x00\x00\x00"), "damaged", "0x84"),
    "PERSID": hostile(dict_of(b"P../../x\n"), "damaged", "0x50"),
    "a memo index of nothing": hostile(dict_of(b"j\xff\xff\xff\xff"), "damaged"),
    "LONG4": hostile(dict_of(b"\x8b\xff\xff\xff\x7f"), "damaged", "0x8b"),
    "a text of 2^32 bytes": hostile(dict_of(b"X\xff\xff\xff\xff"), "truncated"),
    "bytes of 2^63": hostile(dict_of(b"\x8e" + struct.pack("<Q", 2**63)), "truncated"),
    "a name without end": hostile(dict_of(b"c" + b"a" * 300), "damaged"),
    "a tuple as a key": hostile(b"\x80\x04}))s.", "damaged", "tuple"),
    "a key that collides": hostile(b"\x80\x04}\x8a\x08" + struct.pack("<q", 2**61 - 1) + b"Ns.", "damaged", "int"),
    "too many steps": hostile(b"\x80\x04" + b"}0" * 600_000 + b"}.", "too-large", "1,000,000"),
    "no end": hostile(b"\x80\x04}", "truncated"),
}  # fmt: skip


def storage(
    key: bytes = b"X\x01\x00\x00\x000",
    kind: bytes = b"ctorch\nFloatStorage\n",
    count: bytes = b"K\x01",
    word: str = "storage",
) -> bytes:
    return b"(" + text(word) + kind + key + text("cpu") + count + b"tQ"


def tensor(
    inside: bytes, offset: bytes = b"K\x00", shape: bytes = b"K\x01\x85", strides: bytes = b"K\x01\x85"
) -> bytes:
    arguments = b"(" + inside + offset + shape + strides + b"\x89" + ORDERED_DICT + b")Rt"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


_NO_SENSE = ("damaged", "tensor cls_token")
# Tensors' records, for a .pth whose storage data/0 has one value.
SOUND_RECORD = tensor(storage())
RECORDS = {
    "a storage elsewhere": hostile(tensor(storage(text("../../x"))), "damaged", "data/../../x"),
    "an absolute storage": hostile(tensor(storage(text("/etc/passwd"))), "damaged", "data//etc/passwd"),
    "a storage called by a number": hostile(tensor(storage(b"K\x00")), *_NO_SENSE),
    "a storage called by no end": hostile(tensor(storage(doubled(60))), *_NO_SENSE),
    "a storage of no end": hostile(tensor(doubled(60) + b"Q"), *_NO_SENSE),
    "a storage that is a text": hostile(tensor(text("abcde") + b"Q"), *_NO_SENSE),
    "no storage": hostile(tensor(b"N"), *_NO_SENSE),
    "another kind of reference": hostile(tensor(storage(word="module")), *_NO_SENSE),
    "a class that is no storage": hostile(tensor(storage(kind=b"ctorch\nSize\n")), *_NO_SENSE),
    "2^31 values": hostile(tensor(storage(count=b"J\xff\xff\xff\x7f")), "damaged", "8,589,934,588"),
    "-1 values": hostile(tensor(storage(count=b"J\xff\xff\xff\xff")), *_NO_SENSE),
    "2^1000 values": hostile(tensor(storage(count=b"\x8a\x7e" + bytes(125) + b"\x01")), "damaged", "data/0"),
    "True values": hostile(tensor(storage(count=b"\x88")), *_NO_SENSE),
    "an offset beyond": hostile(tensor(storage(), offset=b"K\x01"), "damaged", "tensor cls_token", "(1,)"),
    "an offset before": hostile(tensor(storage(), offset=b"J\xff\xff\xff\xff"), *_NO_SENSE),
    "a shape beyond": hostile(tensor(storage(), shape=b"K\x02\x85"), "damaged", "tensor cls_token", "(2,)"),
    "a shape of 2^31": hostile(tensor(storage(), shape=b"J\xff\xff\xff\x7f\x85"), "damaged", "(2147483647,)"),
    "a shape before": hostile(tensor(storage(), shape=b"J\xff\xff\xff\xff\x85"), *_NO_SENSE),
    "a shape of 2^62": hostile(tensor(storage(), shape=b"\x8a\x08" + struct.pack("<q", 2**62) + b"\x85"), *_NO_SENSE),
    "a shape without end": hostile(tensor(storage(), shape=doubled(60)), *_NO_SENSE),
    "a shape of 17 axes": hostile(
        tensor(storage(), b"K\x00", b"(" + b"K\x01" * 17 + b"t", b"(" + b"K\x01" * 17 + b"t"), *_NO_SENSE
    ),
    "a stride beyond": hostile(tensor(storage(), shape=b"K\x02\x85", strides=b"K\x09\x85"), "damaged", "tensor cls_token"),
    "a stride before": hostile(tensor(storage(), strides=b"J\xff\xff\xff\xff\x85"), *_NO_SENSE),
    "one value made many": hostile(tensor(storage(), shape=b"J\x00\x00\x00\x40\x85", strides=b"K\x00\x85"), "too-large"),
}  # fmt: skip

_SHARED = np.ones(100_000, np.float32)
# Pickles of no state dict, or of one that costs too much, for .pkl and .pth.
STRUCTURES = {
    "a dict in itself": hostile(b"\x80\x04}\x94" + text("model") + b"h\x00s.", "not-a-checkpoint"),
    "again": hostile(b"\x80\x04}\x94" + text("cls_token") + b"h\x00s.", "not-a-checkpoint", "cls_token"),
    "a list in itself": hostile(b"\x80\x04]\x94h\x00a.", "not-a-checkpoint", "list"),
    "deep lists": hostile(b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b".", "not-a-checkpoint", "list"),
    "deep tuples": hostile(b"\x80\x04" + b")" + b"\x85" * 900_000 + b".", "not-a-checkpoint", "tuple"),
    "itself in many places": hostile(
        b"\x80\x04}\x94" + b"".join(text(f"b{i}") + b"h\x00s" for i in range(100_000)) + b".", "too-large", "100,000"
    ),
    "many names": hostile(
        b"\x80\x04}" + b"".join(text(f"b.{i}") + b"Ns" for i in range(300_000)) + b".", "too-large", "300,000", "20,000"
    ),
}
# Files of MegEngine alone: in the others a pickle holds no arrays.
ARRAYS = {
    "a reference outside": hostile(dict_of(text("../../x") + b"Q"), "damaged"),
    "bytes shared by 40 tensors": hostile(pickle.dumps({f"t{i}": _SHARED for i in range(40)}, 4), "too-large"),
    "objects": hostile(pickle.dumps({"a": np.ones(3, "f4"), "b": np.array([{}])}, 4), "runs-code", "array b"),
    "strings": hostile(pickle.dumps({"a": np.ones(3, "f4"), "b": np.array(["a"])}, 4), "unsupported", "array b", "U1"),
    "a name for a terminal": hostile(pickle.dumps({"\x1b[2J": np.ones(3, "f4")}, 4), "damaged", r"'\x1b[2J'"),
    "a name of 1,000 letters": hostile(pickle.dumps({"a" * 1000: np.ones(3, "f4")}, 4), "damaged", "a" * 90),
    "an empty name": hostile(pickle.dumps({"": np.ones(3, "f4")}, 4), "damaged", "''"),
}
