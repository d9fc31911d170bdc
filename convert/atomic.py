"""Replacing a file or a folder at once: whoever looks sees the old one or the complete new one."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write a file or a folder to; it takes the target's place when the block ends well.

    The block's end flushes it to the disk. On any failure, Ctrl-C included, it is removed, with the folders made for it,
    and what stood at `target` stays. Raises OSError.
    """
    missing = [folder for folder in target.parents if not folder.exists()]
    token = secrets.token_hex(4)
    new, old = (target.parent / f".polymae-{token}.{kind}" for kind in ("new", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield new
        _flush(new)
        try:
            if new.is_dir() and target.exists():
                target.rename(old)  # a folder cannot be renamed onto a full one
            new.replace(target)
        finally:
            if old.exists() and not target.exists():
                old.rename(target)  # interrupted in between
            if target.exists():
                _remove(old)
        _flush_entry(target.parent)
    except BaseException:
        _remove(new)
        for folder in missing:
            with suppress(OSError):  # only what is still empty is removed
                folder.rmdir()
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _flush(path: Path) -> None:
    for folder, _, files in os.walk(path):
        for name in files:
            _flush_entry(Path(folder) / name)
    _flush_entry(path)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
