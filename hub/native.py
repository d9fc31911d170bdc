"""Weights as a framework's own file, converted once and kept beside the original.

<file>.<first digits of the content hash>.v<version of the converter>.<framework><ending>.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..convert.targets import TARGETS, default_ending, is_native
from ..convert.writing import CONVERTER_VERSION
from ..files.errors import Problem
from .receipts import CacheProblem, content_of, digests_of, home, read_record, say, unlike, writable
from .registry import published

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint

_PATIENCE = 600.0  # seconds to wait for another process that converts the same
# Parts: the original's name, the content hash, the version, the framework.
NAME = re.compile(rf"(.+)\.([0-9a-f]{{12}})\.v(\d+)\.({'|'.join(TARGETS)})(?:\.\w+)?", re.DOTALL)


def native(path: Path, framework: str) -> Path:
    """The same weights as the framework's own loader reads them; the path itself where it does, and for numpy.

    Where nothing can be kept (the cache may only be read, or the file does not tell its model), the path itself, with a
    sentence on stderr: our own loader reads it everywhere. Raises CheckpointProblem for a file that is damaged or cannot be
    converted, and where the disk has no room.
    """
    from ..convert.checkpoint import open_checkpoint

    if framework == "numpy":
        return path
    with explaining(path):
        return _native(path, open_checkpoint(path), framework)


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Have a Problem with a file of the cache say what to do where the file was damaged since it was put there.

    Raises CacheProblem then; any other Problem, and one with any other file, goes on as it is.
    """
    try:
        yield
    except Problem:
        record = read_record(path)
        if record is None or not path.is_file():
            raise
        wrong = unlike(digests_of(path), {"md5": record.md5, "sha256": record.sha256})
        if not wrong:
            raise
        name = record.name if record.name in published() else path
        raise CacheProblem(
            f"{path} was damaged after it had been downloaded ({wrong}). Type `polymae weights clear {name}`, then try again: it "
            "is downloaded anew."
        ) from None


def _native(path: Path, checkpoint: Checkpoint, framework: str) -> Path:
    if is_native(checkpoint, framework):
        return path
    if checkpoint.config is None:
        say(f"{path} does not tell its model, so it is not converted beforehand for {framework}.")
        return path
    record = read_record(path)
    content = (record.hash if record else "") or content_of(checkpoint)
    target = _target(path, content, framework, record is not None)
    if _is_sound(target, content, checkpoint):
        return target
    if not writable(target.parent):
        say(
            f"{target.parent} may not be written to, so {path.name} is read as it is instead of converted for {framework}."
        )
        return path
    return _convert(path, target, content, checkpoint, framework)


def _target(path: Path, content: str, framework: str, beside: bool) -> Path:
    name = f"{path.name}.{content[:12]}.v{CONVERTER_VERSION}.{framework}{default_ending(framework)}"
    if beside:
        return path.with_name(name)
    # Of a file of the user's own, nothing is put beside it.
    return home() / "converted" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12] / name


def _convert(path: Path, target: Path, content: str, checkpoint: Checkpoint, framework: str) -> Path:
    """Convert, unless another process does it meanwhile; then wait and use what it wrote."""
    from ..convert.conversion import Wish, convert, prepare
    from ..files.atomic import alone

    target.parent.mkdir(parents=True, exist_ok=True)
    with alone(making(target), _PATIENCE):
        if _is_sound(target, content, checkpoint):
            return target
        if target.exists():
            say(f"{target} is damaged and is made again.")
            remove_converted(target)
        say(f"converting {path.name} for {framework}, once ...")
        written = convert(prepare(path, Wish()), TARGETS[framework].dialect, TARGETS[framework].formats[0], target)
        if written != content:
            remove_converted(target)
            raise Problem(
                f"{path} has weights of the hash {written}, and its record says {content}. Type "
                f"`polymae weights clear {path}`, then try again."
            )
        _remove_older(target)
    return target


def making(target: Path) -> Path:
    """What is locked while a target is made: writing it takes a lock of its own."""
    return target.with_name(f"{target.name}.making")


def _is_sound(target: Path, content: str, original: Checkpoint) -> bool:
    """Whether what was converted is whole, of these weights and of the same model: every value of it is looked at."""
    from ..convert.checkpoint import open_checkpoint
    from ..convert.hashing import hash_tensors

    if not target.exists():
        return False
    try:
        found = open_checkpoint(target)
        known = found.provenance
        if known is None or known.hash != content or known.config != original.config:
            return False
        return hash_tensors(found.tensors, finite=False).content == content
    except Problem:
        return False


def remove_converted(path: Path) -> None:
    """Remove a converted file with its provenance. Raises OSError."""
    from ..convert.provenance import beside
    from ..files.atomic import remove

    remove(path)
    remove(beside(path))


def _remove_older(target: Path) -> None:
    """Remove what other weights of the same name, or an older converter, left."""
    made = NAME.fullmatch(target.name)
    for path in target.parent.iterdir():
        found = NAME.fullmatch(path.name)
        if made is None or found is None or found[1] != made[1]:
            continue
        if found[2] != made[2] or int(found[3]) < int(made[3]):
            remove_converted(path)
