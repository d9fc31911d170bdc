"""The few pickle opcodes that the written files need, as bytes. No memo: a repeated name is simply written again."""

from __future__ import annotations

import struct
from collections.abc import Iterable

MARK, EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, FALSE, TRUE, NONE = b"(", b"}", b"]", b")", b"\x89", b"\x88", b"N"
APPENDS, SETITEM, SETITEMS, REDUCE, NEWOBJ, BUILD, PERSISTENT, STOP = b"e", b"s", b"u", b"R", b"\x81", b"b", b"Q", b"."


def protocol(version: int) -> bytes:
    """How a pickle of this protocol begins."""
    return b"\x80" + bytes([version])


def text(value: str) -> bytes:
    """A string."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    """A whole number of at most 255 bytes."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def byte_string(length: int) -> bytes:
    """The opening of a byte string; its bytes must follow. For protocol 4."""
    return b"B" + struct.pack("<I", length) if length < 2**32 else b"\x8e" + struct.pack("<Q", length)


def items(values: Iterable[bytes]) -> bytes:
    """A tuple of pickled values."""
    return MARK + b"".join(values) + b"t"


def integers(values: Iterable[int]) -> bytes:
    """A tuple of whole numbers."""
    return items(map(integer, values))


def name(module: str, name: str) -> bytes:
    """A class or function, by name."""
    return f"c{module}\n{name}\n".encode()


ORDERED_DICT = name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE
