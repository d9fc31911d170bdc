"""What lies in the cache: listing it, verifying it, removing it. Files that are not ours are never touched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from ..convert.provenance import NOTE
from ..files.atomic import alone, remove
from ..files.errors import Problem
from ..files.urls import shown
from .native import NAME
from .receipts import ENDING, CacheProblem, Record, home, measured, place, read_record, record_path, size_of, unlike
from .registry import nearest, published
from .resolve import remote

_DIGITS = re.compile(r"[0-9a-f]{12}")  # the folder of a URL, or of a file outside
_HIDDEN = re.compile(r"\.(.+)\.polymae-(part|lock|new|old)(?:-[0-9a-f]+)?(?:\.json)?", re.DOTALL)
_PATIENCE = 1.0  # seconds for another process that is writing what is to be removed


@dataclass(frozen=True)
class Cached:
    """A file of the cache. kind: original, converted or unfinished; name: in the registry, else the URL, else the file's.

    framework: for whom it was converted, or "". bytes: of the file, or of all in a folder. record: of an original.
    """

    path: Path
    kind: str
    name: str
    framework: str
    bytes: int
    record: Record | None = None

    @property
    def what(self) -> str:
        """The kind in words."""
        return f"converted for {self.framework}" if self.framework else self.kind


@dataclass(frozen=True)
class Verified:
    """A file that was looked through: what is wrong with it, and what was measured (None where it cannot be read)."""

    cached: Cached
    problems: tuple[str, ...] = ()
    measured: Record | None = None


def cached() -> list[Cached]:
    """Everything in the cache, in the order of its places: originals, converted files, unfinished downloads."""
    rows = _listed()
    found = []
    for path in sorted(path for folder in _folders() for path in _ours(folder)):
        converted, hidden = NAME.fullmatch(path.name), _HIDDEN.fullmatch(path.name)
        source = owner(path)
        if path != source and (path.suffix == ".json" or (hidden and hidden[2] != "part")):
            continue
        kind = "converted" if converted else "unfinished" if hidden else "original"
        record = read_record(source)
        name = rows.get(source) or (record.url if record else source.name)
        framework = converted[4] if converted else ""
        found.append(Cached(path, kind, name, framework, size_of(path), record if kind == "original" else None))
    return found


def original(name: str) -> Path:
    """Where the original that is meant lies, or would lie: a name or file name of the registry, a URL, a file's name or path.

    Raises CacheProblem for an unknown name, with the nearest ones, and where several files have it.
    """
    source = remote(name)
    if source is not None:
        if source.huggingface:
            raise CacheProblem(f"{name} lies in the Hugging Face cache, which `hf cache` lists, verifies and clears.")
        return place(source.row or source.url)
    same = [one for one in cached() if one.kind == "original" and name in (one.path.name, str(one.path))]
    if len(same) > 1:
        listed = "\n  ".join(f"{one.path}  {one.name}" for one in same)
        raise CacheProblem(
            f"Several files are called {name}; give the URL or the path of the one that is meant:\n  {listed}"
        )
    if same:
        return same[0].path
    raise CacheProblem(f"There are no weights {shown(name)!r}. {nearest(name)}")


def owner(path: Path) -> Path:
    """The original that a file of the cache belongs to."""
    return path.with_name(_owner(path.name))


def verify(chosen: Sequence[Cached]) -> Iterator[Verified]:
    """Look through files of the cache, one after the other, and compare with their records and the registry.

    Of an unfinished one there is nothing to say.
    """
    for one in chosen:
        if one.kind == "unfinished":
            yield Verified(one)
            continue
        try:
            found, checkpoint = measured(one.path, one.record.url if one.record else "", one.name)
        except (Problem, OSError) as problem:
            yield Verified(one, (str(problem),))
            continue
        wrong = _differences(one, found)
        made = NAME.fullmatch(one.path.name)
        if made and (checkpoint.provenance is None or not found.hash.startswith(made[2])):
            wrong = (*wrong, f"its weights have the hash {found.hash[:12]}, converted were {made[2]}")
        yield Verified(one, wrong, found)


def _differences(one: Cached, found: Record) -> tuple[str, ...]:
    wrong = []
    if one.record is not None:
        pairs = {name: (getattr(found, name), getattr(one.record, name)) for name in ("bytes", "md5", "sha256", "hash")}
        wrong += [f"{name} {now}, downloaded with {then}" for name, (now, then) in pairs.items() if now != then]
    row = published().get(one.name) if one.kind == "original" else None
    if row is not None and (unequal := unlike({"md5": found.md5, "sha256": found.sha256}, row.digests)):
        wrong.append(f"{unequal} (published)")
    return tuple(wrong)


def clear(paths: Sequence[Path] | None = None, converted_only: bool = False) -> list[tuple[Path, int]]:
    """Remove files of the cache, and give what was removed, with its bytes.

    paths: the originals, which go with all that belongs to them; None: everything. converted_only: only what was converted.
    Raises BusyProblem where another process is writing one of them, CacheProblem where it may not be removed.
    """
    wanted = None if paths is None else set(paths)
    removed: list[tuple[Path, int]] = []
    for folder in _folders():
        by_source: dict[Path, list[Path]] = {}
        for path in _ours(folder):
            by_source.setdefault(owner(path), []).append(path)
        for source, files in sorted(by_source.items()):
            # What somebody else put there goes only where it is named.
            if source in wanted if wanted is not None else record_path(source).exists() or source not in files:
                removed += _clear(source, sorted(files), converted_only)
        if folder != _weights() or wanted is None:
            with suppress(OSError):  # only what is empty by now
                folder.rmdir()
                folder.parent.rmdir()
    if wanted is None and not converted_only:
        removed += _removed(home() / "licences-shown.json")
    return removed


def _clear(source: Path, files: Sequence[Path], converted_only: bool) -> list[tuple[Path, int]]:
    removed: list[tuple[Path, int]] = []
    busy = {source} | {
        source.with_name(h[1]) for path in files if (h := _HIDDEN.fullmatch(path.name)) and h[2] == "lock"
    }
    try:
        with ExitStack() as locks:
            for target in sorted(busy):
                locks.enter_context(alone(target, _PATIENCE))
            for path in files:
                hidden = _HIDDEN.fullmatch(path.name)
                converted = NAME.fullmatch((hidden[1] if hidden else path.name).removesuffix(f".{NOTE}.json"))
                if (converted or not converted_only) and not (hidden and hidden[2] == "lock"):
                    removed += _removed(path)
    except OSError as problem:
        raise CacheProblem(f"Cannot remove {problem.filename or source}: {problem.strerror}.") from None
    return removed


def _removed(path: Path) -> list[tuple[Path, int]]:
    if not os.path.lexists(path):
        return []
    size = path.lstat().st_size if path.is_symlink() else size_of(path)
    remove(path)
    return [(path, size)]


def _listed() -> dict[Path, str]:
    """The places of the registry's files, with their names."""
    return {place(row): row.name for row in published().values() if row.file}


def _weights() -> Path:
    return home() / "weights"


def _folders() -> list[Path]:
    """The folders of the cache that files lie in."""
    found = [_weights()] if _weights().is_dir() else []
    for top in (_weights(), home() / "converted"):
        with suppress(FileNotFoundError, NotADirectoryError):
            found += sorted(p for p in top.iterdir() if _DIGITS.fullmatch(p.name) and p.is_dir() and not p.is_symlink())
    return found


def _owner(name: str) -> str:
    """The original that a file of this name belongs to, itself where it is none of ours."""
    if hidden := _HIDDEN.fullmatch(name):
        name = hidden[1]
    name = name.removesuffix(".making").removesuffix(ENDING)
    made = NAME.fullmatch(name.removesuffix(f".{NOTE}.json"))
    return made[1] if made else name


def _ours(folder: Path) -> list[Path]:
    """What in a folder of the cache was made by us: originals with their records, what was converted, what is unfinished."""
    names = {path.name for path in folder.iterdir()}
    known = _listed()
    return [
        folder / n
        for n in names
        if n != _owner(n) or n + ENDING in names or (folder / n in known and (folder / n).is_file())
    ]
