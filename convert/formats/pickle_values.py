"""What the pickle reader builds in place of objects: inert records of what the pickle asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..tensors import CheckpointProblem

# Where Python's own pickler finds the functions that people know under another name.
_KNOWN_AS = {"posix": "os", "nt": "os", "__builtin__": "builtins"}


class Global(NamedTuple):
    """The name of a class or function. Only the name: it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False, slots=True)
class Record:
    """What a pickle would have built by calling `of` with `args`, then filling it: kept, not done."""

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


def refused(found: Global, where: str) -> CheckpointProblem:
    """What is raised for a name that a pickle must not mention."""
    spelled = str(found) if str(found).isprintable() else ascii(str(found))
    known = f" ({_KNOWN_AS[found.module]}.{found.name})" if found.module in _KNOWN_AS and spelled == str(found) else ""
    return CheckpointProblem(
        f"{where}: refused to load {spelled[:200]}{known[:200]}. A checkpoint of weights needs no such name: it is either "
        "a whole pickled object or an attack, and nothing in it was run. Ask its author for a state dict of tensors, or "
        "for a .safetensors file."
    )
