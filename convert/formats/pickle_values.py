"""The inert records that the pickle reader builds in place of the objects that a pickle asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Global(NamedTuple):
    """The name of a class or function. Only the name: it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False, slots=True)
class Record:
    """The call `of(*args)` that a pickle asks for, and the values that it would fill the result with. It is not made."""

    of: Global
    args: tuple[Any, ...]
    items: dict[Any, Any] = field(default_factory=dict)
    listed: list[Any] = field(default_factory=list)
    state: Any = None


@dataclass(eq=False, repr=False, slots=True)
class Persistent:
    """A reference to something outside the pickle (torch: a storage)."""

    id: Any


@dataclass(eq=False, repr=False, slots=True)
class LongText:
    """A long text, still UTF-8: before protocol 3, bytes were pickled as one."""

    raw: memoryview
