"""Downloading a file once: resumed where it was cut, checked before it takes its place, by one process at a time."""

from __future__ import annotations

import errno
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..backends.installing import install_line
from ..files.atomic import alone, hidden_beside
from ..files.urls import BY_HAND, DownloadProblem, offline, shown
from .part_file import PartFile, left_by_the_last
from .progress import Display, amount

if TYPE_CHECKING:
    from .transport import Answer, Client

STUCK = 600.0  # seconds without a new byte after which one process does not wait for another one's download any longer
TRIES, FIRST_TRIES = 6, 3  # connections in a row that bring nothing; fewer if there never was one
PAUSE, LONGEST_PAUSE = 0.5, 20.0  # seconds between two of them, twice as many every time
MARGIN = 16 << 20  # bytes that are left free on the disk
ELSEWHERE = "POLYMAE_HOME names another folder for the cache."
Check = Callable[[Path], Callable[[], object] | None]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


def download(
    url: str,
    target: Path,
    check: Check,
    *,
    sound: Callable[[Path], bool] = Path.is_file,
    advice: str = BY_HAND,
) -> bool:
    """Have the file of a web address at `target`; True if it was downloaded now, False if it was there.

    check is given the complete file, under another name: if it raises Problem the file is thrown away; the function that it
    may return is called when the file is in its place. sound: whether the file at `target` is the one that is wanted; any
    other stays until the new one takes its place. advice: a sentence for the messages. One process at a time downloads a
    target; the others wait, then use it. The part that came before a cut, Ctrl-C or a kill stays beside the target
    (`.name.polymae-part`) for the next call.
    Raises DownloadProblem, the errors of check, and BusyProblem if another process gets nowhere for STUCK seconds.
    """
    try:
        return not sound(target) and _download_once(url, target, check, sound, advice)
    except OSError as problem:
        raise _disk_problem(target, problem) from problem


def _download_once(url: str, target: Path, check: Check, sound: Callable[[Path], bool], advice: str) -> bool:
    if offline():
        raise DownloadProblem(
            f"{target.name} is not in the cache and POLYMAE_OFFLINE is set, so nothing is fetched. Unset it, or put "
            f"the file of {shown(url)} at {target} yourself."
        )
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        with alone(target, STUCK, _Waiting(target)) as locked:
            if sound(target):  # another process has just downloaded it
                return False
            part = left_by_the_last(target, shown(url), "" if locked else f"-{secrets.token_hex(4)}")
            try:
                _fetch(url, part, target, check, advice)
            finally:
                if not locked or not part.resumable:  # nobody would find it under its own name, or could use it
                    with suppress(OSError):
                        part.discard()
        return True
    finally:
        for folder in missing:
            with suppress(OSError):  # only the empty ones
                folder.rmdir()


class _Waiting:
    """Says once that another process is downloading; gives the size of that one's part, as a sign of life."""

    def __init__(self, target: Path) -> None:
        self.target, self.announced = target, False

    def __call__(self) -> int:
        if not self.announced:
            print(f"waiting for another process that downloads {self.target.name} ...", file=sys.stderr, flush=True)
        self.announced = True
        with suppress(OSError):
            return hidden_beside(self.target, "part").stat().st_size
        return -1


def _fetch(url: str, part: PartFile, target: Path, check: Check, advice: str) -> None:
    """Fetch the rest of the part, check it and put it in place."""
    try:
        from .transport import Client
    except ModuleNotFoundError as missing:
        raise DownloadProblem(
            f"{missing.name} is not installed, and nothing is downloaded without it: {install_line('core')}; "
            f"or put the file of {shown(url)} at {target} yourself."
        ) from None
    with Client(url, advice) as client, Display(target.name, urlsplit(url).hostname or "") as display:
        try:
            _receive(client, part, display)
        except KeyboardInterrupt:
            if part.resumable:
                display.say(part.promise())
            raise
        try:
            finish = check(part.path)
        except (OSError, MemoryError):  # says nothing about the file
            raise
        except Exception:
            part.discard()
            raise
        part.put_in_place(target)
        if finish:
            finish()
        display.end(part.length)


def _receive(client: Client, part: PartFile, display: Display) -> None:
    """Fetch until all is there, through cuts; each time from where the last one ended, if the server can do that."""
    from .transport import Cut

    failures, most, limit = 0, part.length, FIRST_TRIES
    while not part.complete:
        try:
            with client.ask(part.length if part.validator else 0, part.total, part.validator) as answer:
                limit = TRIES
                _append(answer, part, display)
        except Cut as cut:
            limit = TRIES if cut.busy else limit
            failures = 1 if part.length > most else failures + 1
            most = max(most, part.length)
            if failures < limit:
                pause = max(cut.wait, min(PAUSE * 2 ** (failures - 1), LONGEST_PAUSE))
                display.wait(f"{cut}; trying again in {pause:g} s ...")
                time.sleep(pause)
                continue
            promise = f" {part.promise()}" if part.resumable else ""
            raise DownloadProblem(
                f"{shown(client.url)} could not be downloaded: {cut}, {failures} times in a row.{promise} Check the network, or "
                f"try again later; HTTPS_PROXY names a proxy. {client.advice}"
            ) from None


def _append(answer: Answer, part: PartFile, display: Display) -> None:
    """Write the bytes that a server sends. Raises Cut if they are not all."""
    from .transport import Cut

    if answer.start != part.length:
        why = "it is another file by now" if answer.validator != part.validator else "it cannot send only the rest"
        display.say(f"{part.share} of {display.name} were there, but {display.host} sends all of it again: {why}.")
        part.discard()
    _require_room(part.path.parent, (answer.total or 0) - part.length)
    part.begin(answer.total, answer.validator)
    display.begin(part.length, part.total)
    with part.opened() as file:
        for chunk in answer.chunks:
            view = memoryview(chunk)
            while view:  # a disk that is nearly full takes a part of it, and refuses the next one
                written = file.write(view)
                part.length, view = part.length + written, view[written:]
            display.at(part.length)
    if part.total is None:
        part.total = part.length  # the server did not say how much it is; its end is all there is to go by
    if not part.complete:
        raise Cut("the connection was cut")


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + MARGIN:
        raise DownloadProblem(
            f"{amount(needed)} and {amount(MARGIN)} to spare are needed in {folder}, and {amount(free)} are free. "
            f"Make room. {ELSEWHERE}"
        )


def _disk_problem(target: Path, problem: OSError) -> DownloadProblem:
    reason = problem.strerror or str(problem)
    if problem.errno in _FULL:
        advice = f"Make room, then try again. {ELSEWHERE}"
    elif problem.errno in _NOT_OURS:
        advice = f"The folder must be one that you can write to. {ELSEWHERE}"
    else:
        advice = f"Check the disk. {ELSEWHERE}"
    return DownloadProblem(f"{target.name} could not be kept in {target.parent}: {reason}. {advice}")
