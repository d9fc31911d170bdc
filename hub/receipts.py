"""Where downloaded weights lie, and the receipt beside each file: its origin, and its digests then.

<home>/weights/<file> for the official files, <home>/weights/<first digits of the URL's SHA-256>/<file> for every other
URL, so that files of one name are never in each other's way; the receipt is <file>.source.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ..files.errors import Problem
from ..files.urls import is_address, same_file, shown
from .registry import Published, published

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint

HOME = "POLYMAE_HOME"
ENDING = ".source.json"
OFFICIAL = "official"  # the source in the registry whose files need no folder of their own
_LONGEST = 1 << 16  # bytes of a receipt
_CHUNK = 1 << 22


class CacheProblem(Problem):
    """The cache, or a file in it, cannot be used."""


@dataclass(frozen=True)
class Receipt:
    """A download."""

    url: str  # without passwords and queries
    bytes: int
    md5: str
    sha256: str
    hash: str  # of the weights (`polymae inspect`); "" if the file does not tell its model
    name: str = ""  # in the registry

    @property
    def digests(self) -> dict[str, str]:
        """Of the file, by algorithm."""
        return {"md5": self.md5, "sha256": self.sha256}


def home() -> Path:
    """The folder of everything that is kept: $POLYMAE_HOME, else $XDG_CACHE_HOME/polymae, else ~/.cache/polymae.

    It need not exist. Raises CacheProblem if the user has no home folder, or if the path is not that of a folder.
    """
    try:
        shared = Path(os.environ.get("XDG_CACHE_HOME") or "-")
        if chosen := os.environ.get(HOME):
            folder = Path(chosen).expanduser().absolute()
        else:  # by its specification, a relative one is as none
            folder = (shared if shared.is_absolute() else Path.home() / ".cache") / "polymae"
    except RuntimeError as problem:
        raise CacheProblem(f"There is no home folder ({problem}): set {HOME} to a folder for downloads.") from None
    if os.path.exists(folder) and not os.path.isdir(folder):  # noqa: PTH110, PTH112  (which raise where one may not look)
        raise CacheProblem(f"{folder} is no folder, and downloads are kept in one: set {HOME} to another place.")
    return folder


def place(weights: Published | str) -> Path:
    """Where the file of a published checkpoint, or of a URL, lies or would lie. Raises CacheProblem for no web address."""
    if isinstance(weights, Published) and weights.source == OFFICIAL:
        return home() / "weights" / weights.file
    url = weights.url if isinstance(weights, Published) else weights
    if not is_address(url):
        raise CacheProblem(f"{shown(url)!r} is no web address; one begins with http:// or https://.")
    name = re.sub(r"[^\w.+-]", "_", PurePosixPath(unquote(urlsplit(url).path)).name).lstrip(".") or "checkpoint"
    return home() / "weights" / hashlib.sha256(same_file(url).encode()).hexdigest()[:12] / name[-150:]


def say(sentence: str) -> None:
    """Tell the user something, on stderr: stdout is for results."""
    print(sentence, file=sys.stderr, flush=True)


def receipt_path(path: Path) -> Path:
    """Where the receipt of a downloaded file lies."""
    return path.with_name(path.name + ENDING)


def read_receipt(path: Path) -> Receipt | None:
    """The receipt of a downloaded file; None if there is none, or a damaged one."""
    try:
        with receipt_path(path).open("rb") as file:
            receipt = Receipt(**json.loads(file.read(_LONGEST)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (receipt.url, receipt.md5, receipt.sha256, receipt.hash, receipt.name)
    sound = type(receipt.bytes) is int and all(isinstance(text, str) for text in texts)
    return receipt if sound and len(receipt.md5) == 32 and len(receipt.sha256) == 64 else None


def write_receipt(path: Path, receipt: Receipt) -> None:
    """Put a receipt beside a downloaded file, in one step. Raises OSError."""
    write_json(receipt_path(path), asdict(receipt))


def write_json(path: Path, content: object) -> None:
    """Write a small file in one step. Raises OSError."""
    from ..files.atomic import replacing

    with replacing(path) as new:
        new.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measured(path: Path, url: str, name: str = "") -> tuple[Receipt, Checkpoint]:
    """Read a whole file: its receipt, and the checkpoint that it is. A folder has no digests.

    Raises Problem if it is no checkpoint, is damaged or holds values that are not finite.
    """
    from ..convert.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(path)
    digests = {"md5": "", "sha256": ""} if path.is_dir() else digests_of(path)
    return Receipt(url, size_of(path), **digests, hash=content_of(checkpoint), name=name), checkpoint


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(Path(base, name).lstat().st_size for base, _, names in os.walk(path) for name in names)
    return path.stat().st_size


def digests_of(path: Path) -> dict[str, str]:
    """MD5 and SHA-256 of a file, in one pass, as hexadecimal digits."""
    digests = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            for digest in digests.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def content_of(checkpoint: Checkpoint) -> str:
    """The content hash of all weights of a checkpoint; "" if it depends on a model that the file does not tell.

    Raises CheckpointProblem if a tensor cannot be read, or is not finite.
    """
    from ..convert.hashing import hash_tensors
    from ..convert.tensors import CheckpointProblem

    hashed = hash_tensors(checkpoint.tensors if checkpoint.placed else checkpoint.stored)
    if hashed.not_finite:
        raise CheckpointProblem(
            f"{checkpoint.path} is not finite:\n  " + "\n  ".join(hashed.not_finite),
            hashed.not_finite,
            code="not-finite",
        )
    content = hashed.content if checkpoint.placed else ""
    if content and checkpoint.provenance is not None:
        checkpoint.require_own_provenance(content)
    return content


def unlike(digests: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Which digest begins otherwise than expected: "md5 <actual>, expected <digits>"; "" if all agree."""
    for algorithm, digits in expected.items():
        actual = digests.get(algorithm, "")
        if not actual.startswith(digits.lower()):
            return f"{algorithm} {actual}, expected {digits}{'...' if len(digits) < len(actual) else ''}"
    return ""


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """While it lasts, a Problem with a kept file names the remedy, if that file was damaged after its download.

    Raises CacheProblem then; any other Problem, and one with any other file, goes on as it is.
    """
    try:
        yield
    except Problem:
        receipt = read_receipt(path)
        if receipt is None or not path.is_file():
            raise
        difference = unlike(digests_of(path), receipt.digests)
        if not difference:
            raise
        name = receipt.name if receipt.name in published() else path
        raise CacheProblem(
            f"{path} was damaged after it had been downloaded ({difference}). Type `polymae weights clear {name}`, then try "
            "again: it is downloaded anew."
        ) from None
