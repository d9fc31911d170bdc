"""A pickle reader that cannot run anything.

It interprets the opcodes itself and builds plain values and inert records: no class is looked up, no function is
called, whatever the pickle says. Names outside the caller's list are refused, so that nobody is left with a file that
is harmless here and runs code in the framework's own loader. Opcodes: PEP 307, PEP 3154 and Python's pickletools.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..tensors import CheckpointProblem

# One byte of pickle can ask for an object of 64 and more: this bounds what a hostile file can make us allocate.
MAX_OPCODES = 5_000_000
# Where Python's own pickler finds the functions that people know under another name.
_KNOWN_AS = {"posix": "os", "nt": "os", "__builtin__": "builtins"}


class Global(NamedTuple):
    """The name of a class or function. Only the name: it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Record:
    """What a pickle would have built by calling `of` with `args`, then filling it: kept, not done."""

    of: Global
    args: tuple[Any, ...]
    items: dict[Any, Any] = field(default_factory=dict)
    listed: list[Any] = field(default_factory=list)
    state: Any = None


@dataclass(eq=False, repr=False)
class Persistent:
    """A reference to something outside the pickle (torch: a storage)."""

    id: Any


def read_pickle(data: memoryview, allowed: Collection[str], where: str, persistent: bool = False) -> Any:
    """The value in a pickle of protocol 2 to 4. Byte strings come as views into `data`, not copied.

    allowed: the "module.name" it may mention. persistent: whether it may refer to things outside itself.
    Raises CheckpointProblem for anything damaged, and for a name that is not allowed, saying which.
    """
    return _Reader(data, allowed, where, persistent).run()


class _Reader:
    def __init__(self, data: memoryview, allowed: Collection[str], where: str, persistent: bool):
        self.data, self.allowed, self.where, self.persistent = data, allowed, where, persistent
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_OPCODES):
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                value = self.pop()
                if self.stack or self.marks or self.at != len(self.data):
                    raise self.damaged("there is more after its end")
                return value
            handler = _HANDLERS.get(code)
            if handler is None:
                raise self.damaged(f"opcode 0x{code:02x} is not one that a checkpoint needs")
            handler(self)
        raise self.damaged(f"it has more than {MAX_OPCODES:,} steps")

    def damaged(self, why: str) -> CheckpointProblem:
        return CheckpointProblem(
            f"{self.where}: the pickle in it is damaged or not a checkpoint's: {why} (at byte {self.at:,} of "
            f"{len(self.data):,}). Download or save it again."
        )

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            raise self.damaged("it ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, raw: memoryview) -> str:
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            raise self.damaged("a text in it is not UTF-8") from None

    def line(self) -> str:
        found = bytes(self.data[self.at : self.at + 256]).find(b"\n")
        if found < 0:
            raise self.damaged("a name in it has no end")
        return self.text(self.take(found + 1)[:-1])

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
        return tuple(reversed([self.pop() for _ in range(count)]))

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

    def fill(self, values: list[Any]) -> None:
        target = self.top(dict, Record)
        items = target.items if isinstance(target, Record) else target
        if len(values) % 2:
            raise self.damaged("a key in it has no value")
        for key, value in zip(values[::2], values[1::2]):
            if not isinstance(key, (str, int, float, type(None))):  # hashing anything else may recurse or fail
                raise self.damaged(f"a key in it is a {type(key).__name__}")
            items[key] = value

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.damaged("a name in it is not text")
        found = Global(module, name)
        if str(found) not in self.allowed:
            known = f"{_KNOWN_AS[module]}.{name}" if module in _KNOWN_AS else ""
            raise CheckpointProblem(
                f"{self.where}: refused to load {found}{f' ({known})' if known else ''}. A checkpoint of weights needs "
                "no such name: it is either a whole pickled object or an attack, and nothing in it was run. Ask its "
                "author for a state dict of tensors, or for a .safetensors file."
            )
        self.push(found)

    def call(self) -> None:
        function, args = self.pop_tuple(2)
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise self.damaged("it builds something from what is not a name and its arguments")
        self.push(Record(function, args))

    def build(self) -> None:
        state = self.pop()
        self.top(Record).state = state

    def refer(self) -> None:
        if not self.persistent:
            raise self.damaged("it refers to something outside the file")
        self.push(Persistent(self.pop()))


def _integer(reader: _Reader) -> None:
    reader.push(int.from_bytes(reader.take(reader.number("<B")), "little", signed=True))


# Reading order of the two arguments matters in none of these but STACK_GLOBAL: the module was pushed first.
_HANDLERS: dict[int, Callable[[_Reader], Any]] = {
    0x80: lambda r: r.take(1),  # PROTO
    0x95: lambda r: r.take(8),  # FRAME: a hint for streams
    ord("("): _Reader.mark,
    ord("0"): _Reader.pop,
    ord("1"): _Reader.pop_mark,
    ord("N"): lambda r: r.push(None),
    0x88: lambda r: r.push(True),
    0x89: lambda r: r.push(False),
    ord("K"): lambda r: r.push(r.number("<B")),
    ord("M"): lambda r: r.push(r.number("<H")),
    ord("J"): lambda r: r.push(r.number("<i")),
    0x8A: _integer,  # LONG1
    ord("G"): lambda r: r.push(r.number(">d")),
    0x8C: lambda r: r.push(r.text(r.take(r.number("<B")))),  # SHORT_BINUNICODE
    ord("X"): lambda r: r.push(r.text(r.take(r.number("<I")))),
    0x8D: lambda r: r.push(r.text(r.take(r.number("<Q")))),  # BINUNICODE8
    ord("C"): lambda r: r.push(r.take(r.number("<B"))),
    ord("B"): lambda r: r.push(r.take(r.number("<I"))),
    0x8E: lambda r: r.push(r.take(r.number("<Q"))),  # BINBYTES8
    ord("}"): lambda r: r.push({}),
    ord("]"): lambda r: r.push([]),
    ord(")"): lambda r: r.push(()),
    ord("t"): lambda r: r.push(tuple(r.pop_mark())),
    0x85: lambda r: r.push(r.pop_tuple(1)),
    0x86: lambda r: r.push(r.pop_tuple(2)),
    0x87: lambda r: r.push(r.pop_tuple(3)),
    ord("a"): lambda r: r.extend([r.pop()]),
    ord("e"): lambda r: r.extend(r.pop_mark()),
    ord("s"): lambda r: r.fill(list(r.pop_tuple(2))),
    ord("u"): lambda r: r.fill(r.pop_mark()),
    0x8F: lambda r: r.push([]),  # EMPTY_SET: kept as a list, nothing looks inside
    0x90: lambda r: r.extend(r.pop_mark()),  # ADDITEMS
    0x91: lambda r: r.push(tuple(r.pop_mark())),  # FROZENSET
    ord("h"): lambda r: r.get(r.number("<B")),
    ord("j"): lambda r: r.get(r.number("<I")),
    ord("q"): lambda r: r.put(r.number("<B")),
    ord("r"): lambda r: r.put(r.number("<I")),
    0x94: lambda r: r.put(len(r.memo)),  # MEMOIZE
    ord("c"): lambda r: r.find(r.line(), r.line()),
    0x93: lambda r: r.find(*r.pop_tuple(2)),  # STACK_GLOBAL
    ord("R"): _Reader.call,
    0x81: _Reader.call,  # NEWOBJ
    ord("b"): _Reader.build,
    ord("Q"): _Reader.refer,
}
