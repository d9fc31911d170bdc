"""Where converted weights came from: JSON in the file where the format has room, else in a file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..backends.config import Config
from ..backends.errors import Problem
from ..backends.presets import config_of
from .tensors import CheckpointProblem, State

NOTE = "polymae"  # the name of the note in a file
_LONGEST = 1 << 20  # bytes


@dataclass(frozen=True)
class Provenance:
    """hash: the content hash of the weights. dialect: how the file spells them. source: name, size, format, dialect and
    content hash of what was converted. transformations: what was done to the weights; notices: what the target computes
    otherwise. config: the model's.
    """

    hash: str
    dialect: str
    config: Config | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    transformations: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def text(self) -> str:
        """As JSON; the same for the same weights, source and version of PolyMAE."""
        return json.dumps({**self.facts(), "tool": f"polymae {_version()}"}, indent=1, sort_keys=True) + "\n"

    def facts(self) -> dict[str, Any]:
        """Everything, as JSON can say it."""
        return {
            "hash": self.hash,
            "dialect": self.dialect,
            "config": None if self.config is None else asdict(self.config),
            "source": dict(self.source),
            "transformations": list(self.transformations),
            "notices": list(self.notices),
        }


def beside(path: Path) -> Path:
    """Where the provenance of a file without room for it lies."""
    return path.with_name(f"{path.name}.{NOTE}.json")


def read_beside(path: Path, state: State) -> Provenance | None:
    """The provenance in a file or beside it; None where there is none. Raises CheckpointProblem where it is damaged."""
    side = beside(path)
    text, where = state.note.get(NOTE), str(path)
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
            "and say with -m what the model is."
        ) from None


def _parsed(text: str) -> Provenance:
    if len(text) > _LONGEST:
        raise ValueError("it is too long")
    said = json.loads(text)
    config = said["config"]
    texts = [said["hash"], said["dialect"], *said["transformations"], *said["notices"]]
    if not all(isinstance(one, str) for one in texts) or not isinstance(said["source"], dict):
        raise ValueError("its entries are not of the right kinds")
    return Provenance(
        hash=said["hash"],
        dialect=said["dialect"],
        config=None if config is None else config_of(config),
        source=said["source"],
        transformations=tuple(said["transformations"]),
        notices=tuple(said["notices"]),
    )


def _version() -> str:
    try:
        return version("polymae")
    except PackageNotFoundError:  # run from a folder that was not installed, as hubs do
        return "not installed"
