"""The part of a download that has come: a hidden file beside the target, and a note with which the next process goes on."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..files.atomic import flush, flush_folder, hidden_beside, remove
from .progress import amount

# Appending: the bytes that a killed process wrote stay. A link that somebody put there is not followed.
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class PartFile:
    """The bytes of one URL that have come."""

    path: Path  # .w.pth.polymae-part
    note: Path  # .w.pth.polymae-part.json
    url: str
    length: int = 0  # bytes so far
    total: int | None = None  # bytes in all; None if unknown
    validator: str = ""  # the server's name for this version of the file (its ETag or date); "" if it gave none

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return self.length == self.total

    @property
    def resumable(self) -> bool:
        """Whether it is of use later: without a validator nobody knows whether the rest belongs to it."""
        return self.length > 0 and (self.complete or bool(self.validator))

    @property
    def share(self) -> str:
        """How much of it is there, rounded down so that only a whole one has 100 %."""
        return f"{100 * self.length // self.total} %" if self.total else amount(self.length)

    def promise(self) -> str:
        """A sentence about a part that stays."""
        return f"{self.share} of it are kept: the next time goes on from there, if the server can send the rest."

    def begin(self, total: int | None, validator: str) -> None:
        """Prepare for the bytes that a server sends."""
        self.total, self.validator = total, validator
        if not self.length:  # written before the first byte comes: the part of a killed process has its note
            remove(self.path)
            remove(self.note)
            note = {"url": self.url, "validator": self.validator, "size": self.total}
            with os.fdopen(os.open(self.note, _FLAGS, 0o666), "w", encoding="utf-8") as file:
                json.dump(note, file)

    def opened(self) -> BinaryIO:
        """The file to append to, unbuffered: every byte that came is in it, if this process is killed."""
        return os.fdopen(os.open(self.path, _FLAGS, 0o666), "wb", buffering=0)

    def discard(self) -> None:
        """Throw it away."""
        remove(self.path)
        remove(self.note)
        self.length, self.total, self.validator = 0, None, ""

    def put_in_place(self, target: Path) -> None:
        """Become the target, on the disk."""
        flush(self.path)
        self.path.replace(target)
        flush_folder(target.parent)
        remove(self.note)


def left_by_the_last(target: Path, url: str, suffix: str = "") -> PartFile:
    """The part of this URL that an earlier process left beside the target; else an empty one.

    own: a piece of its name if the file system has no locks, so that two processes do not write to one file.
    """
    part = PartFile(hidden_beside(target, f"part{suffix}"), hidden_beside(target, f"part{suffix}.json"), url)
    try:
        status = part.path.lstat()
        note = json.loads(part.note.read_bytes())
        total, validator = note["size"], note["validator"]
        fits = total is None or (type(total) is int and status.st_size <= total)
        if not stat.S_ISREG(status.st_mode) or note["url"] != url or not fits or not sendable(validator):
            raise ValueError("of another address, or damaged")
    except (FileNotFoundError, IsADirectoryError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        part.discard()
        return part
    part.length, part.total, part.validator = status.st_size, total, validator
    if not part.resumable:
        part.discard()
    return part


def sendable(validator: str) -> bool:
    """Whether a header can hold it: a damaged one is never sent."""
    return validator.isascii() and validator.isprintable() and validator == validator.strip()
