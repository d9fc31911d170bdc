"""Published weights, downloaded once, verified, and kept."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..backends.errors import Problem
from ..backends.presets import model_config
from .converted import native
from .download import is_address
from .huggingface import fetch_huggingface
from .records import (
    HOME,
    CacheProblem,
    Record,
    digests_of,
    home,
    measured,
    place,
    read_record,
    say,
    unlike,
    write_json,
    write_record,
)
from .registry import Published, find, published
from .stored import cached, clear, verify

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint

__all__ = ["cached", "clear", "fetch", "fetch_huggingface", "fetch_url", "home", "kept", "native", "place", "verify"]

MIRROR = "POLYMAE_MIRROR"
_TRY = (
    "Nothing needs to be removed by hand. Try again, for a proxy or the transfer may have changed it; or take it from "
    f"another place with {MIRROR}=<address>"
)
# What a licence means for who downloads.
_MEANING = {"CC-BY-NC 4.0": "not for commercial use, and its authors are to be named"}


def fetch(row: Published) -> Path:
    """The file of a published checkpoint (a folder where it is Hugging Face's), downloaded where it is not here yet.

    What was downloaded is verified before it is kept: its digest where one is published, and that it is a checkpoint of the
    row's model and contents. Raises Problem: no network, no room, another file than was published.
    """
    if row.huggingface:
        from ..convert.checkpoint import open_checkpoint

        path = fetch_huggingface(row.huggingface)
        _require_row(open_checkpoint(path), row)
        _show_licence(row)
        return path
    path = place(row)
    if not _sound(path, row) and _have(path, _address(row), row):
        _show_licence(row)
    return path


def fetch_url(url: str) -> Path:
    """A checkpoint from anywhere, downloaded where it is not here yet, and verified to be one that can be read.

    Where its name ends in the first digits of its SHA-256, as torch.hub's do (name-1a2b3c4d.pth), these are compared.
    Raises Problem as fetch.
    """
    if row := find(url):
        return fetch(row)
    path = place(url)
    if not _sound(path, None):
        _have(path, url, None)
    return path


def kept(what: Published | str) -> Path | None:
    """What a published checkpoint, a URL or a Hugging Face id leads to where it is here already, else None. No network."""
    row = what if isinstance(what, Published) else None
    repo = row.huggingface if row else "" if "://" in str(what) else str(what)
    if repo:
        try:
            return fetch_huggingface(repo, offline=True)
        except Problem:
            return None
    path = place(what)
    return path if _sound(path, row) else None


def _address(row: Published) -> str:
    """From where a row's file is downloaded: its project's server, or the mirror."""
    mirror = os.environ.get(MIRROR, "").strip()
    if not mirror:
        return row.url
    if not is_address(mirror):
        raise CacheProblem(
            f"{MIRROR} is {mirror!r}, which is no web address. It must begin with http:// or https://, and "
            f"{row.path} must lie below it; or unset it."
        )
    return mirror.rstrip("/") + "/" + row.path


def _sound(path: Path, row: Published | None) -> bool:
    """Whether a file is here with its record. What it holds is not looked through again."""
    return path.is_file() and _wrong(path, row) == ""


def _wrong(path: Path, row: Published | None) -> str:
    """What of a file contradicts its record, or the record its row of the registry; "" where nothing does."""
    record = read_record(path)
    if record is None:
        return "there is no record of it"
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "another process has just removed it"
    if size != record.bytes:
        return f"it has {size:,} bytes, {record.bytes:,} were downloaded"
    if row is not None and record.name != row.name and record.name in published():
        return f"it is {record.name}"
    return unlike({"md5": record.md5, "sha256": record.sha256}, row.digests if row else _digits(path.name))


def _have(path: Path, url: str, row: Published | None) -> bool:
    """Download what is not here, or is damaged; False where another process did. A file without a record is verified."""
    from .download import download

    if path.is_file() and read_record(path) is None and _adopt(path, url, row):
        return True
    _remove_damaged(path, row)
    # The record comes first: whoever finds the file finds its record, too.
    return download(url, path, lambda new: write_record(path, _verified(new, url, row)))


def _adopt(path: Path, url: str, row: Published | None) -> bool:
    """Verify a file that was put there by hand, or whose record was lost, and write its record if possible."""
    try:
        record = _verified(path, url, row)
    except (Problem, OSError) as problem:
        say(f"{path} is not what it should be: {problem}")
        return False
    with suppress(OSError):  # a cache that may only be read: it is verified each time
        write_record(path, record)
    return True


def _remove_damaged(path: Path, row: Published | None) -> None:
    """Remove what is not sound, unless another process has put a sound one in its place by now."""
    from ..convert.atomic import alone
    from .download import offline

    if not os.path.lexists(path) or path.is_dir():
        return
    try:
        with alone(path):
            if not os.path.lexists(path) or _sound(path, row):
                return
            wrong = _wrong(path, row)
            if offline():
                raise CacheProblem(
                    f"{path} is damaged ({wrong}) and POLYMAE_OFFLINE is set. Unset it to download the file again, or put "
                    "a sound one there."
                )
            say(f"{path} is damaged and is downloaded again: {wrong}.")
            path.unlink()
    except OSError as problem:
        raise CacheProblem(
            f"{path} is damaged and cannot be replaced: {problem.strerror}. Remove it, or set {HOME} to a folder that you may "
            "write to."
        ) from None


def _verified(path: Path, url: str, row: Published | None) -> Record:
    """The record of a file that was downloaded from a URL. Raises CacheProblem where it is another one than expected."""
    from .download import shown

    said, named = shown(url), f" as {row.name}" if row else ""
    expected = row.digests if row else _digits(place(url).name)
    try:
        record, checkpoint = measured(path, said, row.name if row else "")
        if row is not None:
            _require_row(checkpoint, row)
    except Problem as problem:
        reason = str(problem).replace(str(path), "it")
        if wrong := unlike(digests_of(path), expected):
            reason += f" It has the {wrong}."
        raise CacheProblem(
            f"What {said} serves{named} is not the checkpoint that was expected: {reason} {_TRY}."
        ) from None
    if wrong := unlike({"md5": record.md5, "sha256": record.sha256}, expected):
        raise CacheProblem(
            f"What {said} serves{named} ({record.bytes:,} bytes) is another file than was published: it has the {wrong}. "
            f"{_TRY}. If it stays so, its project has changed the file: please report it."
        )
    return record


def _digits(name: str) -> Mapping[str, str]:
    """The first digits of the SHA-256 that a file's name carries. Eight that are a date are none."""
    found = re.search(r"-([0-9a-f]{8,64})(?:\.\w+)+$", name)
    return {} if found is None or re.fullmatch(r"(19|20)\d{6}", found[1]) else {"sha256": found[1]}


def _show_licence(row: Published) -> None:
    """Say once under which licence weights are."""
    path = home() / "licences-shown.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = None
    shown = said if isinstance(said, list) else []
    if row.licence not in shown:
        meaning = f" ({_MEANING[row.licence]})" if row.licence in _MEANING else ""
        say(f"Licence of {row.name}: {row.licence}{meaning}. To cite: {row.citation}. This is said once.")
        with suppress(OSError):  # a cache that may only be read
            write_json(path, [*shown, row.licence])


def _require_row(checkpoint: Checkpoint, row: Published) -> None:
    """Raise CheckpointProblem or CacheProblem where a checkpoint is not of the row's model, or holds something else."""
    if checkpoint.contents != row.contents:
        raise CacheProblem(f"{checkpoint.path} holds {checkpoint.contents} weights; {row.name} is {row.holds}.")
    if checkpoint.model is not None and checkpoint.model != row.model:
        raise CacheProblem(f"{checkpoint.path} is of {checkpoint.model}; {row.name} is of {row.model}.")
    checkpoint.select(model_config(row.model), row.contents == "encoder")
