"""Published weights, downloaded once, verified, and kept."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..backends.presets import model_config
from ..files.errors import Problem
from ..files.urls import BY_HAND, below, is_address, offline, shown
from .huggingface import fetch_huggingface
from .licences import show_licence
from .native import explaining, native
from .receipts import (
    CacheProblem,
    Record,
    digests_of,
    measured,
    place,
    read_record,
    record_path,
    say,
    unlike,
    write_record,
)
from .registry import Published, find

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint

__all__ = ["explaining", "fetch", "fetch_huggingface", "fetch_url", "kept", "native", "why_not"]

MIRROR = "POLYMAE_MIRROR"
_AGAIN = "Nothing needs to be removed by hand. Try again, for a proxy or the transfer may have changed it"


def fetch(row: Published) -> Path:
    """The file of a published checkpoint (a folder where it is Hugging Face's), downloaded where it is not here yet.

    What was downloaded is verified before it is kept: its digest where one is published, and that it is a checkpoint of the
    row's model and contents. What was there before stays until then. Raises Problem: no network, no room, another file than
    was published.
    """
    if row.huggingface:
        from ..convert.checkpoint import open_checkpoint

        path = fetch_huggingface(row.huggingface)
        _require_row(open_checkpoint(path), row)
        show_licence(row)
        return path
    path = place(row)
    if not _sound(path, row) and _have(path, _address(row), row):
        show_licence(row)
    return path


def fetch_url(url: str) -> Path:
    """A checkpoint from anywhere, downloaded where it is not here yet, and verified to be one that can be read.

    Where its name ends in eight digits of its SHA-256, as torch.hub's do (name-1a2b3c4d.pth), these are compared.
    Raises Problem as fetch.
    """
    if row := find(url):
        return fetch(row)
    path = place(url)
    if not _sound(path, None):
        _have(path, url, None)
    return path


def kept(what: Published | str) -> Path | None:
    """The file of a published checkpoint, or of a URL, where it is here already and sound, else None. No network."""
    path = place(what)
    return path if _sound(path, _row(what)) else None


def why_not(what: Published | str) -> str:
    """Why a file that is here is not used, as a sentence; "" where there is none, or nothing is wrong with it."""
    path = place(what)
    wrong = _wrong(path, _row(what)) if path.is_file() else ""
    return f"{path} {wrong}." if wrong else ""


def _row(what: Published | str) -> Published | None:
    return what if isinstance(what, Published) else None


def _mirror() -> str:
    return os.environ.get(MIRROR, "").strip()


def _address(row: Published) -> str:
    """From where a row's file is downloaded: its project's server, or the mirror."""
    mirror = _mirror()
    if not mirror:
        return row.url
    if not is_address(mirror):
        raise CacheProblem(
            f"{MIRROR} is {shown(mirror)!r}, which is no web address. It must begin with http:// or https://, and "
            f"{row.path} must lie below it; or unset it."
        )
    return below(mirror, row.path)


def _elsewhere(row: Published | None) -> str:
    """Where else a file might be had."""
    if row is None:
        return BY_HAND
    if _mirror():
        return f"That is the server of {MIRROR}; without it, the file is asked for at {shown(row.url)}."
    return f"{MIRROR}=<address> names a mirror of the published files. {BY_HAND}"


def _sound(path: Path, row: Published | None) -> bool:
    """Whether a file is here with its record. What it holds is not looked through again."""
    return path.is_file() and _wrong(path, row) == ""


def _wrong(path: Path, row: Published | None) -> str:
    """What is wrong with a file that is here, as the rest of a sentence; "" where its record and the registry fit it."""
    record = read_record(path)
    if record is None:
        return f"has {'a damaged' if record_path(path).exists() else 'no'} record of a download beside it"
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "was removed just now"
    if size != record.bytes:
        return f"is damaged: it has {size:,} bytes, {record.bytes:,} were downloaded"
    wrong = unlike({"md5": record.md5, "sha256": record.sha256}, row.digests if row else _digits(path.name))
    return f"is what was downloaded, but the list now names another digest ({wrong})" if wrong else ""


def _have(path: Path, url: str, row: Published | None) -> bool:
    """Download what is not here, or not right; False where another process did. A file without a record is verified."""
    from .download import download

    wrong = ""
    if path.is_file() and read_record(path) is None:
        wrong = _adopt(path, url, row)
        if not wrong:
            return True
    elif path.is_file():
        wrong = _wrong(path, row)
    if wrong and offline():
        raise CacheProblem(
            f"{path} {wrong}, and POLYMAE_OFFLINE is set. Unset it to download the file, or put the right one there."
        )
    if wrong:
        say(f"{path} {wrong}; it is downloaded again.")
    try:
        return download(
            url,
            path,
            lambda new: _recorded(path, new, url, row),
            sound=lambda there: _sound(there, row),
            advice=_elsewhere(row),
        )
    except Problem as problem:
        if not wrong or not path.exists():
            raise
        raise CacheProblem(f"{path} {wrong}. It stays there, for another one was not to be had: {problem}") from None


def _adopt(path: Path, url: str, row: Published | None) -> str:
    """Verify a file that was put there by hand, or whose record is damaged, and write its record if possible.

    What is wrong with it is returned where we wrote it ourselves. Raises CacheProblem where we did not: it is not ours to
    replace.
    """
    try:
        record = _verified(path, url, row)
    except (Problem, OSError) as problem:
        said = str(problem).rstrip(".")
        if record_path(path).exists():
            return f"is damaged, with its record: it is {said}"
        raise CacheProblem(
            f"{path} is {said}. It was put there by hand (no record of a download lies beside it), so it is left as it is: "
            f"where it is still being copied, wait for the end; else put the right file there, or remove it to have it "
            "downloaded."
        ) from None
    with suppress(OSError):  # a cache that may only be read: it is verified each time
        write_record(path, record)
    return ""


def _recorded(path: Path, new: Path, url: str, row: Published | None) -> Callable[[], None] | None:
    """Verify what was downloaded and write its record; or give what writes it when the file is in its place."""
    try:
        record = _verified(new, url, row)
    except Problem as problem:
        named = f" as {row.name}" if row else ""
        raise CacheProblem(f"What {shown(url)} serves{named} is {problem} {_AGAIN}. {_elsewhere(row)}") from None
    if path.exists():  # its own record is right as long as it is there
        return lambda: write_record(path, record)
    write_record(path, record)  # whoever finds the file finds its record, too
    return None


def _verified(path: Path, url: str, row: Published | None) -> Record:
    """The record of a file from a URL. Raises CacheProblem where it is another one than expected: what it is instead."""
    digits = {} if row else _digits(place(url).name)
    expected = row.digests if row else digits
    try:
        record, checkpoint = measured(path, shown(url), row.name if row else "")
        if row is not None:
            _require_row(checkpoint, row)
    except Problem as problem:
        reason = str(problem).replace(str(path), "it")
        if wrong := unlike(digests_of(path), expected):
            reason += f" It has the {wrong}."
        raise CacheProblem(f"not the checkpoint that was expected: {reason}") from None
    if wrong := unlike({"md5": record.md5, "sha256": record.sha256}, expected):
        than = (
            "its name says, whose last digits are those of the SHA-256 as in torch.hub" if digits else "was published"
        )
        changed = " If it stays so, its project has changed the file: please report it." if row else ""
        raise CacheProblem(f"another file ({record.bytes:,} bytes) than {than}: it has the {wrong}.{changed}")
    return record


def _digits(name: str) -> Mapping[str, str]:
    """The first digits of the SHA-256 that a file's name carries, as torch.hub writes them. Eight that are a date are none."""
    found = re.search(r"-([0-9a-f]{8})(?:\.\w+)+$", name)
    return {} if found is None or re.fullmatch(r"(19|20)\d{6}", found[1]) else {"sha256": found[1]}


def _require_row(checkpoint: Checkpoint, row: Published) -> None:
    """Raise CheckpointProblem or CacheProblem where a checkpoint is not of the row's model, or holds something else."""
    if checkpoint.contents != row.contents:
        raise CacheProblem(f"{checkpoint.path} holds {checkpoint.contents} weights; {row.name} is {row.holds}.")
    if checkpoint.model is not None and checkpoint.model != row.model:
        raise CacheProblem(f"{checkpoint.path} is of {checkpoint.model}; {row.name} is of {row.model}.")
    checkpoint.select(model_config(row.model), row.contents == "encoder")
