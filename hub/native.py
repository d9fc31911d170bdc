"""A kept checkpoint as a framework's own loader reads it, for `polymae weights path --framework`: as convert_weights writes it.

`polymae.hub.load` needs none of these files: it reads every format itself. They lie in <home>/converted/<digits>/, with the
first digits of the SHA-256 of the original's path: nothing is written beside an original, which may be a file of the user's
or in the cache of the Hugging Face library.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..convert.targets import TARGETS, default_ending, is_native
from ..convert.writing import CONVERTER_VERSION
from ..files.errors import Problem
from .receipts import CacheProblem, explaining, home, read_receipt, say

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint

_PATIENCE = 600.0  # seconds to wait for another process that converts the same
# A converted file's name: the original's, the version of the converter, the framework.
NAME = re.compile(rf"(.+)\.v\d+\.({'|'.join(TARGETS)})(?:\.\w+)?", re.DOTALL)


def native_file(path: Path, framework: str) -> Path:
    """The file, or the folder, that a framework's own loader reads: `path` if that is one, else a copy that is converted.

    A copy of the same weights that is sound is used again. Raises CheckpointProblem if the original is damaged or cannot be
    converted, and CacheProblem if it does not tell its model, or the copy cannot be written.
    """
    from ..convert.checkpoint import open_checkpoint

    with explaining(path):
        return _native_file(path, open_checkpoint(path), framework)


def native_folder(path: Path) -> Path:
    """Where the copies of an original lie that were converted."""
    return home() / "converted" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]


def _native_file(path: Path, checkpoint: Checkpoint, framework: str) -> Path:
    from ..files.atomic import alone

    if is_native(checkpoint, framework):
        return path
    by_hand = f"convert_weights {framework} -c {path} -o <place>"
    if checkpoint.config is None:
        raise CacheProblem(f"{path} does not tell its model, so say it: {by_hand} -m <model>")
    receipt = read_receipt(path)
    content = (receipt.hash if receipt else "") or checkpoint.hash
    target = native_folder(path) / f"{path.name}.v{CONVERTER_VERSION}.{framework}{default_ending(framework)}"
    if _is_made(target, content, checkpoint):
        return target
    try:
        # Not the target's own lock, which writing it takes: of several processes, one converts and the others use its file.
        with alone(target.with_name(f"{target.name}.making"), _PATIENCE):
            if not _is_made(target, content, checkpoint):
                _convert(path, target, content, framework)
    except OSError as problem:
        raise CacheProblem(
            f"{target.name} cannot be written in {target.parent}: {problem.strerror}. POLYMAE_HOME names another folder for the "
            f"cache; or convert to a place of your own: {by_hand}"
        ) from None
    return target


def _convert(path: Path, target: Path, content: str, framework: str) -> None:
    from ..convert.conversion import Wish, convert, prepare
    from ..convert.provenance import beside
    from ..files.atomic import remove

    say(f"converting {path.name} for {framework}, once ...")
    row = TARGETS[framework]
    if convert(prepare(path, Wish()), row.dialect, row.formats[0], target) != content:
        remove(target)
        remove(beside(target))
        raise CacheProblem(
            f"{path} has other weights than were downloaded. Type `polymae weights clear {path}`, then try again."
        )


def _is_made(target: Path, content: str, original: Checkpoint) -> bool:
    """Whether a converted file holds these weights, for the same model: every value is read."""
    from ..convert.checkpoint import open_checkpoint
    from ..convert.hashing import hash_tensors

    try:
        made = open_checkpoint(target)
        note = made.provenance
        same = note is not None and (note.hash, note.config) == (content, original.config)
        return same and hash_tensors(made.tensors, finite=False).content == content
    except Problem:  # it is not there, or damaged
        return False
