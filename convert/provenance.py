"""The origin of converted weights: JSON in the file if the format has room, else in a file beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..backends.config import Config
from ..backends.presets import config_of
from ..files.atomic import replacing
from ..files.errors import Problem, option
from ..files.version import __version__
from .tensors import CheckpointProblem, State

NOTE = "polymae"  # the name of the note in a file
_LONGEST = 1 << 20  # bytes


@dataclass(frozen=True)
class Provenance:
    """A conversion's note of the weights that it wrote."""

    hash: str  # the content hash of the weights
    dialect: str  # of the file
    config: Config | None = None  # the model that the weights are for
    function: Mapping[str, str] = field(
        default_factory=dict
    )  # its program's settings without a place in a configuration
    source: Mapping[str, Any] = field(
        default_factory=dict
    )  # the original's name, size, format, dialect and content hash
    transformations: tuple[str, ...] = ()  # a phrase for each
    notices: tuple[str, ...] = ()  # a sentence for each setting that the program of this file computes differently

    def text(self) -> str:
        """As JSON; the same for the same weights, source and version of PolyMAE."""
        return json.dumps({**self.facts(), "tool": f"polymae {__version__}"}, indent=1, sort_keys=True) + "\n"

    def facts(self) -> dict[str, Any]:
        """Everything, as JSON can say it."""
        return {
            "hash": self.hash,
            "dialect": self.dialect,
            "config": None if self.config is None else asdict(self.config),
            "function": dict(self.function),
            "source": dict(self.source),
            "transformations": list(self.transformations),
            "notices": list(self.notices),
        }


def beside(path: Path) -> Path:
    """The path of the provenance of a file without room for it."""
    return path.with_name(f"{path.name}.{NOTE}.json")


def read_beside(path: Path, state: State) -> Provenance | None:
    """The provenance in a file or beside it, None without one. Raises CheckpointProblem if it is damaged."""
    side = next((s for s in (beside(path), beside(path.resolve())) if s.is_file()), beside(path))
    text, where = state.metadata.get(NOTE), str(path)
    try:
        if text is None:
            if not side.is_file():
                return None
            where = str(side)
            with side.open("rb") as file:
                text = file.read(_LONGEST + 1).decode()
        return _parsed(text)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, Problem) as problem:
        raise CheckpointProblem(
            f"The provenance in {where} is damaged ({problem}); remove it{'' if text is None else ' (it is only a note)'}, "
            f"and say with {option('-m')} what the model is.",
            code="bad-note",
        ) from None


def _parsed(text: str) -> Provenance:
    if len(text) > _LONGEST:
        raise ValueError("it is too long")
    entries = json.loads(text)
    config = entries["config"]
    function = entries.get("function", {})
    lists = (entries["transformations"], entries["notices"])
    if not all(isinstance(one, dict) for one in (function, entries["source"], {} if config is None else config)):
        raise ValueError("its entries are not of the right kinds")
    if not all(
        isinstance(one, str) for one in (entries["hash"], entries["dialect"], *function.values(), *lists[0], *lists[1])
    ):
        raise ValueError("its entries are not texts")
    return Provenance(
        hash=entries["hash"],
        dialect=entries["dialect"],
        config=None if config is None else config_of(config),
        function=function,
        source=entries["source"],
        transformations=tuple(entries["transformations"]),
        notices=tuple(entries["notices"]),
    )


@contextmanager
def replacing_beside(target: Path) -> Iterator[Callable[[str], None]]:
    """A function that puts a provenance beside a target, or takes it away ("").

    For the time before the target itself is put in place: a process that is killed in between leaves a provenance that is
    plainly of other weights, rather than weights that lost theirs. If the block fails, the old provenance is put back.
    """
    side = beside(target)
    before = side.read_bytes() if side.is_file() else b""
    changed = False

    def put(text: str) -> None:
        nonlocal changed
        changed = True
        _put(side, text.encode())

    try:
        yield put
    except BaseException:
        if changed:
            _put(side, before)
        raise


def _put(path: Path, content: bytes) -> None:
    if not content:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as new:
        new.write_bytes(content)
