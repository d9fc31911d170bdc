"""NumPy's pickled arrays, as NumPy 1 and 2 write them in pickle protocols 2 to 5."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..tensors import CheckpointProblem, Tensor, from_bytes
from .checks import CODES, bytes_needed
from .pickle_values import Global, LongText, Record

_CORES = ("numpy.core", "numpy._core")
_RECONSTRUCT = [Global(f"{core}.multiarray", "_reconstruct") for core in _CORES]
_FROM_BUFFER = [Global(f"{core}.numeric", "_frombuffer") for core in _CORES]
_ENCODE = Global("_codecs", "encode")
_DTYPE, _NO_BYTES = Global("numpy", "dtype"), [Global(module, "bytes") for module in ("builtins", "__builtin__")]
KNOWN = frozenset(
    [*map(str, (*_RECONSTRUCT, *_FROM_BUFFER, _ENCODE, _DTYPE, *_NO_BYTES)), "numpy.ndarray"]
    + [f"{core}.multiarray.scalar" for core in _CORES]
    + [f"numpy.{name}" for name in (*CODES.values(), "bool_")]
)


def array_tensor(name: str, value: Any, where: str) -> Tensor | None:
    """The tensor that a record stands for, None for another object. Raises CheckpointProblem."""
    if not isinstance(value, Record) or value.of not in (*_RECONSTRUCT, *_FROM_BUFFER):
        return None
    damaged = CheckpointProblem(f"{where} is damaged: the record of array {name} makes no sense.", code="damaged")
    try:
        if value.of in _RECONSTRUCT:
            _, shape, kind, fortran, data = value.state
        else:
            data, kind, shape, order = value.args
            fortran = order == "F"
        code, big_endian = _dtype(kind)
    except (TypeError, ValueError, IndexError, AttributeError):
        raise damaged from None
    if code not in CODES:
        raise unknown_dtype(name, code, where)
    dtype = CODES[code]
    stored = _stored(data)
    if stored is None or bytes_needed(shape, dtype) != stored[0]:
        raise damaged
    shape = tuple(shape)
    return Tensor(shape, dtype, lambda: from_bytes(stored[1](), dtype, shape, big_endian, bool(fortran)))


def unknown_dtype(name: str, code: str, where: str) -> CheckpointProblem:
    """The exception for an array of this dtype (NumPy's code without the byte order)."""
    why = (
        "whole Python objects, which would have to be run to be read" if code.startswith("O") else f"dtype {code[:20]}"
    )
    return CheckpointProblem(
        f"{where}: array {name} holds {why}; weights are numbers ({', '.join(CODES.values())}). Save it without.",
        code="runs-code" if code.startswith("O") else "unsupported",
    )


def _dtype(kind: Any) -> tuple[str, bool]:
    """NumPy's code of a dtype without the byte order ("f4"), and whether it is big-endian. Raises TypeError."""
    if not isinstance(kind, Record) or kind.of != _DTYPE:
        raise TypeError
    code, order = kind.args[0], kind.state[1]
    if not isinstance(code, str) or not re.fullmatch(r"\w{1,9}", code) or order not in ("<", ">", "|", "="):
        raise TypeError
    return code, order == ">"


def _stored(data: Any) -> tuple[int, Callable[[], memoryview]] | None:
    """How many bytes an array has, and how to get them; None for an object that is no bytes."""
    if isinstance(data, (bytes, memoryview)):
        return len(data), lambda: memoryview(data)
    if not isinstance(data, Record):
        return None
    if data.of in _NO_BYTES and not data.args:
        return 0, lambda: memoryview(b"")
    # Before protocol 3, bytes are a text in Latin-1: each is one character.
    if data.of != _ENCODE or len(data.args) != 2 or data.args[1] != "latin1":
        return None
    text = data.args[0]
    try:
        raw = text.raw if isinstance(text, LongText) else memoryview(text.encode())
        encoded = str(raw, "utf-8").encode("latin-1")
    except (AttributeError, UnicodeError):
        return None
    return len(encoded), lambda: memoryview(str(raw, "utf-8").encode("latin-1"))
