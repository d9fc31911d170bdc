"""Files of the other formats made to do harm: lengths, offsets, paths and claims. As test_malicious.py, under guard."""

import json
import struct
from dataclasses import replace

import pytest
from fuzz_seeds import CONFIG, state
from test_malicious import assert_refused, dict_of, text

from polymae.convert.formats import FORMATS
from polymae.convert.provenance import Provenance

SMALL = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def safetensors(header, body=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def entry(**changed):
    return safetensors({"a": {**SMALL, **changed}}, bytes(8))


SAFETENSORS = {
    "two in one place": (safetensors({"a": SMALL, "b": SMALL}, bytes(8)), "b begins at byte 0, not where the tensor before"),
    "overlapping": (safetensors({"a": SMALL, "b": {**SMALL, "data_offsets": [4, 12]}}, bytes(12)), "b begins at byte 4, not"),
    "a gap": (safetensors({"a": {**SMALL, "data_offsets": [8, 16]}}, bytes(16)), "a begins at byte 8, not"),
    "bytes left over": (safetensors({"a": SMALL}, bytes(9)), "tensors end at byte 8 of 9"),
    "a header beyond the file": (safetensors({"a": SMALL}, bytes(8), 2**26), "header of 67,108,864 bytes does not fit"),
    "a header of 2^63": (safetensors({"a": SMALL}, bytes(8), 2**63), "none of the known formats"),
    "offsets of 2^63": (entry(data_offsets=[2**63, 2**63 + 8]), "not where the tensor before it ends"),
    "offsets backwards": (entry(data_offsets=[8, 0]), r"needs 8 bytes, its place is 8 to 0"),
    "offsets before": (entry(data_offsets=[-8, 0]), "a begins at byte -8"),
    "a shape of 2^62": (entry(shape=[2**62, 4]), r"a of shape \[4611686018427387904, 4\] needs"),
    "a shape below 0": (entry(shape=[-2, -1]), r"a of shape \[-2, -1\] needs"),
    "a shape with 0": (entry(shape=[2**62, 2**62, 0], data_offsets=[0, 0]), "needs"),
    "a shape of texts": (entry(shape=["2"]), "a of shape"),
    "a dtype of its own": (entry(dtype="F128"), "a has dtype 'F128', known are F32"),
    "an entry that is none": (safetensors({"a": [1]}, bytes(8)), "the entry of a makes no sense"),
    "a name twice": (safetensors(b'{"a":' + json.dumps(SMALL).encode() + b',"a":{}}', bytes(8)), "a name appears twice"),
    "nested without end": (safetensors(b'{"a":' + b"[" * 1_000_000), "header is not JSON"),
    "a number without end": (safetensors(b'{"a":' + b"1" * 1_000_000 + b"}"), "header is not JSON"),
    "UTF-16": (safetensors('{"a":{}}'.encode("utf-16-le")), "header is not JSON"),
    "too many": (
        safetensors({f"blocks.{i}.norm1.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)}),
        "lists 50,000 tensors; models have up to 20,000",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors(name, tmp_path):
    content, reason = SAFETENSORS[name]
    (tmp_path / "w.safetensors").write_bytes(content)
    assert_refused(tmp_path / "w.safetensors", reason)


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"cls_token": "../secret.safetensors"}, r"names \.\./secret\.safetensors, which is no file inside it"),
        ({"cls_token": "/etc/passwd"}, "names /etc/passwd, which is no file inside it"),
        ({"cls_token": "link.safetensors"}, r"names link\.safetensors, which is no file inside it"),
        ({"cls_token": "a\0b"}, "which is no file inside it"),
        ({"cls_token": "."}, "which is no file inside it"),
        ({"cls_token": 3}, "maps no tensors to files"),
        (["cls_token"], "maps no tensors to files"),
        ({"cls_token": "one.safetensors"}, "is damaged: one.safetensors holds"),
    ],
)
def test_an_index_stays_inside_its_folder(weight_map, reason, tmp_path):
    folder = tmp_path / "w"
    folder.mkdir()
    FORMATS["safetensors"].write(tmp_path / "secret.safetensors", state(), lambda done: None)
    FORMATS["safetensors"].write(folder / "one.safetensors", state(), lambda done: None)
    (folder / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_refused(folder, reason)


def oneflow_tensor(path):
    return b"coneflow\nTensor\n)\x81}" + text("path") + text(path) + b"sb"


def oneflow(folder, path, meta="shape {\n  dim: 2\n}\ndata_type: kFloat\n", name="tensor_0"):
    pickled = (
        b"\x80\x04}" + text("protocol_version") + b"K\x01s" + text("data") + dict_of(oneflow_tensor(path))[2:-1] + b"s."
    )
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "pickled_data").write_bytes(pickled)
    (folder / name / "meta").write_text(meta)
    (folder / name / "out").write_bytes(bytes(8))


@pytest.mark.parametrize("path", ["../../etc/x", "/etc/x", "..", ".", "", "tensor_0/../../x", "tensor_0\n", "a" * 5000])
def test_oneflow_paths(path, tmp_path):
    oneflow(tmp_path / "w", path)
    assert_refused(tmp_path / "w", "cls_token has no folder of its own|is not there, or lies elsewhere")


@pytest.mark.parametrize("linked", ["tensor_0", "tensor_0/out", "tensor_0/meta", "pickled_data"])
def test_oneflow_links_out_of_the_folder(linked, tmp_path):
    oneflow(tmp_path / "w", "tensor_0")
    (tmp_path / "w" / linked).rename(tmp_path / "elsewhere")
    (tmp_path / "w" / linked).symlink_to(tmp_path / "elsewhere")
    assert_refused(tmp_path / "w", "is not there, or lies elsewhere")


@pytest.mark.parametrize(
    "dims", ["dim: 999999999999999999 dim: 999999999999999999", "dim: 1 " * 17 + "dim: 2", "dim: -2", "dim: 3"]
)
def test_oneflow_shapes(dims, tmp_path):
    oneflow(tmp_path / "w", "tensor_0", f"shape {{ {dims} }} data_type: kFloat")
    assert_refused(tmp_path / "w", "does not describe a tensor|has 8 bytes, cls_token of shape")


def number(value):
    raw = bytearray()
    while value > 0x7F:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*raw, value])


def message(field, content):
    return number(field << 3 | 2) + number(len(content)) + content


def mindspore(tensor, tag=b"cls_token"):
    return message(1, message(1, tag) + message(2, tensor))


FLOATS = message(2, b"Float32") + message(3, bytes(8))
MINDSPORE = {
    "a length of 2^63": (b"\x0a" + number(2**63), "ends too early"),
    "a length of 2^63 inside": (mindspore(b"\x1a" + number(2**63)), "ends too early"),
    "a number without end": (b"\x0a" + b"\xff" * 50, "a number in it has no end"),
    "a group": (b"\x0a\x02\x0b\x0c", "a field of unknown kind 3"),
    "fixed sizes": (b"\x0a\x02\x0d\x00", "a field of unknown kind 5"),
    "2^63 values": (mindspore(b"\x08" + number(2**63) + FLOATS), "has shape"),
    "-1 values": (mindspore(b"\x08" + number(2**64 - 1) + FLOATS), "has shape"),
    "2^32 by 2^32 values": (mindspore((b"\x08" + number(2**32)) * 2 + FLOATS), "has shape"),
    "17 axes": (mindspore(b"\x08\x01" * 17 + FLOATS), "has 17 dimensions"),
    "packed axes": (mindspore(message(1, b"\x01" * 100_000) + FLOATS), "dimensions"),
    "more values than bytes": (mindspore(b"\x08\x03" + FLOATS), "has 8 bytes, not 12"),
    "twice": (mindspore(b"\x08\x02" + FLOATS) * 2, "cls_token is there twice"),
    "a dtype of its own": (mindspore(b"\x08\x02" + message(2, b"Float8")), "cls_token has dtype 'Float8'"),
    "no name": (b"\x0a\x02\x12\x00", "a value in it has no name"),
    "too many fields": (b"\x0a\x00" * 300_000, "a value in it has no name|more than 200,000 fields"),
    "a wrong checksum": (mindspore(b"\x08\x02" + FLOATS) + b"crc_num" + bytes(10), "its checksum is wrong"),
}  # fmt: skip


@pytest.mark.parametrize("name", MINDSPORE)
def test_mindspore(name, tmp_path):
    content, reason = MINDSPORE[name]
    (tmp_path / "w.ckpt").write_bytes(content)
    assert_refused(tmp_path / "w.ckpt", reason)


@pytest.mark.parametrize(
    "config",
    [
        {"depth": 10**9}, {"decoder_depth": 2**63}, {"embed_dim": 2**63}, {"img_size": [10**9, 10**9]}, {"depth": -1},
        {"depth": "1"}, {"mlp_ratio": 1e308}, {"mlp_ratio": float("nan")}, {"in_chans": True}, {"kind": "os.system"},
    ],
    ids=str,
)  # fmt: skip
def test_provenance_that_lies(config, tmp_path):
    """What a file says of its model costs nothing before it is checked against the tensors."""
    said = json.loads(Provenance("0" * 64, "polymae", CONFIG).text())
    said["config"].update(config)
    path = tmp_path / "w.safetensors"
    FORMATS["safetensors"].write(path, replace(state(), metadata={"polymae": json.dumps(said)}), lambda done: None)
    assert_refused(path, "provenance|does not fit")
