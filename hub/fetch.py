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
from .receipts import (
    CacheProblem,
    Receipt,
    digests_of,
    measured,
    place,
    read_receipt,
    receipt_path,
    say,
    unlike,
    write_receipt,
)
from .registry import Published, find

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint

MIRROR = "POLYMAE_MIRROR"
_AGAIN = "Nothing needs to be removed by hand. Try again, for a proxy or the transfer may have changed it"


def fetch(row: Published) -> Path:
    """The file of a published checkpoint (a folder if it is Hugging Face's), downloaded if it is not kept yet.

    A download is verified before it is kept: its digest if one is published, and that it is a checkpoint of the row's model
    and contents. An older file stays until then. Raises Problem: no network, no room, another file than was published.
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
    """A checkpoint from anywhere, downloaded if it is not kept yet, and verified to be one that can be read.

    If its name ends in eight digits of its SHA-256, as torch.hub's do (name-1a2b3c4d.pth), these are compared.
    Raises Problem as fetch.
    """
    if row := find(url):
        return fetch(row)
    path = place(url)
    if not _sound(path, None):
        _have(path, url, None)
    return path


def kept(weights: Published | str) -> Path | None:
    """The file of a published checkpoint, or of a URL, if it is kept and sound, else None. No network."""
    path = place(weights)
    return path if _sound(path, _row(weights)) else None


def why_not(weights: Published | str) -> str:
    """Why a file that is kept is not used, as a sentence; "" if there is none, or nothing is wrong with it."""
    path = place(weights)
    fault = _fault(path, _row(weights)) if path.is_file() else ""
    return f"{path} {fault}." if fault else ""


def _row(weights: Published | str) -> Published | None:
    return weights if isinstance(weights, Published) else None


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


def _advice(row: Published | None) -> str:
    """Where else a file might be had, for the messages of a download that fails."""
    if row is None:
        return BY_HAND
    if _mirror():
        return f"That is the server of {MIRROR}; without it, the file is asked for at {shown(row.url)}."
    return f"{MIRROR}=<address> names a mirror of the published files. {BY_HAND}"


def _sound(path: Path, row: Published | None) -> bool:
    """Whether a file is there and its receipt fits it. Its bytes are not read again (`polymae weights verify` does that)."""
    return path.is_file() and _fault(path, row) == ""


def _fault(path: Path, row: Published | None) -> str:
    """Why a file cannot be used, as the rest of a sentence; "" if its receipt and the registry fit it."""
    receipt = read_receipt(path)
    if receipt is None:
        return f"has {'a damaged' if receipt_path(path).exists() else 'no'} record of a download beside it"
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "was removed just now"
    if size != receipt.bytes:
        return f"is damaged: it has {size:,} bytes, {receipt.bytes:,} were downloaded"
    difference = unlike(receipt.digests, row.digests if row else _digits(path.name))
    return f"is what was downloaded, but the list now names another digest ({difference})" if difference else ""


def _have(path: Path, url: str, row: Published | None) -> bool:
    """Download a file that is missing or faulty; False if another process did, or a file without a receipt is right."""
    from .download import download

    fault = ""
    if path.is_file() and read_receipt(path) is None:
        fault = _adopt(path, url, row)
        if not fault:
            return True
    elif path.is_file():
        fault = _fault(path, row)
    if fault and offline():
        raise CacheProblem(
            f"{path} {fault}, and POLYMAE_OFFLINE is set. Unset it to download the file, or put the right one there."
        )
    if fault:
        say(f"{path} {fault}; it is downloaded again.")
    try:
        return download(
            url,
            path,
            lambda new: _accepted(path, new, url, row),
            sound=lambda file: _sound(file, row),
            advice=_advice(row),
        )
    except Problem as problem:
        if not fault or not path.exists():
            raise
        raise CacheProblem(f"{path} {fault}. It stays there, for another one was not to be had: {problem}") from None


def _adopt(path: Path, url: str, row: Published | None) -> str:
    """Verify a file that was put there by hand, or whose receipt is damaged, and write its receipt if possible.

    Returns the fault of a file that we wrote ourselves. Raises CacheProblem for a faulty file of somebody else's: it is not
    ours to replace.
    """
    try:
        receipt = _verified(path, url, row)
    except (Problem, OSError) as problem:
        reason = str(problem).rstrip(".")
        if receipt_path(path).exists():
            return f"is damaged, with its record: it is {reason}"
        raise CacheProblem(
            f"{path} is {reason}. It was put there by hand (no record of a download lies beside it), so it is left as it is: "
            f"where it is still being copied, wait for the end; else put the right file there, or remove it to have it "
            "downloaded."
        ) from None
    with suppress(OSError):  # a cache that may only be read: it is verified each time
        write_receipt(path, receipt)
    return ""


def _accepted(path: Path, new: Path, url: str, row: Published | None) -> Callable[[], None]:
    """Verify a download; returns the function that writes its receipt once the file is in its place.

    Not earlier: whoever is killed in between leaves a file with the receipt of an older one, or none, and that is seen.
    """
    try:
        receipt = _verified(new, url, row)
    except Problem as problem:
        name = f" as {row.name}" if row else ""
        raise CacheProblem(f"What {shown(url)} serves{name} is {problem} {_AGAIN}. {_advice(row)}") from None
    return lambda: write_receipt(path, receipt)


def _verified(path: Path, url: str, row: Published | None) -> Receipt:
    """The receipt of a file from a URL. Raises CacheProblem if it is not the expected one, which the message describes."""
    digits = {} if row else _digits(place(url).name)
    expected = row.digests if row else digits
    try:
        receipt, checkpoint = measured(path, shown(url), row.name if row else "")
        if row is not None:
            _require_row(checkpoint, row)
    except Problem as problem:
        reason = str(problem).replace(str(path), "it")
        if difference := unlike(digests_of(path), expected):
            reason += f" It has the {difference}."
        raise CacheProblem(f"not the checkpoint that was expected: {reason}") from None
    if difference := unlike(receipt.digests, expected):
        than = (
            "its name says, whose last digits are those of the SHA-256 as in torch.hub" if digits else "was published"
        )
        changed = " If it stays so, its project has changed the file: please report it." if row else ""
        raise CacheProblem(f"another file ({receipt.bytes:,} bytes) than {than}: it has the {difference}.{changed}")
    return receipt


def _digits(name: str) -> Mapping[str, str]:
    """The first digits of the SHA-256 that a file's name carries, as torch.hub writes them; a date is none."""
    match = re.search(r"-([0-9a-f]{8})(?:\.\w+)+$", name)
    return {} if match is None or re.fullmatch(r"(19|20)\d{6}", match[1]) else {"sha256": match[1]}


def _require_row(checkpoint: Checkpoint, row: Published) -> None:
    """Raise CheckpointProblem or CacheProblem if a checkpoint is not of the row's model, or has other contents."""
    if checkpoint.contents != row.contents:
        raise CacheProblem(f"{checkpoint.path} holds {checkpoint.contents} weights; {row.name} is {row.holds}.")
    if checkpoint.model is not None and checkpoint.model != row.model:
        raise CacheProblem(f"{checkpoint.path} is of {checkpoint.model}; {row.name} is of {row.model}.")
    checkpoint.select(model_config(row.model), row.contents == "encoder")
