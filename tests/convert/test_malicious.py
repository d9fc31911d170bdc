"""Pickles made to do harm: each is refused with its reason, by a reader under guard, and nothing else happens.

Under guard (guard.py): no code is run, nothing is imported, written or opened elsewhere; 2 s of CPU time, 256 MiB of memory.
"""

import pickle
import re
import struct
import zipfile

import pytest
from fuzz_seeds import CONFIG
from guard import refusal

from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.formats import FORMATS


def read(path):
    """All that a conversion reads."""
    checkpoint = open_checkpoint(path)
    checkpoint.weights(checkpoint.config or CONFIG)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def assert_refused(path, reason):
    message = refusal(path, read)
    assert str(path) in message
    assert len(message) < 2000
    assert re.search(reason, message), message


def dict_of(value):
    """A pickle of {"cls_token": value}."""
    return b"\x80\x04}" + text("cls_token") + value + b"s."


def doubled(times):
    """A tuple of two references to a tuple of two references and so on: tiny in the file, endless when it is printed."""
    pairs = [b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x940" for i in range(times)]
    return b")\x940" + b"".join(pairs) + b"h" + bytes([times])


def storage(key=b"X\x01\x00\x00\x000", kind=b"ctorch\nFloatStorage\n", count=b"K\x01", word="storage"):
    return b"(" + text(word) + kind + key + text("cpu") + count + b"tQ"


def tensor(inside, offset=b"K\x00", shape=b"K\x01\x85", strides=b"K\x01\x85"):
    arguments = b"(" + inside + offset + shape + strides + b"\x89ccollections\nOrderedDict\n)Rt"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


CALL = text("touch canary") + b"\x85R"
# Pickles, and why they are refused wherever a pickle may stand: .pkl, .pth of both generations, OneFlow's folder.
EVERYWHERE = {
    "os.system": (dict_of(b"cos\nsystem\n" + CALL), r"refused to load os\.system\. .*nothing in it was run"),
    "posix.system": (dict_of(b"cposix\nsystem\n" + CALL), r"refused to load posix\.system \(os\.system\)"),
    "eval": (dict_of(b"cbuiltins\neval\n" + CALL), r"refused to load builtins\.eval"),
    "nested reduce": (
        dict_of(b"ccollections\nOrderedDict\n(ccollections\nOrderedDict\n(c__builtin__\ngetattr\n" + CALL + b"tRtR"),
        r"refused to load __builtin__\.getattr \(builtins\.getattr\)",
    ),
    "unused": (b"\x80\x04cos\nsystem\n" + CALL + b"0}.", r"refused to load os\.system"),
    "in the memo": (b"\x80\x04" + text("os") + b"\x94" + text("system") + b"\x940h\x00h\x01\x93.", r"refused to load os\.system"),
    "STACK_GLOBAL of no texts": (dict_of(b"K\x01K\x02\x93"), "a name in it is not text"),
    "an attribute of something allowed": (
        dict_of(text("collections") + text("OrderedDict.fromkeys.__globals__") + b"\x93"),
        r"refused to load collections\.OrderedDict\.fromkeys\.__globals__",
    ),
    "a submodule instead": (dict_of(b"ccollections.abc\nOrderedDict\n"), r"refused to load collections\.abc\.OrderedDict"),
    "BUILD of a name": (dict_of(b"ccollections\nOrderedDict\n}b"), "fills something that cannot be filled"),
    "calling a value": (dict_of(text("print") + b")R"), "from what is not a name"),
    "INST": (dict_of(b"(S'x'\nios\nsystem\n"), "opcode 0x53 is not one"),
    "INST alone": (dict_of(b"(ios\nsystem\n"), "opcode 0x69 is not one"),
    "OBJ": (dict_of(b"(ccollections\nOrderedDict\no"), "opcode 0x6f is not one"),
    "NEWOBJ_EX": (dict_of(b"ccollections\nOrderedDict\n)}\x92"), "opcode 0x92 is not one"),
    "EXT1": (dict_of(b"\x82\x01"), "opcode 0x82 is not one"),
    "EXT4": (dict_of(b"\x84\x01\x00\x00\x00"), "opcode 0x84 is not one"),
    "PERSID": (dict_of(b"P../../x\n"), "opcode 0x50 is not one"),
    "a memo index of nothing": (dict_of(b"j\xff\xff\xff\xff"), "refers to a value that is not there"),
    "LONG4": (dict_of(b"\x8b\xff\xff\xff\x7f"), "opcode 0x8b is not one"),
    "a text of 2^32 bytes": (dict_of(b"X\xff\xff\xff\xff"), "ends too early"),
    "bytes of 2^63": (dict_of(b"\x8e" + struct.pack("<Q", 2**63)), "ends too early"),
    "a name without end": (dict_of(b"c" + b"a" * 300), "a name in it has no end"),
    "a tuple as a key": (b"\x80\x04}))s.", "a key in it is a tuple"),
    "too many steps": (b"\x80\x04" + b"}0" * 600_000 + b"}.", "more than 1,000,000 steps"),
    "no end": (b"\x80\x04}", "ends too early|more than one value"),
}  # fmt: skip


def pkl(folder, pickled):
    (folder / "w.pkl").write_bytes(pickled)
    return folder / "w.pkl"


def pth(folder, pickled, **entries):
    with zipfile.ZipFile(folder / "w.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return folder / "w.pth"


def pth_legacy(folder, pickled):
    start = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    (folder / "w.pt").write_bytes(start + pickled + pickle.dumps([], 2))
    return folder / "w.pt"


def oneflow(folder, pickled):
    (folder / "w").mkdir()
    (folder / "w" / "pickled_data").write_bytes(pickled)
    return folder / "w"


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("put", [pkl, pth, pth_legacy, oneflow])
def test_pickles(put, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled, reason = EVERYWHERE[name]
    path = put(tmp_path, pickled)
    assert_refused(path, reason)
    assert not (tmp_path / "canary").exists()


# Tensors' records, and why a .pth with them is refused. Its storage data/0 has one value.
RECORDS = {
    "a storage elsewhere": (tensor(storage(text("../../x"))), r"entry data/\.\./\.\./x is not there"),
    "an absolute storage": (tensor(storage(text("/etc/passwd"))), "entry data//etc/passwd is not there"),
    "a storage called by a number": (tensor(storage(b"K\x00")), "its record makes no sense"),
    "a storage called by no end": (tensor(storage(doubled(60))), "its record makes no sense"),
    "a storage of no end": (tensor(doubled(60) + b"Q"), "its record makes no sense"),
    "a storage that is a text": (tensor(text("abcde") + b"Q"), "its record makes no sense"),
    "no storage": (tensor(b"N"), "its record makes no sense"),
    "another kind of reference": (tensor(storage(word="module")), "its record makes no sense"),
    "a class that is no storage": (tensor(storage(kind=b"ctorch\nSize\n")), "its record makes no sense"),
    "2^31 values": (tensor(storage(count=b"J\xff\xff\xff\x7f")), "8,589,934,588 bytes that its tensors need"),
    "-1 values": (tensor(storage(count=b"J\xff\xff\xff\xff")), "its record makes no sense"),
    "2^1000 values": (tensor(storage(count=b"\x8a\x7e" + bytes(125) + b"\x01")), "bytes that its tensors need"),
    "True values": (tensor(storage(count=b"\x88")), "its record makes no sense"),
    "an offset beyond": (tensor(storage(), offset=b"K\x01"), r"does not fit in its storage of 1 values"),
    "an offset before": (tensor(storage(), offset=b"J\xff\xff\xff\xff"), "its record makes no sense"),
    "a shape of 2^62": (tensor(storage(), shape=b"\x8a\x08" + struct.pack("<q", 2**62) + b"\x85"), "makes no sense"),
    "a shape without end": (tensor(storage(), shape=doubled(60)), "its record makes no sense"),
    "a shape of 17 axes": (tensor(storage(), b"K\x00", b"(" + b"K\x01" * 17 + b"t", b"(" + b"K\x01" * 17 + b"t"), "no sense"),
    "a stride beyond": (tensor(storage(), shape=b"K\x02\x85", strides=b"K\x01\x85"), "does not fit in its storage"),
    "a stride before": (tensor(storage(), strides=b"J\xff\xff\xff\xff\x85"), "its record makes no sense"),
    "one value made many": (tensor(storage(), shape=b"J\x00\x00\x00\x40\x85", strides=b"K\x00\x85"), "no honest checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_records_of_tensors(name, tmp_path):
    record, reason = RECORDS[name]
    sound = pth(tmp_path, dict_of(tensor(storage())), **{"data/0": bytes(4)})
    assert FORMATS["pth"].read(sound).tensors["cls_token"].shape == (1,)
    assert_refused(pth(tmp_path, dict_of(record), **{"data/0": bytes(4)}), reason)


def test_references_where_there_is_nothing_outside(tmp_path):
    assert_refused(pkl(tmp_path, dict_of(text("../../x") + b"Q")), "refers to something outside the file")


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (b"\x80\x04}\x94" + text("model") + b"h\x00s.", "holds no tensors, only"),
        (b"\x80\x04}\x94" + text("cls_token") + b"h\x00s.", "holds no tensors, only cls_token"),
        (b"\x80\x04]\x94h\x00a.", "no dict of tensors but a single list"),
        (b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b".", "no dict of tensors but a single list"),
        (b"\x80\x04" + b")" + b"\x85" * 900_000 + b".", "no dict of tensors but a single tuple"),
        (  # a dict that holds itself 100,000 times
            b"\x80\x04}\x94" + b"".join(text(f"b{i}") + b"h\x00s" for i in range(100_000)) + b".",
            "lists 100,000 tensors",
        ),
        (
            b"\x80\x04}" + b"".join(text(f"b.{i}") + b"Ns" for i in range(300_000)) + b".",
            "lists 300,000 tensors; models have up to 20,000",
        ),
    ],
    ids=[
        "a dict in itself",
        "again",
        "a list in itself",
        "deep lists",
        "deep tuples",
        "itself in many places",
        "many names",
    ],
)
def test_structures_without_end(pickled, reason, tmp_path):
    assert_refused(pkl(tmp_path, pickled), reason)
    assert_refused(pth(tmp_path, pickled), reason)
