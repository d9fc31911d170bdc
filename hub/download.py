"""Downloading a file once: resumed where it was cut, checked before it takes its place, by one process at a time."""

from __future__ import annotations

import errno
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..backends.installing import install_line
from ..files.atomic import alone, hidden_beside
from ..files.urls import BY_HAND, DownloadProblem, is_address, offline, shown
from .part_file import Partial, left_by_the_last
from .progress import Display, amount

if TYPE_CHECKING:
    from .transport import Answer, Client

STUCK = 600.0  # seconds without a new byte after which one process does not wait for another one's download any longer
TRIES, FIRST_TRIES = 6, 3  # connections in a row that bring nothing; fewer where there never was one
PAUSE, LONGEST_PAUSE = 0.5, 20.0  # seconds between two of them, twice as many every time
MARGIN = 16 << 20  # bytes that are left free on the disk
ELSEWHERE = "POLYMAE_HOME names another folder for the cache."
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Wanted:
    """What is to be had: what `url` serves, at `target`, as `download` describes it."""

    url: str
    target: Path
    check: Callable[[Path], object]
    size: int | None = None
    sound: Callable[[Path], bool] = Path.is_file
    advice: str = BY_HAND

    def is_there(self) -> bool:
        """Whether nothing needs to be downloaded."""
        with suppress(PermissionError):  # of a folder that may not be looked into
            return self.sound(self.target)
        return False


def download(
    url: str,
    target: Path,
    check: Callable[[Path], object],
    *,
    size: int | None = None,
    sound: Callable[[Path], bool] = Path.is_file,
    advice: str = BY_HAND,
) -> bool:
    """Have what a URL serves at `target`; True where it was downloaded now, False where it was there.

    check is given the complete file, under another name, before it takes its place: where it raises Problem the file is
    thrown away; where it returns something that can be called, that is called when the file is in its place. sound: whether
    what stands at `target` already is what is wanted; else it stays until the new one takes its place. size: bytes, where
    known. advice: a sentence for the messages. One process at a time downloads a target; the others wait, then use it. What
    has come before a cut, Ctrl-C or a kill is kept beside the target (`.name.polymae-part`) for the next call.
    Raises DownloadProblem, what check raises, and BusyProblem where another process gets nowhere for STUCK seconds.
    """
    wanted = Wanted(url, target, check, size, sound, advice)
    try:
        return not wanted.is_there() and _download_once(wanted)
    except OSError as problem:
        raise _disk_problem(target, problem) from problem


def _download_once(wanted: Wanted) -> bool:
    url, target = wanted.url, wanted.target
    if offline():
        raise DownloadProblem(
            f"{target.name} is not in the cache and POLYMAE_OFFLINE is set, so nothing is fetched. Unset it, or put "
            f"the file of {shown(url)} at {target} yourself."
        )
    if not is_address(url):
        raise DownloadProblem(f"{shown(url)!r} is no address to download from: it must begin with http:// or https://.")
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        with alone(target, STUCK, _Waiting(target)) as locked:
            if wanted.is_there():  # another process has just downloaded it
                return False
            part = left_by_the_last(target, shown(url), wanted.size, "" if locked else f"-{secrets.token_hex(4)}")
            try:
                _fetch(wanted, part)
            finally:
                if not locked or not part.resumable:  # nobody would find it under its own name, or could use it
                    with suppress(OSError):
                        part.discard()
        return True
    finally:
        for folder in missing:
            with suppress(OSError):  # only what is still empty is removed
                folder.rmdir()


class _Waiting:
    """Says once that another process is at it; gives the size of what that one has, as a sign of life."""

    def __init__(self, target: Path) -> None:
        self.target, self.said = target, False

    def __call__(self) -> int:
        if not self.said:
            print(f"waiting for another process that downloads {self.target.name} ...", file=sys.stderr, flush=True)
        self.said = True
        with suppress(OSError):
            return hidden_beside(self.target, "part").stat().st_size
        return -1


def _fetch(wanted: Wanted, part: Partial) -> None:
    """Fetch what is missing of the part, check it and put it in place."""
    url, target = wanted.url, wanted.target
    try:
        from .transport import Client
    except ModuleNotFoundError as missing:
        raise DownloadProblem(
            f"{missing.name} is not installed, and nothing is downloaded without it: {install_line('core')}; "
            f"or put the file of {shown(url)} at {target} yourself."
        ) from None
    with Client(url, wanted.advice) as client, Display(target.name, urlsplit(url).hostname or "") as display:
        try:
            _receive(client, part, display, wanted.size)
        except KeyboardInterrupt:
            if promise := part.promise(target.name, client.ranges):
                display.say(promise)
            raise
        try:
            finish = wanted.check(part.path)
        except (OSError, MemoryError):  # says nothing of the file
            raise
        except Exception:
            part.discard()
            raise
        part.put_in_place(target)
        if callable(finish):
            finish()
        display.end(part.length)


def _receive(client: Client, part: Partial, display: Display, size: int | None) -> None:
    """Fetch until all is there, through cuts; each time from where the last one ended, if the server can do that."""
    from .transport import Cut

    failures, most, limit = 0, part.length, FIRST_TRIES
    while not part.complete:
        try:
            with client.ask(part.length if part.validator else 0, part.total, part.validator) as answer:
                limit = TRIES
                _append(client, answer, part, display, size)
        except Cut as cut:
            failures = 1 if part.length > most else failures + 1
            most = max(most, part.length)
            if failures < limit:
                pause = min(PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
                display.wait(f"{cut}; trying again in {pause:g} s ...")
                time.sleep(pause)
                continue
            kept = " ".join(["", part.promise("it", client.ranges)]).rstrip()
            raise DownloadProblem(
                f"{shown(client.url)} could not be downloaded: {cut}, {failures} times in a row.{kept} Check the network; "
                f"HTTPS_PROXY names a proxy. {client.advice}"
            ) from None


def _append(client: Client, answer: Answer, part: Partial, display: Display, size: int | None) -> None:
    """Write what a server sends. Raises Cut where it is not all of it."""
    from .transport import Cut

    if answer.start != part.length:
        why = "it is another file by now" if answer.validator != part.validator else "it cannot send only the rest"
        display.say(f"{part.share} of {display.name} were there, but {display.host} sends all of it again: {why}.")
        part.discard()
    if size is not None and answer.total not in (None, size):
        raise DownloadProblem(
            f"{shown(part.url)} has {answer.total} bytes, but {size} are expected: it is another file. {client.advice}"
        )
    total = size if answer.total is None else answer.total
    _require_room(part.path.parent, (total or 0) - part.length)
    part.begin(total, answer.validator)
    display.begin(part.length, part.total)
    with part.opened() as file:
        for chunk in answer.chunks:
            view = memoryview(chunk)
            while view:  # a disk that is nearly full takes a part of it, and says so the next time
                written = file.write(view)
                part.length, view = part.length + written, view[written:]
            display.at(part.length)
    if part.total is None:
        part.total = part.length  # the server did not say how much it is; its end is all there is to go by
    if part.length < part.total:
        raise Cut("the connection was cut")
    if part.length > part.total:
        part.discard()
        raise DownloadProblem(f"{shown(part.url)} is longer than the {size} bytes that are expected. {client.advice}")


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + MARGIN:
        raise DownloadProblem(
            f"{amount(needed)} and {amount(MARGIN)} to spare are needed in {folder}, and {amount(free)} are free. "
            f"Make room. {ELSEWHERE}"
        )


def _disk_problem(target: Path, problem: OSError) -> DownloadProblem:
    said = problem.strerror or str(problem)
    if problem.errno in _FULL:
        advice = f"Make room, then try again. {ELSEWHERE}"
    elif problem.errno in _NOT_OURS:
        advice = f"The folder must be one that you can write to. {ELSEWHERE}"
    else:
        advice = f"Check the disk. {ELSEWHERE}"
    return DownloadProblem(f"{target.name} could not be kept in {target.parent}: {said}. {advice}")
