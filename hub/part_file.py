"""The part of a download that has come: a hidden file beside the target, and what is needed to go on from it."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..files.atomic import flush, flush_folder, hidden_beside, remove
from .progress import amount

# Appending: what a killed process wrote stays. A link that somebody put there is not followed.
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Partial:
    """What has come of one URL. length: bytes so far; total: bytes in all, None if unknown; validator: the server's name
    for this version of the file (its ETag or date), "" if it gave none, with which it can be told whether it changed."""

    path: Path  # .w.pth.polymae-part
    said: Path  # .w.pth.polymae-part.json
    url: str
    length: int = 0
    total: int | None = None
    validator: str = ""

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return self.length == self.total

    @property
    def resumable(self) -> bool:
        """Whether it is of use later: without the server's name for it nobody knows what the rest belongs to."""
        return self.length > 0 and (self.complete or bool(self.validator))

    @property
    def share(self) -> str:
        """How much of it is there, rounded down so that only a whole one has 100 %."""
        return f"{100 * self.length // self.total} %" if self.total else amount(self.length)

    def promise(self, name: str, ranges: bool) -> str:
        """What to say of a part that is left; ranges: whether the server is known to send the rest, else it may be no use."""
        if not self.resumable or not (self.complete or ranges):
            return ""
        return f"{self.share} of {name} are kept: the next time goes on from there."

    def begin(self, total: int | None, validator: str) -> None:
        """Be ready for what a server sends: to go on, or, where nothing has come yet, to start."""
        self.total, self.validator = total, validator
        if not self.length:  # said before the first byte is there: what a killed process leaves can be gone on with
            remove(self.path)
            remove(self.said)
            said = {"url": self.url, "validator": self.validator, "size": self.total}
            with os.fdopen(os.open(self.said, _FLAGS, 0o666), "w", encoding="utf-8") as file:
                json.dump(said, file)

    def opened(self) -> BinaryIO:
        """The file to append to, unbuffered: every byte that came is in it, whatever happens to this process."""
        return os.fdopen(os.open(self.path, _FLAGS, 0o666), "wb", buffering=0)

    def discard(self) -> None:
        """Throw it away."""
        remove(self.path)
        remove(self.said)
        self.length, self.total, self.validator = 0, None, ""

    def put_in_place(self, target: Path) -> None:
        """Be the target, on the disk."""
        flush(self.path)
        self.path.replace(target)
        flush_folder(target.parent)
        remove(self.said)


def left_by_the_last(target: Path, url: str, size: int | None = None, own: str = "") -> Partial:
    """What an earlier process left of this URL beside the target; else an empty one. size: bytes in all, where known.

    own: part of its name, where the file system has no locks, so that two processes do not write to one file.
    """
    part = Partial(hidden_beside(target, f"part{own}"), hidden_beside(target, f"part{own}.json"), url)
    try:
        found = part.path.lstat()
        said = json.loads(part.said.read_bytes())
        known = {"url": url, "validator": str(said["validator"]), "size": said["size"]}
        whole = said["size"]
        fits = whole is None or (type(whole) is int and found.st_size <= whole and size in (None, whole))
        if not stat.S_ISREG(found.st_mode) or said != known or not fits or not sendable(known["validator"]):
            raise ValueError("of another address, or damaged")
    except (FileNotFoundError, IsADirectoryError, ValueError, TypeError, KeyError, RecursionError):
        part.discard()
        return part
    part.length, part.total, part.validator = found.st_size, whole, known["validator"]
    if not part.resumable:
        part.discard()
    return part


def sendable(validator: str) -> bool:
    """Whether a header can hold it, so that a damaged one is never asked for."""
    return validator.isascii() and validator.isprintable() and validator == validator.strip()
