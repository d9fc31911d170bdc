"""A pickle reader that cannot run anything.

It interprets the opcodes itself and builds plain values and inert records: no class is looked up, no function is
called, whatever the pickle says. Names that run code in a framework's own loader are refused all the same
(pickle_names.py). Opcodes: PEP 307, PEP 3154, PEP 574 and Python's pickletools.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from typing import Any

from ...files.errors import Code
from ..tensors import CheckpointProblem
from .pickle_names import Names
from .pickle_values import Global, LongText, Persistent, Record

# One byte of pickle can ask for an object of 64 and more. This bounds the memory and the time that a hostile file can take.
# A huge model's training file needs about 85,000.
MAX_OPCODES = 1_000_000
_SHORT_BYTES = 128
_LONG_TEXT = 4096  # bytes; longer texts are data, kept as they lie in the file
_U1, _U2, _U4, _U8 = (struct.Struct(layout) for layout in ("<B", "<H", "<I", "<Q"))
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")


def read_pickle(data: memoryview, names: Names, where: str, references: list[Persistent] | None = None) -> Any:
    """The value in a pickle of protocol 2 to 5. Long byte strings come as views into `data`, not copied.

    names: takes the names in it. references: takes its references to objects outside itself; None forbids them. Raises
    CheckpointProblem for anything damaged, and for a name that runs code, saying which.
    """
    reader = Reader(data, 0, names, where, references)
    value = reader.run(MAX_OPCODES)
    if reader.at != len(data):
        raise reader.damaged("there is more after its end")
    return value


def read_first_pickle(
    data: memoryview, start: int, names: Names, where: str, references: list[Persistent] | None = None,
    most: int = MAX_OPCODES,
) -> tuple[Any, int]:  # fmt: skip
    """The value in a pickle that begins at byte `start`, and the place of its end. Otherwise as read_pickle."""
    reader = Reader(data, start, names, where, references)
    return reader.run(most), reader.at


class Reader:
    """The machine that a pickle is a program for: its stack, its marks and its memo."""

    def __init__(self, data: memoryview, start: int, names: Names, where: str, references: list[Persistent] | None):
        self.data, self.at, self.names, self.where, self.references = data, start, names, where, references
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, most: int) -> Any:
        data, handlers = self.data, _HANDLERS
        for _ in range(most):
            if self.at >= len(data):
                raise self.damaged("it ends too early", "truncated")
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                value = self.pop()
                if self.stack or self.marks:
                    raise self.damaged("there is more than one value in it")
                return value
            if code not in handlers:
                raise self.damaged(f"opcode 0x{code:02x} is not one that a checkpoint needs")
            handlers[code](self)
        raise self.damaged(f"it has more than {most:,} steps", "too-large")

    def damaged(self, why: str, code: Code = "damaged") -> CheckpointProblem:
        return CheckpointProblem(
            f"{self.where}: the pickle in it is damaged or not a checkpoint's: {why} (at byte {self.at:,} of "
            f"{len(self.data):,}). Download or save it again.",
            code=code,
        )

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            raise self.damaged("it ends too early", "truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: struct.Struct) -> Any:
        if layout.size > len(self.data) - self.at:
            raise self.damaged("it ends too early", "truncated")
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return value

    def integer(self, layout: struct.Struct) -> None:
        self.push(int.from_bytes(self.take(self.number(layout)), "little", signed=True))

    def text(self, layout: struct.Struct) -> None:
        raw = self.take(self.number(layout))
        self.push(LongText(raw) if len(raw) > _LONG_TEXT else self.decoded(raw))

    def old_text(self, layout: struct.Struct) -> None:
        self.push(str(self.take(self.number(layout)), "latin-1"))  # Python 2's str

    def data_bytes(self, layout: struct.Struct) -> None:
        raw = self.take(self.number(layout))
        self.push(raw if len(raw) > _SHORT_BYTES else bytes(raw))  # a view takes 200 bytes itself

    def decoded(self, raw: memoryview) -> str:
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            raise self.damaged("a text in it is not UTF-8") from None

    def line(self) -> str:
        end = bytes(self.data[self.at : self.at + 256]).find(b"\n")
        if end < 0:
            raise self.damaged("a name in it has no end")
        return self.decoded(self.take(end + 1)[:-1])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise self.damaged("it takes a value that is not there")
        return self.stack.pop()

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise self.damaged("it takes values that are not there")
        values, self.stack = self.stack, self.marks.pop()
        return values

    def pop_tuple(self, count: int) -> tuple[Any, ...]:
        if count > len(self.stack):
            raise self.damaged("it takes a value that is not there")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def top(self, *kinds: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kinds):
            raise self.damaged("it fills something that cannot be filled")
        return self.stack[-1]

    def put(self, index: int) -> None:
        self.memo[index] = self.top(object)

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise self.damaged("it refers to a value that is not there")
        self.push(self.memo[index])

    def extend(self, values: list[Any]) -> None:
        target = self.top(list, Record)
        (target.listed if isinstance(target, Record) else target).extend(values)

    def fill(self, values: Collection[Any]) -> None:
        target = self.top(dict, Record)
        items = target.items if isinstance(target, Record) else target
        if len(values) % 2:
            raise self.damaged("a key in it has no value")
        pairs = iter(values)
        for key, value in zip(pairs, pairs):
            # Hashing anything else may recurse or fail, and large whole numbers can be chosen to collide. Records are
            # hashed by identity, a class by its name.
            if not isinstance(key, (str, int, float, type(None), Global, Record)) or (
                type(key) is int and abs(key) >= 2**60
            ):
                raise self.damaged(f"a key in it is a {type(key).__name__} that no checkpoint has")
            items[key] = value

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.damaged("a name in it is not text")
        function = Global(module, name)
        self.names.meet(function, self.where)
        self.push(function)

    def call(self) -> None:
        function, args = self.pop_tuple(2)
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise self.damaged("it builds something from what is not a name and its arguments")
        self.push(Record(function, args))

    def build(self) -> None:
        state = self.pop()
        self.top(Record).state = state

    def refer(self) -> None:
        if self.references is None:
            raise self.damaged("it refers to something outside the file")
        reference = Persistent(self.pop())
        self.references.append(reference)
        self.push(reference)


# The action of each opcode on the reader; others are refused.
_HANDLERS: dict[int, Callable[[Reader], Any]] = {
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
