"""What each opcode of a pickle does to the reader; one that is not here is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pickle_reader import Reader

_U1, _U2, _U4, _U8 = (struct.Struct(layout) for layout in ("<B", "<H", "<I", "<Q"))
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")

HANDLERS: dict[int, Callable[[Reader], Any]] = {
    0x80: lambda r: r.take(1),  # PROTO: a later one's opcodes are refused one by one
    0x95: lambda r: r.take(8),  # FRAME: a hint for streams
    ord("("): lambda r: r.mark(),
    ord("0"): lambda r: r.pop(),
    ord("1"): lambda r: r.pop_mark(),
    ord("N"): lambda r: r.push(None),
    0x88: lambda r: r.push(True),
    0x89: lambda r: r.push(False),
    ord("K"): lambda r: r.push(r.number(_U1)),
    ord("M"): lambda r: r.push(r.number(_U2)),
    ord("J"): lambda r: r.push(r.number(_I4)),
    0x8A: lambda r: r.integer(_U1),  # LONG1
    ord("G"): lambda r: r.push(r.number(_F8)),
    0x8C: lambda r: r.text(_U1),  # SHORT_BINUNICODE
    ord("X"): lambda r: r.text(_U4),
    0x8D: lambda r: r.text(_U8),  # BINUNICODE8
    ord("U"): lambda r: r.old_text(_U1),
    ord("C"): lambda r: r.data_bytes(_U1),
    ord("B"): lambda r: r.data_bytes(_U4),
    0x8E: lambda r: r.data_bytes(_U8),  # BINBYTES8
    0x96: lambda r: r.data_bytes(_U8),  # BYTEARRAY8
    ord("}"): lambda r: r.push({}),
    ord("]"): lambda r: r.push([]),
    ord(")"): lambda r: r.push(()),
    ord("t"): lambda r: r.push(tuple(r.pop_mark())),
    0x85: lambda r: r.push(r.pop_tuple(1)),
    0x86: lambda r: r.push(r.pop_tuple(2)),
    0x87: lambda r: r.push(r.pop_tuple(3)),
    ord("a"): lambda r: r.extend([r.pop()]),
    ord("e"): lambda r: r.extend(r.pop_mark()),
    ord("s"): lambda r: r.fill(r.pop_tuple(2)),
    ord("u"): lambda r: r.fill(r.pop_mark()),
    0x8F: lambda r: r.push([]),  # EMPTY_SET: kept as a list, nothing looks inside
    0x90: lambda r: r.extend(r.pop_mark()),  # ADDITEMS
    0x91: lambda r: r.push(tuple(r.pop_mark())),  # FROZENSET
    ord("h"): lambda r: r.get(r.number(_U1)),
    ord("j"): lambda r: r.get(r.number(_U4)),
    ord("q"): lambda r: r.put(r.number(_U1)),
    ord("r"): lambda r: r.put(r.number(_U4)),
    0x94: lambda r: r.put(len(r.memo)),  # MEMOIZE
    ord("c"): lambda r: r.find(r.line(), r.line()),
    0x93: lambda r: r.find(*r.pop_tuple(2)),  # STACK_GLOBAL
    ord("R"): lambda r: r.call(),
    0x81: lambda r: r.call(),  # NEWOBJ
    ord("b"): lambda r: r.build(),
    ord("Q"): lambda r: r.refer(),
}
