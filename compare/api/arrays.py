"""Outputs of people's models, as NumPy arrays by name. Tensors of any framework are read, and none is imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files.errors import Problem

# Types of less than float32, and their unit roundoff in units of float32's, u = 2^-24, as a power of two.
NARROW = {"bfloat16": 16, "float16": 13, "float8_e4m3": 20, "float8_e5m2": 21}
TO_HOST = ("detach", "cpu")  # methods to call first, where a tensor has them: off the tape, off the device
TO_NUMPY = ("to_dense", "to_local", "asnumpy", "numpy", "get", "tolist")  # further methods, where NumPy fails


class Tensors:
    """The tensors that a callable returned, copied: some frameworks write their next run into the same memory.

    A dict gives its names. A tuple or a list is opened as "0", "1", ...; a lone tensor is "0". What lies inside one of
    these is opened likewise: `hidden[0]`, `cache[key]`.
    """

    def __init__(self, output: Any, only_tensors: bool = False):
        """only_tensors: leaves out values that are no number, array or tensor (None, text, an object)."""
        self.numbered = "" if _has_names(output) else type(output).__name__  # the type of an output without names
        self.narrow: dict[str, str] = {}  # the type of each tensor that came in less than float32
        self._arrays: dict[str, NDArray[Any] | Problem] = {}
        for name, value in _opened(output):
            if name in self._arrays:
                raise Problem(f"two tensors are both called {name}; give every tensor a name of its own.")
            if only_tensors and not _is_one(value) and not _numbers(value):
                continue
            try:
                self._arrays[name], narrow = as_array(name, value)
            except Problem as problem:
                self._arrays[name], narrow = problem, ""
            if narrow:
                self.narrow[name] = narrow
        self.names = list(self._arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._arrays[name]
        if isinstance(array, Problem):
            raise array
        return array

    def copied(self) -> dict[str, Copied]:
        """The outputs that a callable may return in their place."""
        return {name: Copied(self[name], self.narrow.get(name, "")) for name in self.names}


class Copied:
    """An array that was a tensor, with the name of its type where that is of NARROW."""

    def __init__(self, array: NDArray[Any], narrow: str = ""):
        self.array, self.narrow = array, narrow
        self.shape, self.dtype = array.shape, array.dtype


def is_returnable(output: Any) -> bool:
    """Whether tensors can be got out of it: names, a tuple, a list, or a tensor alone."""
    return _has_names(output) or isinstance(output, (list, tuple)) or _is_one(output)


def _has_names(output: Any) -> bool:
    return isinstance(output, Mapping) or hasattr(output, "_asdict") or _is_dataclass(output)


def _is_dataclass(output: Any) -> bool:
    return dataclasses.is_dataclass(output) and not isinstance(output, type) and not hasattr(output, "dtype")


def _is_one(value: Any) -> bool:
    """Whether it is a number, an array or a tensor."""
    return isinstance(value, (bool, int, float)) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def _opened(output: Any) -> Iterator[tuple[str, Any]]:
    for name, value in _items(output) if not _is_one(output) else [("0", output)]:
        yield from _inside(str(name), value)


def _items(output: Any) -> list[tuple[Any, Any]]:
    if hasattr(output, "_asdict"):
        output = output._asdict()
    elif _is_dataclass(output):
        output = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return list(output.items() if isinstance(output, Mapping) else enumerate(output))


def _inside(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value, or where it is a container of tensors (and no list of numbers) all that is in it."""
    if (_has_names(value) or isinstance(value, (list, tuple))) and not _numbers(value):
        for key, item in _items(value):
            yield from _inside(f"{name}[{key}]", item)
    else:
        yield name, value


def _numbers(value: Any) -> bool:
    """Whether a list, or a list of lists, holds numbers only: it is an array then."""
    if isinstance(value, (list, tuple)) and not hasattr(value, "_asdict"):
        return all(_numbers(item) for item in value)
    return isinstance(value, (bool, int, float, complex, np.generic))


def as_array(name: str, value: Any) -> tuple[NDArray[Any], str]:
    """A copy, and the name of its type where that is of NARROW (it is widened to float32, exactly), else "".

    Raises Problem for a value that is no array of real numbers: None, complex numbers, text, objects.
    """
    if isinstance(value, Copied):
        return value.array, value.narrow
    if value is None:
        raise Problem(
            f"{name} is None; leave it out on both sides, or return numbers "
            "(a parameter that the loss does not reach has a gradient of zeros)."
        )
    narrow = _narrow_type(getattr(value, "dtype", ""))
    try:
        array = _in_numpy(_on_the_host(value, bool(narrow)))
        narrow = narrow or _narrow_type(array.dtype)
        if narrow and array.dtype.kind in "Vf" and not array.dtype.fields:  # V: a type that NumPy does not know itself
            array = array.astype(np.float32)
    except Exception as problem:
        raise Problem(
            f"{name} does not become an array ({first_line(problem)}); return a NumPy array in its place."
        ) from problem
    if array.dtype.kind not in "fiub":
        raise Problem(f"{name} is {array.dtype}, which cannot be judged; return real numbers in float32.")
    return (array.astype(np.float64) if array.dtype.itemsize > 8 else array), narrow


def _narrow_type(dtype: Any) -> str:
    """bfloat16 for torch.bfloat16, for ml_dtypes' and for MegEngine's pybfloat16; "" for types that are not in NARROW."""
    words = str(dtype).lower()
    return next((name for name in NARROW if name in words), "")


def _on_the_host(value: Any, narrow: bool) -> Any:
    """A tensor off the tape and off its device; of less than float32 in float32, by its own framework."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value
    for name in TO_HOST:
        if callable(method := getattr(value, name, None)):
            value = method()
    if narrow and callable(getattr(value, "float", None)):
        return value.float()
    if narrow and callable(getattr(value, "astype", None)):
        return value.astype("float32")
    return value


def _in_numpy(value: Any) -> NDArray[Any]:
    """As numpy.array has it; where that fails, as the value itself gives it. Raises numpy.array's exception."""
    try:
        return np.array(value)
    except Exception as problem:
        for name in TO_NUMPY:
            try:
                return np.array(getattr(value, name)())
            except Exception:  # it has no such method, or that fails as well
                continue
        raise problem


def first_line(problem: BaseException) -> str:
    """An exception's type and the first line of its message."""
    words = str(problem).strip()
    return f"{type(problem).__name__}: {words.splitlines()[0] if words else 'no message'}"
