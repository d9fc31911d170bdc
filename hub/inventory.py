"""Which files lie in the cache: listing, verifying, removing them. Files that PolyMAE did not write are never touched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from ..files.atomic import alone, remove
from ..files.errors import Problem
from ..files.urls import shown
from .native import NAME, native_folder
from .receipts import ENDING, CacheProblem, Receipt, home, measured, place, read_receipt, receipt_path, size_of, unlike
from .registry import nearest, published
from .resolve import remote

_DIGITS = re.compile(r"[0-9a-f]{12}")  # the folder of a URL, or of an original's copies
_HIDDEN = re.compile(r"\.(.+)\.polymae-(part|lock|new|old)(?:-[0-9a-f]+)?(?:\.json)?", re.DOTALL)
_PATIENCE = 1.0  # seconds for another process that is writing a file that is to be removed


@dataclass(frozen=True)
class Cached:
    """One entry of the cache."""

    path: Path
    kind: str  # original, converted or unfinished
    name: str  # in the registry, else the URL, else the file's
    original: Path  # the file that it was converted from, or is the beginning of; else itself
    bytes: int  # of the file, or of all in a folder
    framework: str = ""  # for which it was converted
    receipt: Receipt | None = None  # of an original

    @property
    def description(self) -> str:
        """The kind in words."""
        return f"converted for {self.framework}" if self.framework else self.kind


@dataclass(frozen=True)
class Verified:
    """An entry that was read: its problems, and its measurements (None if it cannot be read)."""

    cached: Cached
    problems: tuple[str, ...] = ()
    measured: Receipt | None = None


def cached() -> list[Cached]:
    """Every entry of the cache: originals, each with its converted files and unfinished downloads."""
    rows = _places()
    entries = []
    for original, paths in _ours().items():
        receipt = read_receipt(original)
        name = rows.get(original) or (receipt.url if receipt else "")
        for path in paths:
            copy, hidden = NAME.fullmatch(path.name), _HIDDEN.fullmatch(path.name)
            if path == original:
                entries.append(Cached(path, "original", name or path.name, original, size_of(path), receipt=receipt))
            elif hidden and hidden[2] == "part" and path.suffix != ".json":
                entries.append(Cached(path, "unfinished", name or original.name, original, size_of(path)))
            elif copy and not hidden and _is_copy(path):
                entries.append(Cached(path, "converted", name or copy[1], original, size_of(path), copy[2]))
    return sorted(entries, key=lambda entry: (entry.original, entry.path != entry.original, entry.path))


def original(name: str) -> Path:
    """Where an original lies, or would lie: by a name or file name of the registry, a URL, a file's name or path.

    Raises CacheProblem for an unknown name, with the nearest ones, and for the name of several files.
    """
    source = remote(name)
    if source is not None:
        if source.huggingface:
            raise CacheProblem(f"{name} lies in the Hugging Face cache, which `hf cache` lists, verifies and clears.")
        return place(source.row or source.url)
    same = [entry for entry in cached() if entry.kind == "original" and name in (entry.path.name, str(entry.path))]
    if len(same) > 1:
        listed = "\n  ".join(f"{entry.path}  {entry.name}" for entry in same)
        raise CacheProblem(
            f"Several files are called {name}; give the URL or the path of the one that is meant:\n  {listed}"
        )
    if same:
        return same[0].path
    raise CacheProblem(f"There are no weights {shown(name)!r}. {nearest(name)}")


def verify(entries: Sequence[Cached]) -> Iterator[Verified]:
    """Read entries of the cache, one after the other, and compare with their receipts and the registry.

    An unfinished download cannot be verified: it has neither problems nor measurements.
    """
    for entry in entries:
        if entry.kind == "unfinished":
            yield Verified(entry)
            continue
        try:
            actual, _ = measured(entry.path, entry.receipt.url if entry.receipt else "", entry.name)
        except (Problem, OSError) as problem:
            yield Verified(entry, (str(problem),))
            continue
        yield Verified(entry, tuple(_differences(entry, actual)), actual)


def _differences(entry: Cached, actual: Receipt) -> Iterator[str]:
    if entry.receipt is not None:
        for name in ("bytes", "md5", "sha256", "hash"):
            now, then = getattr(actual, name), getattr(entry.receipt, name)
            if now != then:
                yield f"{name} {now}, downloaded with {then}"
    row = published().get(entry.name) if entry.kind == "original" else None
    if row is not None and (difference := unlike(actual.digests, row.digests)):
        yield f"{difference} (published)"
    receipt = read_receipt(entry.original) if entry.kind == "converted" else None
    if receipt is not None and receipt.hash not in ("", actual.hash):
        yield f"its weights have the hash {actual.hash[:12]}, those of its original {receipt.hash[:12]}"


def clear(originals: Sequence[Path] | None = None, converted_only: bool = False) -> list[tuple[Path, int]]:
    """Remove files of the cache; returns the paths that were removed, with their bytes.

    originals: they go with everything that belongs to them; None: everything. converted_only: only converted files.
    Raises BusyProblem if another process is writing one of them, CacheProblem if one may not be removed.
    """
    removed: list[tuple[Path, int]] = []
    for source, paths in sorted(_ours().items()):
        # A file that somebody else put there goes only if it is named.
        by_hand = source in paths and not receipt_path(source).exists()
        if source in originals if originals is not None else not by_hand:
            removed += _clear(source, [p for p in paths if not converted_only or _is_copy(p)])
    if originals is None and not converted_only:
        removed += _removed(home() / "licences-shown.json")
    for folder in [*_folders(_weights()), *_folders(_copies()), _weights(), _copies()]:
        with suppress(OSError):  # only the empty ones
            folder.rmdir()
    return removed


def _clear(source: Path, paths: Sequence[Path]) -> list[tuple[Path, int]]:
    removed: list[tuple[Path, int]] = []
    hidden = {path: match for path in paths if (match := _HIDDEN.fullmatch(path.name))}
    locks = [path for path, match in hidden.items() if match[2] == "lock"]
    try:
        with ExitStack() as locks_held:
            for target in sorted({source, *(path.with_name(hidden[path][1]) for path in locks)}):
                locks_held.enter_context(alone(target, _PATIENCE))
            for path in sorted(paths):
                removed += [] if path in locks else _removed(path)
    except OSError as problem:
        raise CacheProblem(f"Cannot remove {problem.filename or source}: {problem.strerror}.") from None
    return removed


def _removed(path: Path) -> list[tuple[Path, int]]:
    if not os.path.lexists(path):
        return []
    size = path.lstat().st_size if path.is_symlink() else size_of(path)
    remove(path)
    return [(path, size)]


def _ours() -> dict[Path, list[Path]]:
    """Every file that PolyMAE wrote, by its original: with its receipt, its copies, and parts of it that are unfinished."""
    rows = _places()
    ours: dict[Path, list[Path]] = {}
    for folder in [_weights(), *_folders(_weights())] if _weights().is_dir() else []:
        names = {path.name for path in folder.iterdir()}
        for name in names:
            hidden = _HIDDEN.fullmatch(name)
            source = (hidden[1] if hidden else name).removesuffix(ENDING)
            if name != source or name + ENDING in names or (folder / name in rows and (folder / name).is_file()):
                ours.setdefault(folder / source, []).append(folder / name)
    sources = {native_folder(source): source for source in (*ours, *rows)}
    for folder in _folders(_copies()):  # of a file of ours, else of one elsewhere, whose path is not known
        ours.setdefault(sources.get(folder, folder / "original"), []).extend(folder.iterdir())
    return ours


def _is_copy(path: Path) -> bool:
    """Whether a file lies in a folder of converted files."""
    return path.parent.parent == _copies()


def _places() -> dict[Path, str]:
    """The places of the registry's files, with their names."""
    return {place(row): row.name for row in published().values() if row.file}


def _weights() -> Path:
    return home() / "weights"


def _copies() -> Path:
    return home() / "converted"


def _folders(top: Path) -> list[Path]:
    """The folders of the cache below `top`; a link is none of ours."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(p for p in top.iterdir() if _DIGITS.fullmatch(p.name) and p.is_dir() and not p.is_symlink())
    return []
