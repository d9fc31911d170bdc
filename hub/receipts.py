"""Where downloaded weights lie, and the record beside each file: where it came from, and what it was then.

<home>/weights/<file> for the official files, <home>/weights/<first digits of the URL's SHA-256>/<file> for every other
URL, so that files of one name are never in each other's way; beside each <file>.source.json. What was converted lies beside
its original, or in <home>/converted/<digits>/ where the original lies outside.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ..files.errors import Problem
from ..files.urls import is_address, same_file, shown
from .registry import Published

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint

HOME = "POLYMAE_HOME"
ENDING = ".source.json"
OFFICIAL = "official"  # the source in the registry whose files need no folder of their own
_LONGEST = 1 << 16  # bytes of a record
_CHUNK = 1 << 22


class CacheProblem(Problem):
    """The cache, or a file in it, cannot be used."""


@dataclass(frozen=True)
class Record:
    """What was downloaded. url: from where, without passwords and queries. name: in the registry, or "".

    bytes, md5, sha256: of the file. hash: the content hash of its weights, or "" where the file does not tell its model.
    """

    url: str
    bytes: int
    md5: str
    sha256: str
    hash: str
    name: str = ""


def home() -> Path:
    """The folder of everything that is kept: $POLYMAE_HOME, else $XDG_CACHE_HOME/polymae, else ~/.cache/polymae.

    It need not exist. Raises CacheProblem where there is no home folder, or something else of its name.
    """
    try:
        shared = Path(os.environ.get("XDG_CACHE_HOME") or "-")
        if own := os.environ.get(HOME):
            found = Path(own).expanduser().absolute()
        else:  # by its specification, a relative one is as none
            found = (shared if shared.is_absolute() else Path.home() / ".cache") / "polymae"
    except RuntimeError as problem:
        raise CacheProblem(f"There is no home folder ({problem}): set {HOME} to a folder for downloads.") from None
    if os.path.exists(found) and not os.path.isdir(found):  # noqa: PTH110, PTH112  (which raise where one may not look)
        raise CacheProblem(f"{found} is no folder, and downloads are kept in one: set {HOME} to another place.")
    return found


def place(what: Published | str) -> Path:
    """Where the file of a published checkpoint, or of a URL, lies or would lie. Raises CacheProblem for no web address."""
    if isinstance(what, Published):
        if what.source == OFFICIAL:
            return home() / "weights" / what.file
        what = what.url
    if not is_address(what):
        raise CacheProblem(f"{shown(what)!r} is no web address; one begins with http:// or https://.")
    name = re.sub(r"[^\w.+-]", "_", PurePosixPath(unquote(urlsplit(what).path)).name).lstrip(".") or "checkpoint"
    return home() / "weights" / hashlib.sha256(same_file(what).encode()).hexdigest()[:12] / name[-150:]


def say(sentence: str) -> None:
    """Tell the user something, on stderr: stdout is for results."""
    print(sentence, file=sys.stderr, flush=True)


def writable(folder: Path) -> bool:
    """Whether a folder can be written to, or made; nothing is made."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def record_path(path: Path) -> Path:
    """Where the record of a downloaded file lies."""
    return path.with_name(path.name + ENDING)


def read_record(path: Path) -> Record | None:
    """The record of a downloaded file; None where there is none, or a damaged one."""
    try:
        with record_path(path).open("rb") as file:
            said = json.loads(file.read(_LONGEST))
        record = Record(**said)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (record.url, record.md5, record.sha256, record.hash, record.name)
    sound = type(record.bytes) is int and all(isinstance(text, str) for text in texts)
    return record if sound and len(record.md5) == 32 and len(record.sha256) == 64 else None


def write_record(path: Path, record: Record) -> None:
    """Put a record beside a downloaded file, at once. Raises OSError."""
    write_json(record_path(path), asdict(record))


def write_json(path: Path, said: object) -> None:
    """Write a small file at once. Raises OSError."""
    from ..files.atomic import replacing

    with replacing(path) as new:
        new.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def measured(path: Path, url: str, name: str = "") -> tuple[Record, Checkpoint]:
    """Look through a whole file: its record, and the checkpoint that it is. A folder has no digests.

    Raises Problem where it is no checkpoint, is damaged or holds values that are not finite.
    """
    from ..convert.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(path)
    digests = {} if path.is_dir() else digests_of(path)
    found = (digests.get("md5", ""), digests.get("sha256", ""), content_of(checkpoint))
    record = Record(url, size_of(path), *found, name)
    return record, checkpoint


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(Path(base, name).lstat().st_size for base, _, names in os.walk(path) for name in names)
    return path.stat().st_size


def digests_of(path: Path) -> dict[str, str]:
    """MD5 and SHA-256 of a file, in one pass, as hexadecimal digits."""
    found = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            for digest in found.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in found.items()}


def content_of(checkpoint: Checkpoint) -> str:
    """The content hash of all weights of a checkpoint; "" where it depends on a model that the file does not tell.

    Raises CheckpointProblem where a tensor cannot be read, or is not finite.
    """
    from ..convert.hashing import hash_tensors
    from ..convert.tensors import CheckpointProblem

    hashed = hash_tensors(checkpoint.tensors if checkpoint.placed else checkpoint.stored)
    if hashed.not_finite:
        raise CheckpointProblem(
            f"{checkpoint.path} is not finite:\n  " + "\n  ".join(hashed.not_finite), hashed.not_finite
        )
    content = hashed.content if checkpoint.placed else ""
    if content and checkpoint.provenance is not None:
        checkpoint.require_own_provenance(content)
    return content


def unlike(digests: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Which digest begins otherwise than was published: "md5 <found>, expected <digits>"; "" where none does."""
    for algorithm, digits in expected.items():
        found = digests.get(algorithm, "")
        if not found.startswith(digits.lower()):
            return f"{algorithm} {found}, expected {digits}{'...' if len(digits) < len(found) else ''}"
    return ""
