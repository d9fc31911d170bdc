"""Ways to damage a file: each takes bytes and gives other bytes. All of them draw from one random.Random."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

# What a length, a count or an offset may be set to.
EXTREMES = (
    0,
    1,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_NUMBERS = (*map(str, EXTREMES), "-1", "1e400", "0.5", "true", "null", '"x"', "[]", "{}", "1" * 400)
# Pieces that mean something to one reader or another: pickle opcodes, zip records, protobuf fields, paths.
_TOKENS = (
    *(bytes([code]) for code in b"(.0123FINJKLMRSTUVXabcdeghijlopqrstuBCGPQ}])\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a"),
    *(bytes([code]) for code in range(0x8B, 0x99)),
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"X\x09\x00\x00\x00../../../", b"X\x0b\x00\x00\x00/etc/passwd", b"h\x00", b"2",
    b"j\xff\xff\xff\xff", b"r\xff\xff\xff\x7f", b"\x8a\xff", b"\x8b\xff\xff\xff\x7f", b"}" * 64, b"(" * 64, b"]" * 64,
    b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"\x08\x00", b"\x09\x00",
    b"\x0a\x00", b"\x12\x00", b"\x1a\x00", b"\x0b", b"\x0c", b"\xff" * 10, b"\x80" * 11, b"crc_num\x00\x00\x00\x00\x00\x00",
    b"../", b"/etc/passwd", b"\x00", b"\n", b'"', b"{", b"[" * 64, b",", b"'descr': '|O', ", b"kFloat", b"dim: 1\n",
)  # fmt: skip
_LAYOUTS = ("<B", "<H", "<I", "<Q", ">I", ">Q", "<i", "<q")

Random = random.Random


def mutate(random: Random, data: bytes, other: bytes) -> bytes:
    """One to three faults. other: bytes of the same kind, from which pieces are taken."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(MUTATIONS)(random, data, other)
    return data


def _place(random: Random, data: bytes) -> int:
    """Anywhere; but half of the time near an end, where the formats keep what describes the rest."""
    size = len(data)
    near = random.randint(0, min(size, 200))
    return random.choice((near, size - near, random.randint(0, size), random.randint(0, size)))


def _range(random: Random, data: bytes) -> tuple[int, int]:
    begin = _place(random, data)
    return begin, min(len(data), begin + random.choice((1, 2, 4, 8, 16, 64, 256, random.randint(0, len(data)))))


def _flip_bits(random: Random, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8)) if data else 0):
        changed[min(_place(random, data), len(data) - 1)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _set_bytes(random: Random, data: bytes, other: bytes) -> bytes:
    begin, end = _range(random, data)
    end = min(end, begin + 16)
    return data[:begin] + random.choice((b"\x00", b"\xff", bytes([random.randrange(256)]))) * (end - begin) + data[end:]


def _truncate(random: Random, data: bytes, other: bytes) -> bytes:
    return data[: random.choice((random.randint(0, len(data)), random.randint(0, min(len(data), 64)), len(data) - 1))]


def _insert(random: Random, data: bytes, other: bytes) -> bytes:
    at = _place(random, data)
    return data[:at] + random.choice(_TOKENS) + data[at:]


def _overwrite(random: Random, data: bytes, other: bytes) -> bytes:
    at, token = _place(random, data), random.choice(_TOKENS)
    return data[:at] + token + data[at + len(token) :]


def _duplicate(random: Random, data: bytes, other: bytes) -> bytes:
    begin, end = _range(random, data)
    at = random.choice((end, _place(random, data)))
    return data[:at] + data[begin:end] * random.choice((1, 1, 2, 50 if end - begin < 500 else 2)) + data[at:]


def _remove(random: Random, data: bytes, other: bytes) -> bytes:
    begin, end = _range(random, data)
    return data[:begin] + data[end:]


def _set_length(random: Random, data: bytes, other: bytes) -> bytes:
    """A binary number set to an extreme value, by preference where a plausible length stands."""
    layout = random.choice(_LAYOUTS)
    size = struct.calcsize(layout)
    places = [random.randint(0, max(0, len(data) - size)) for _ in range(8)]
    plausible = [at for at in places if 0 < int.from_bytes(data[at : at + size], "little") <= len(data)]
    at = random.choice(plausible or places)
    value = random.choice((*EXTREMES, len(data), len(data) + 1)) & (256**size - 1)
    return data[:at] + struct.pack(layout.upper(), value) + data[at + size :]


def _set_varint(random: Random, data: bytes, other: bytes) -> bytes:
    """A protobuf number set to an extreme value."""
    value, raw = random.choice(EXTREMES), bytearray()
    while value > 0x7F:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    at = _place(random, data)
    return data[:at] + bytes([*raw, value]) + data[at + 1 :]


def _set_number(random: Random, data: bytes, other: bytes) -> bytes:
    """A decimal number in a text, as in JSON headers, set to something else."""
    found = list(re.finditer(rb"\d+", data[:20_000]))
    if not found:
        return _set_length(random, data, other)
    begin, end = random.choice(found).span()
    return data[:begin] + random.choice(_NUMBERS).encode() + data[end:]


def _swap(random: Random, data: bytes, other: bytes) -> bytes:
    """Two sections change places."""
    a, b, c, d = sorted(random.randint(0, len(data)) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _splice(random: Random, data: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another, or a piece of the other in the middle."""
    if random.random() < 0.5:
        return data[: _place(random, data)] + other[_place(random, other) :]
    at, (begin, end) = _place(random, data), _range(random, other)
    return data[:at] + other[begin:end] + data[at:]


MUTATIONS: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    _flip_bits, _set_bytes, _truncate, _insert, _overwrite, _duplicate, _remove, _set_length, _set_varint, _set_number,
    _swap, _splice,
)  # fmt: skip
