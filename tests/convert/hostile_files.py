"""Files of the other formats made to do harm, as tables: lengths, offsets, paths and claims."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_seeds import state
from hostile_pickles import dict_of, hostile, storage, tensor, text

from polymae.convert.formats import FORMATS

# safetensors

SMALL = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
SCALAR_AT = {"dtype": "F32", "shape": [1]}


def safetensors(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def entry(**changed: Any) -> bytes:
    return safetensors({"a": {**SMALL, **changed}}, bytes(8))


def at(*places: tuple[int, int], size: int = 8) -> bytes:
    """Scalars t0, t1 ... at these places in a body of `size` bytes."""
    header = {f"t{i}": {"dtype": "F32", "shape": [1], "data_offsets": place} for i, place in enumerate(places)}
    return safetensors(header, bytes(size))


def called(name: str) -> bytes:
    return safetensors({name: SMALL}, bytes(8))


SOUND_SAFETENSORS = (entry(), at((0, 4), (4, 8)), at((4, 8), (0, 4)))
SAFETENSORS = {
    "two in one place": hostile(safetensors({"a": SMALL, "b": SMALL}, bytes(8)), "damaged", "b begins at byte 0"),
    "overlapping": hostile(
        safetensors({"a": SMALL, "b": {**SMALL, "data_offsets": [4, 12]}}, bytes(12)), "damaged", "b begins at byte 4"
    ),
    "a gap": hostile(entry(data_offsets=[8, 16]), "damaged", "a begins at byte 8"),
    "scalars in one place": hostile(at((0, 4), (0, 4)), "damaged", "t1 begins at byte 0"),
    "scalars that overlap": hostile(at((0, 4), (2, 6)), "damaged", "t1 begins at byte 2"),
    "an odd gap": hostile(at((0, 4), (5, 9)), "damaged", "t1 begins at byte 5"),
    "a whole gap": hostile(at((0, 4), (8, 12)), "damaged", "t1 begins at byte 8"),
    "one too long": hostile(at((0, 8), (8, 8)), "damaged", "t0", "needs 4 bytes"),
    "one before": hostile(at((-4, 0), (0, 4)), "damaged", "t0 begins at byte -4"),
    "bytes left over": hostile(safetensors({"a": SMALL}, bytes(9)), "damaged", "byte 8 of 9"),
    "bytes missing": hostile(safetensors({"a": SMALL}, bytes(7)), "truncated", "byte 8 of 7"),
    "a header beyond the file": hostile(safetensors({"a": SMALL}, bytes(8), 2**20), "truncated", "1,048,576"),
    "a header beyond all need": hostile(safetensors({"a": SMALL}, bytes(8), 2**26), "too-large", "67,108,864"),
    "a header of 2^63": hostile(safetensors({"a": SMALL}, bytes(8), 2**63), "not-a-checkpoint"),
    "offsets of 2^63": hostile(entry(data_offsets=[2**63, 2**63 + 8]), "damaged", "a begins at"),
    "offsets backwards": hostile(entry(data_offsets=[8, 0]), "damaged", "needs 8 bytes", "8 to 0"),
    "offsets before": hostile(entry(data_offsets=[-8, 0]), "damaged", "a begins at byte -8"),
    "a shape of 2^62": hostile(entry(shape=[2**62, 4]), "damaged", "[4611686018427387904, 4]"),
    "a shape of 2^62 in no bytes": hostile(entry(shape=[2**62, 4], data_offsets=[0, 0]), "damaged", "[4611686018427387904, 4]"),
    "a shape below 0": hostile(entry(shape=[-2, -1]), "damaged", "[-2, -1]"),
    "a shape with 0": hostile(entry(shape=[2**62, 2**62, 0], data_offsets=[0, 0]), "damaged", "4611686018427387904, 0]"),
    "a shape of texts": hostile(entry(shape=["2"]), "damaged", "['2']"),
    "a dtype of its own": hostile(entry(dtype="F128"), "damaged", "'F128'"),
    "an entry that is none": hostile(safetensors({"a": [1]}, bytes(8)), "damaged", "entry of a"),
    "a name twice": hostile(safetensors(b'{"a":' + json.dumps(SMALL).encode() + b',"a":{}}', bytes(8)), "damaged", "twice"),
    "nested without end": hostile(safetensors(b'{"a":' + b"[" * 1_000_000), "damaged", "JSON"),
    "nested from the start": hostile(safetensors(b"{" + b"[" * 200_000), "damaged", "JSON"),
    "a number without end": hostile(safetensors(b'{"a":' + b"1" * 1_000_000 + b"}"), "damaged", "JSON"),
    "UTF-16": hostile(safetensors('{"a":{}}'.encode("utf-16-le")), "damaged", "JSON"),
    "no text": hostile(safetensors(b'{"\xff":{}}'), "damaged", "JSON"),
    "too many": hostile(
        safetensors({f"blocks.{i}.norm1.weight": {**SCALAR_AT, "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)}),
        "too-large", "50,000", "20,000",
    ),
    "one too many": hostile(
        safetensors({f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)}),
        "too-large", "20,001",
    ),
    "a name for a terminal": hostile(called("\x1b[2J"), "damaged", r"'\x1b[2J'"),
    "a name of 1,000 letters": hostile(called("a" * 1000), "damaged", "a" * 90),
    "a name in no encoding": hostile(called("\ud800"), "damaged", r"'\ud800'"),
    "an empty name": hostile(called(""), "damaged", "''"),
}  # fmt: skip

# MindSpore's messages


def number(value: int) -> bytes:
    raw = bytearray()
    while value > 0x7F:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*raw, value])


def message(field: int, content: bytes) -> bytes:
    return number(field << 3 | 2) + number(len(content)) + content


def mindspore(tensor: bytes, tag: bytes = b"cls_token") -> bytes:
    return message(1, message(1, tag) + message(2, tensor))


FLOATS = message(2, b"Float32") + message(3, bytes(8))
SOUND_MINDSPORE = mindspore(b"\x08\x02" + FLOATS)
MINDSPORE = {
    "a length of 2^63": hostile(b"\x0a" + number(2**63), "truncated"),
    "a length of 2^63 with more": hostile(b"\x0a" + b"\xff" * 9 + b"\x01" + b"\x0a\x01a", "truncated"),
    "a length of 2^63 inside": hostile(mindspore(b"\x1a" + number(2**63)), "truncated"),
    "a number without end": hostile(b"\x0a" + b"\xff" * 50, "damaged"),
    "a group": hostile(b"\x0a\x02\x0b\x0c", "damaged", "unknown kind 3"),
    "fixed sizes": hostile(b"\x0a\x02\x0d\x00", "damaged", "unknown kind 5"),
    "2^63 values": hostile(mindspore(b"\x08" + number(2**63) + FLOATS), "damaged", "(9223372036854775808,)"),
    "-1 values": hostile(mindspore(b"\x08" + number(2**64 - 1) + FLOATS), "damaged", "(18446744073709551615,)"),
    "2^32 by 2^32 values": hostile(mindspore((b"\x08" + number(2**32)) * 2 + FLOATS), "damaged", "(4294967296, 4294967296)"),
    "17 axes": hostile(mindspore(b"\x08\x01" * 17 + FLOATS), "damaged", "17 dimensions"),
    "packed axes": hostile(mindspore(message(1, b"\x01" * 100_000) + FLOATS), "damaged", "dimensions"),
    "more values than bytes": hostile(mindspore(b"\x08\x03" + FLOATS), "damaged", "8 bytes, not 12"),
    "twice": hostile(SOUND_MINDSPORE * 2, "damaged", "cls_token"),
    "a dtype of its own": hostile(mindspore(b"\x08\x02" + message(2, b"Float8")), "unsupported", "cls_token", "'Float8'"),
    "four bits": hostile(mindspore(b"\x08\x02" + message(2, b"Int4") + message(3, b"\0")), "unsupported", "'Int4'"),
    "no name": hostile(b"\x0a\x02\x12\x00", "damaged"),
    "no name 300,000 times": hostile(b"\x0a\x00" * 300_000, "damaged"),
    "too many fields": hostile(b"\x0a\x03\x0a\x01a" * 110_000, "too-large", "200,000"),
    "a wrong checksum": hostile(SOUND_MINDSPORE + b"crc_num" + bytes(10), "checksum"),
}  # fmt: skip

# Zip archives, as .npz and .pth are

Entry = tuple[str, bytes, int]
ONES = np.ones(2, np.float32)


def zipped(*entries: Entry) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content, compression in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


def npy(array: np.ndarray[Any, Any], header: str | None = None) -> bytes:
    """An array's file; header: another description of it."""
    file = io.BytesIO()
    np.save(file, array)
    raw = file.getvalue()
    if header is None:
        return raw
    return raw[:8] + struct.pack("<H", len(header)) + header.encode() + bytes(array.nbytes)


def described(header: str) -> bytes:
    """An archive of one array with this description."""
    return zipped(("a.npy", npy(ONES, header), zipfile.ZIP_STORED))


def shaped(shape: str, descr: str = "'<f4'") -> bytes:
    return described(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")


def flipped(raw: bytes) -> bytes:
    """With one bit in the middle changed."""
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


def saying(raw: bytes, offset: int, value: int) -> bytes:
    """With another number in the first entry of the archive's directory."""
    where = raw.index(b"PK\x01\x02") + offset
    return raw[:where] + struct.pack("<I", value) + raw[where + 4 :]


def of_10_gb(raw: bytes) -> bytes:
    """Let the first entry claim 10 GB, as zip does it for large files: in an extra field."""
    start, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    extra = struct.pack("<HHQQ", 1, 16, 10**10, 10**10)
    first = bytearray(raw[start:end])
    first[20:28], first[30:32] = b"\xff" * 8, struct.pack("<H", len(extra))
    size = struct.pack("<I", len(first) + len(extra))
    return raw[:start] + bytes(first) + extra + raw[end : end + 12] + size + raw[end + 16 :]


def of_many_entries(raw: bytes, count: int = 600_000) -> bytes:
    begin = raw.index(b"PK\x01\x02")
    entries = b"".join(raw[begin : begin + 46] + b"%05x" % i for i in range(count))
    start, large = begin + len(entries), struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(entries), begin)
    end_of_large = b"PK\x06\x06" + large + b"PK\x06\x07" + struct.pack("<IQI", 0, start, 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, *[65535] * 2, *[2**32 - 1] * 2, 0)
    return raw[:begin] + entries + end_of_large + end


def overlapping(raw: bytes) -> bytes:
    """Let the second entry lie where the first one does."""
    second = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 4)
    return raw[: second + 42] + bytes(4) + raw[second + 46 :]


def listed_twice(raw: bytes) -> bytes:
    """The same bytes as two entries, by a second line in the directory."""
    start, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    line = raw[start:end]
    ending = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 2, 2, 2 * len(line), start, 0)
    return raw[:start] + line + line.replace(b"a.npy", b"b.npy") + ending


def packed(name: str, content: bytes) -> bytes:
    return zipped((name, content, zipfile.ZIP_DEFLATED))


ONE = ("a.npy", npy(ONES), zipfile.ZIP_STORED)
LARGER = zipped(("a.npy", npy(np.ones((400, 10), np.float32)), zipfile.ZIP_STORED))
_SMALL_PACKED = packed("a.npy", npy(np.zeros(1000, np.int8)))
SOUND_NPZ = (zipped(ONE), LARGER, _SMALL_PACKED, shaped("(2,)"))
NPZ = {
    "10 GB": hostile(of_10_gb(zipped(ONE)), "too-large"),
    "4 GB": hostile(saying(zipped(ONE), 24, 2**32 - 2), "truncated", "a.npy"),
    "a bomb": hostile(
        zipped(ONE, ("b.npy", npy(np.zeros(10**8, np.int8)), zipfile.ZIP_DEFLATED)), "too-large", "100,000,128"
    ),
    "a larger bomb": hostile(packed("a.npy", npy(np.zeros(2 * 10**8, np.int8))), "too-large", "200,000,128"),
    "a bomb that hides": hostile(saying(packed("a.npy", npy(np.zeros(10**7, np.int8))), 24, 136), "damaged", "array a"),
    "a small one that says it is large": hostile(saying(_SMALL_PACKED, 24, 10**7), "damaged", "array a"),
    "listed twice": hostile(listed_twice(LARGER), "too-large"),
    "an entry elsewhere": hostile(saying(zipped(ONE), 42, 2**32 - 2), "damaged"),
    "overlapping": hostile(overlapping(zipped(ONE, ("b.npy", *ONE[1:]))), "damaged", "a.npy", "b.npy"),
    "too many": hostile(of_many_entries(zipped(ONE)), "too-large", "5,000,000"),
    "a flipped bit": hostile(flipped(LARGER), "checksum", "a.npy"),
    "objects": hostile(zipped(("a.npy", npy(np.array([{}, None], object)), 0)), "runs-code", "array a"),
    "objects in name": hostile(shaped("(2,)", "'|O'"), "runs-code", "array a"),
    "complex numbers": hostile(shaped("(1,)", "'<c8'"), "unsupported", "array a", "c8"),
    "a header of code": hostile(described("__import__('os').system('touch canary')"), "damaged", "array a"),
    "a header without end": hostile(described("(" * 9000), "damaged", "array a"),
    "a shorter one": hostile(described("(" * 5000), "damaged", "array a"),
    "a shape of 2^62": hostile(shaped(f"({2**62}, 4)"), "damaged", "array a"),
    "a shape of 2^64 by two": hostile(shaped("(4000000000, 4000000000)"), "damaged", "array a"),
    "a shape to compute": hostile(shaped("(9**9**9,)"), "damaged", "array a"),
    "a shape below 0": hostile(shaped("(-1,)"), "damaged", "array a"),
    "no order": hostile(described("{'descr': '<f4', 'shape': (2,), }"), "damaged", "array a"),
    "a record": hostile(zipped(("a.npy", npy(np.zeros(1, "f4,f4")), 0)), "damaged", "array a"),
    "a record in name": hostile(shaped("(1,)", "[('a', '<f4')]"), "damaged", "array a"),
    "a name that is none": hostile(zipped(("\x1b[2J.npy", ONE[1], 0)), "damaged", r"'\x1b[2J'"),
}  # fmt: skip
_STORED = tensor(storage(count=b"M\xa0\x0f"), shape=b"M\xa0\x0f\x85")  # 4,000 values in data/0
SOUND_PTH = zipped(("archive/data.pkl", dict_of(_STORED), 0), ("archive/data/0", np.ones(4000, "f4").tobytes(), 0))
PTH = {
    "a flipped bit": hostile(flipped(SOUND_PTH), "checksum", "archive/data/0"),
    "a storage that is not there": hostile(zipped(("archive/data.pkl", dict_of(_STORED), 0)), "damaged", "data/0"),
    "packed": hostile(packed("archive/data.pkl", b"\x80\x02}."), "unsupported", "data.pkl"),
    "packed, 1 MB": hostile(packed("archive/data.pkl", bytes(10**6)), "unsupported", "data.pkl"),
    "a bomb": hostile(packed("archive/data.pkl", bytes(10**8)), "too-large", "100,000,000"),
    "another program's": hostile(zipped(("readme.txt", b"hello", 0)), "not-a-checkpoint"),
}

TABLES = {
    "w.safetensors": (SAFETENSORS, SOUND_SAFETENSORS),
    "w.ckpt": (MINDSPORE, (SOUND_MINDSPORE,)),
    "w.npz": (NPZ, SOUND_NPZ),
    "w.pth": (PTH, (SOUND_PTH,)),
}

# OneFlow's folders


def oneflow_folder(
    folder: Path, path: str = "tensor_0", meta: str = "shape {\n  dim: 2\n}\ndata_type: kFloat\n"
) -> Path:
    """A folder of one tensor, which its pickle says is at `path`."""
    one = b"coneflow\nTensor\n)\x81}" + text("path") + text(path) + b"sb"
    pickled = b"\x80\x04}" + text("protocol_version") + b"K\x01s" + text("data") + dict_of(one)[2:-1] + b"s."
    (folder / "tensor_0").mkdir(parents=True)
    (folder / "pickled_data").write_bytes(pickled)
    (folder / "tensor_0" / "meta").write_text(meta)
    (folder / "tensor_0" / "out").write_bytes(bytes(8))
    return folder


def leading_to(path: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        oneflow_folder(folder / "secret")
        return oneflow_folder(folder / "w", path)

    return make


def linked(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        made = oneflow_folder(folder / "w")
        (made / name).rename(folder / "elsewhere")
        (made / name).symlink_to(folder / "elsewhere")
        return made

    return make


def without_values(folder: Path) -> Path:
    made = oneflow_folder(folder / "w")
    (made / "tensor_0" / "out").unlink()
    return made


def waiting(folder: Path) -> Path:
    made = without_values(folder)
    os.mkfifo(made / "tensor_0" / "out")  # opening it would wait for ever
    return made


def with_meta(dims: str) -> Callable[[Path], Path]:
    return lambda folder: oneflow_folder(folder / "w", meta=f"shape {{ {dims} }} data_type: kFloat")


_PATHS = (
    "../../etc/x", "/etc/x", "..", ".", "", "tensor_0/../../x", "tensor_0\n", "a" * 5000, "../secret/tensor_0", "/etc", "a/b",
    "a\0b",
)  # fmt: skip

# Hugging Face's folders


def indexed(index: str | list[Any] | dict[str, Any]) -> Callable[[Path], Path]:
    """A folder of one file, and one outside of it; index: the text of its index, or its weight_map."""

    def make(folder: Path) -> Path:
        made = folder / "w"
        made.mkdir()
        FORMATS["safetensors"].write(folder / "secret.safetensors", state(), lambda done: None)
        FORMATS["safetensors"].write(made / "one.safetensors", state(), lambda done: None)
        (made / "link.safetensors").symlink_to(folder / "secret.safetensors")
        content = index if isinstance(index, str) else json.dumps({"weight_map": index})
        (made / "model.safetensors.index.json").write_text(content)
        return made

    return make


def whole_and_index(folder: Path) -> Path:
    made = indexed({"cls_token": "one.safetensors"})(folder)
    (made / "one.safetensors").rename(made / "model.safetensors")
    return made


ALL_IN_ONE = dict.fromkeys(state().tensors, "one.safetensors")
FOLDERS: dict[str, tuple[Callable[[Path], Path], str, tuple[str, ...]]] = {
    **{f"OneFlow, {path[:20]!r}": (leading_to(path), "incomplete", ()) for path in _PATHS},
    **{
        f"OneFlow, {name} linked": (linked(name), "incomplete", (name,))
        for name in ("tensor_0/out", "tensor_0/meta", "pickled_data")
    },
    "OneFlow, tensor_0 linked": (linked("tensor_0"), "incomplete", ("tensor_0/meta",)),
    "OneFlow, no values": (without_values, "incomplete", ("tensor_0/out",)),
    "OneFlow, a pipe": (waiting, "incomplete", ("tensor_0/out",)),
    "OneFlow, more values": (with_meta("dim: 3"), "truncated", ("8 bytes", "(3,)", "12")),
    "OneFlow, fewer values": (with_meta("dim: 1"), "damaged", ("8 bytes", "(1,)", "4")),
    "OneFlow, 10^36 values": (with_meta("dim: 999999999999999999 " * 2), "damaged", ("cls_token",)),
    "OneFlow, 18 axes": (with_meta("dim: 1 " * 17 + "dim: 2"), "damaged", ("cls_token",)),
    "OneFlow, -2 values": (with_meta("dim: -2"), "damaged", ("tensor_0/meta",)),
    **{
        f"an index, {name[:20]!r}": (indexed({"cls_token": name}), "incomplete", ())
        for name in ("../secret.safetensors", "/etc/passwd", "link.safetensors", "a\0b", ".", "none")
    },
    "an index to a number": (indexed({"cls_token": 3}), "damaged", ("index.json",)),
    "an index of a list": (indexed(["cls_token"]), "damaged", ("index.json",)),
    "an index of one of many": (indexed({"cls_token": "one.safetensors"}), "damaged", ("one.safetensors",)),
    "an index of one too many": (indexed({**ALL_IN_ONE, "more": "one.safetensors"}), "damaged", ("more",)),
    "an index of nothing": (indexed("{}"), "damaged", ("index.json",)),
    "an index that is a list": (indexed("[]"), "damaged", ("index.json",)),
    "an index that ends early": (indexed("["), "damaged", ("index.json",)),
    "an index without end": (indexed("[" * 100_000), "damaged", ("index.json",)),
    "a file and an index": (whole_and_index, "ambiguous", ("model.safetensors",)),
}
