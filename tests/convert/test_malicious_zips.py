"""Zip archives made to do harm, as .npz and .pth are. As test_malicious.py, under guard."""

import io
import struct
import zipfile

import numpy as np
import pytest
from test_malicious import assert_refused


def zipped(path, *entries, changed=lambda raw: raw):
    """A zip archive of (name, content, compression); `changed` may do something to its bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, compression in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    path.write_bytes(changed(path.read_bytes()))
    return path


ONES = np.ones(2, np.float32)


def npy(array, header=None):
    file = io.BytesIO()
    np.save(file, array)
    raw = file.getvalue()
    if header is None:
        return raw
    return raw[:8] + struct.pack("<H", len(header)) + header.encode() + bytes(array.nbytes)


def saying(offset, layout, *values):
    """Change numbers in the first entry of an archive's directory."""

    def change(raw):
        at = raw.index(b"PK\x01\x02") + offset
        return raw[:at] + struct.pack(layout, *values) + raw[at + struct.calcsize(layout) :]

    return change


def of_10_gb(raw):
    """Let the first entry claim 10 GB, as zip does it for large files: in an extra field."""
    at, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    extra = struct.pack("<HHQQ", 1, 16, 10**10, 10**10)
    entry = bytearray(raw[at:end])
    entry[20:28], entry[30:32] = b"\xff" * 8, struct.pack("<H", len(extra))
    size = struct.pack("<I", len(entry) + len(extra))
    return raw[:at] + bytes(entry) + extra + raw[end : end + 12] + size + raw[end + 16 :]


def of_many_entries(raw, count=600_000):
    at = raw.index(b"PK\x01\x02")
    entries = b"".join(raw[at : at + 46] + b"%05x" % i for i in range(count))
    start, large = at + len(entries), struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(entries), at)
    end_of_large = b"PK\x06\x06" + large + b"PK\x06\x07" + struct.pack("<IQI", 0, start, 1)
    return (
        raw[:at]
        + entries
        + end_of_large
        + b"PK\x05\x06"
        + struct.pack("<HHHHIIH", 0, 0, *[65535] * 2, *[2**32 - 1] * 2, 0)
    )


def overlapping(raw):
    """Let the second entry lie where the first one does."""
    second = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 4)
    return raw[: second + 42] + bytes(4) + raw[second + 46 :]


ONE = ("a.npy", npy(np.ones(2, np.float32)), zipfile.ZIP_STORED)
BOMB = ("b.npy", npy(np.zeros(10**8, np.int8)), zipfile.ZIP_DEFLATED)
SMALL_BOMB = ("a.npy", npy(np.zeros(10**7, np.int8)), zipfile.ZIP_DEFLATED)
AS_IT_IS = saying(0, "<4s", b"PK\x01\x02")
ZIPS = {
    "10 GB": ([ONE], of_10_gb, "claim more bytes than it has"),
    "4 GB": ([ONE], saying(24, "<I", 2**32 - 2), "cut off"),
    "a bomb": ([ONE, BOMB], AS_IT_IS, "no honest checkpoint: its .* bytes claim to unpack to 100,000,128"),
    "a bomb that hides": ([SMALL_BOMB], saying(24, "<I", 136), "is not there with all its values"),
    "an entry elsewhere": ([ONE], saying(42, "<I", 2**32 - 2), "not where the directory says|damaged or cut off"),
    "overlapping": ([ONE, ("b.npy", *ONE[1:])], overlapping, r"its entries a\.npy and b\.npy lie in one place"),
    "too many": ([ONE], of_many_entries, "directory is longer than 5,000,000 bytes"),
    "objects": ([("a.npy", npy(np.array([{}, None], object)), 0)], AS_IT_IS, "array a holds whole Python objects"),
    "a header of code": ([("a.npy", npy(ONES, "__import__('os').system('touch canary')"), 0)], AS_IT_IS, "no plain array"),
    "a header without end": ([("a.npy", npy(ONES, "(" * 9000), 0)], AS_IT_IS, "no plain array of numbers"),
    "a shape of 2^62": (
        [("a.npy", npy(ONES, f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, 4)}}"), 0)],
        AS_IT_IS,
        "is not there with all its values",
    ),
    "a record": ([("a.npy", npy(np.zeros(1, "f4,f4")), 0)], AS_IT_IS, "no plain array of numbers|makes no sense"),
    "a name that is none": ([("\x1b[2J.npy", ONE[1], 0)], AS_IT_IS, "which is no name"),
}  # fmt: skip


@pytest.mark.parametrize("name", ZIPS)
def test_zips(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries, changed, reason = ZIPS[name]
    assert_refused(zipped(tmp_path / "w.npz", *entries, changed=changed), reason)
    assert not (tmp_path / "canary").exists()


def test_a_compressed_pth_is_refused(tmp_path):
    entries = [("archive/data.pkl", bytes(10**8), zipfile.ZIP_DEFLATED)]
    assert_refused(zipped(tmp_path / "w.pth", *entries), "claim to unpack to 100,000,000")
    entries = [("archive/data.pkl", bytes(10**6), zipfile.ZIP_DEFLATED)]
    assert_refused(zipped(tmp_path / "w.pth", *entries), "is compressed or encrypted")
