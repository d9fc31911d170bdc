"""Zip archives of arrays: entries read in place, written aligned, without dates."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

from ...files.errors import Code
from ..tensors import CheckpointProblem, map_file
from .checks import MOST_TENSORS, bounded_count, shown

_HEADER = 30  # bytes in front of an entry's name
_ALIGNMENT = 64  # bytes, as torch.save and numpy.save: lets the values be used in place
_LONGEST_DIRECTORY = 250 * MOST_TENSORS  # bytes
# Weights hardly compress. A file that grows beyond this was made to fill the memory.
_SMALL, _MOST_GROWTH = 64 * 1024 * 1024, 16


class _TooLong(zipfile.BadZipFile):
    """A directory of more entries than a checkpoint has."""


class _Bounded(io.FileIO):
    """A file for zipfile, which takes the directory at once: no longer one than a checkpoint's."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LONGEST_DIRECTORY:
            raise _TooLong(f"its directory is longer than {_LONGEST_DIRECTORY:,} bytes")
        return super().read(size)


class Archive:
    """An opened zip archive. Raises CheckpointProblem for a damaged one, here and when an entry is read."""

    def __init__(self, path: Path, kind: str):
        self.path, self.kind, self.data = path, kind, map_file(path)
        self.sound: set[str] = set()  # entries whose checksum is right
        try:
            with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, OverflowError, NotImplementedError, struct.error) as problem:
            raise CheckpointProblem(
                f"{path} is a damaged or cut off {kind} file ({len(self.data):,} bytes; {problem}). Download or copy it "
                "again and compare its size.",
                code="too-large" if isinstance(problem, _TooLong) else "damaged",
            ) from None
        self.entries = {entry.filename: entry for entry in entries}
        if len(self.entries) != len(entries):
            raise self.damaged("an entry is in it twice")
        bounded_count(len(entries), str(path))
        if sum(entry.compress_size for entry in entries) > len(self.data):
            raise self.damaged("its entries claim more bytes than it has", "too-large")
        ordered = sorted(entries, key=lambda entry: entry.header_offset)
        for entry, after in pairwise(ordered):
            if entry.header_offset + _HEADER + entry.compress_size > after.header_offset:
                raise self.damaged(f"its entries {shown(entry.filename)} and {shown(after.filename)} lie in one place")
        packed = sum(entry.file_size for entry in entries if entry.compress_type != zipfile.ZIP_STORED)
        if packed > _SMALL + _MOST_GROWTH * len(self.data):
            raise CheckpointProblem(
                f"{path} is no honest checkpoint: its {len(self.data):,} bytes claim to unpack to {packed:,}.",
                code="too-large",
            )

    def damaged(self, why: str, code: Code = "damaged") -> CheckpointProblem:
        """The exception with this sentence about the file."""
        return CheckpointProblem(
            f"{self.path} is a damaged {self.kind} file: {why}. Download or copy it again.", code=code
        )

    def entry(self, name: str, deflated: bool = False, start: int | None = None) -> memoryview:
        """An entry's bytes: in place, or inflated if that is allowed. start: only so many, with no checksum."""
        info = self.entries.get(name)
        if info is None:
            raise self.damaged(f"its entry {name} is missing")
        stored = info.compress_type == zipfile.ZIP_STORED
        if info.flag_bits & 1 or not (stored or (deflated and info.compress_type == zipfile.ZIP_DEFLATED)):
            raise CheckpointProblem(
                f"{self.path}: its entry {name} is compressed or encrypted, as no {self.kind} file is. Save it again.",
                code="unsupported",
            )
        # The header in front of the data repeats the name and has padding of its own length.
        at = info.header_offset
        header = bytes(self.data[at : at + _HEADER]) if at >= 0 else b""
        if len(header) < _HEADER or not header.startswith(b"PK\x03\x04"):
            raise self.damaged(f"its entry {name} is not where the directory says")
        begin = at + _HEADER + sum(struct.unpack("<HH", header[26:]))
        if begin + info.compress_size > len(self.data) or (stored and info.file_size != info.compress_size):
            raise self.damaged(f"its entry {name} is cut off", "truncated")
        data = self.data[begin : begin + info.compress_size]
        if not stored:
            data = self._inflate(name, data, info.file_size if start is None else min(start, info.file_size), start)
        if start is not None:
            return data[:start]
        # A checksum of 0 means that torch saved none.
        if info.CRC and name not in self.sound and zlib.crc32(data) != info.CRC:
            raise self.damaged(f"the checksum of its entry {name} is wrong", "checksum")
        self.sound.add(name)
        return data

    def _inflate(self, name: str, data: memoryview, size: int, start: int | None) -> memoryview:
        try:
            engine = zlib.decompressobj(-zlib.MAX_WBITS)
            unpacked = engine.decompress(data, size + 1 if start is None else max(size, 1))
        except zlib.error:
            raise self.damaged(f"its entry {name} cannot be unpacked") from None
        if start is None and (len(unpacked) != size or not engine.eof):
            raise self.damaged(f"its entry {name} does not unpack to the {size:,} bytes it claims")
        return memoryview(unpacked)


def add(archive: zipfile.ZipFile, name: str, *parts: bytes | memoryview) -> None:
    """Append an entry, uncompressed, aligned and dated 1980: the same parts give the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.file_size = sum(map(len, parts))
    assert archive.fp is not None
    large = 20 if entry.file_size * 1.05 > zipfile.ZIP64_LIMIT else 0  # as zipfile decides on its longer header
    used = archive.fp.tell() + _HEADER + len(name.encode()) + large + 4
    padding = -used % _ALIGNMENT
    entry.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding  # an extra field that readers skip
    with archive.open(entry, "w") as target:
        for part in parts:
            target.write(part)
