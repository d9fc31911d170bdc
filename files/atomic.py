"""Replacing a file or a folder at once: whoever looks sees the old one or the complete new one.

While a target `w.pth` is written, `.w.pth.polymae-lock` and `.w.pth.polymae-new` lie beside it (and, where the kernel cannot
exchange two folders in one step, `.w.pth.polymae-old`). These names are fixed, so that the next writer of the target finds
and removes a killed one's leftovers.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import Problem

PATIENCE = 60.0  # seconds that a writer waits for another one of the same target
_LONGEST_NAME = 255  # bytes, in every common file system
# The answers of file systems and sandboxes that have no locks, cannot exchange two names or cannot flush a folder.
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK, errno.EPERM)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h


class BusyProblem(Problem):
    """Somebody else is writing the same file or folder."""

    code = "busy"


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write a file or a folder to; it takes the target's place when the block ends well.

    The block's end flushes it to the disk. On any failure, Ctrl-C included, it is removed, with the folders made for it,
    and an older `target` stays. The next writer of the same target removes a killed writer's leftovers.
    Raises OSError, and BusyProblem where another writer of this target does not end within PATIENCE seconds.
    """
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        with alone(target) as locked:
            # Without a lock only names of our own keep two writers apart; a killed one's leftovers then stay.
            suffix = "" if locked else f"-{secrets.token_hex(4)}"
            new, old = hidden_beside(target, f"new{suffix}"), hidden_beside(target, f"old{suffix}")
            if _is_folder(old) and not os.path.lexists(target):
                old.rename(target)  # its writer was killed between two renames
            for left in (old, new):
                remove(left)
            try:
                yield new
                flush(new)
                _put_in_place(new, target, old)
            finally:
                with suppress(OSError):
                    remove(new)
            for path in (target, *missing):
                flush_folder(path.parent)
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # only empty folders are removed
                folder.rmdir()
        raise


def remove_leftovers(target: Path) -> None:
    """Remove the files that a killed writer of this target left beside it."""
    for kind in ("new", "lock"):
        remove(hidden_beside(target, kind))


def hidden_beside(target: Path, kind: str) -> Path:
    """Where something that belongs to a target lies while it is made: `.w.pth.polymae-<kind>`; not longer than allowed."""
    name = f".{target.name}.polymae-{kind}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}.polymae-{kind}"
    return target.parent / name


@contextmanager
def alone(target: Path, patience: float | None = None, waiting: Callable[[], object] = lambda: None) -> Iterator[bool]:
    """Keep other writers of the target out while the block runs; gives False where the file system knows no locks.

    The kernel lets go of a killed writer's lock: the lock file that it leaves keeps nobody waiting. `waiting` is called
    again and again while somebody else is inside, and the patience (seconds; None: PATIENCE) begins anew whenever what it
    returns changes. Raises OSError, and BusyProblem where the patience ends. Makes the target's folder.
    """
    path, patience = hidden_beside(target, "lock"), PATIENCE if patience is None else patience
    sign, until, pause = None, time.monotonic() + patience, 0.02
    while (lock := _try_lock(path)) is None:
        if (seen := waiting()) != sign:
            sign, until = seen, time.monotonic() + patience
        if time.monotonic() > until:
            raise BusyProblem(
                f"Another process is writing {target} and did not end within {patience:.0f} s. Wait for it or stop it, "
                "then try again; or name another file."
            )
        time.sleep(pause)
        pause = min(1.2 * pause, 0.2)
    try:
        yield lock >= 0
    finally:
        path.unlink(missing_ok=True)  # while it is still locked, so that it is surely our own
        if lock >= 0:
            os.close(lock)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock of a lock file; None while somebody else does, -1 where there are no locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(path, os.O_RDWR | flags, 0o666)
        except PermissionError:  # left by another user in a shared folder: good enough to be locked
            descriptor = os.open(path, os.O_RDONLY | flags)
    except FileNotFoundError:
        if path.parent.is_dir():
            raise
        return None  # another writer failed just now and removed the folder that it had made
    locked = False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed this file before it let go: then it keeps nobody out.
        locked = os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as problem:
        if problem.errno not in _UNSUPPORTED:
            raise
        return -1
    finally:
        if not locked:
            os.close(descriptor)
    return descriptor if locked else None


def _put_in_place(new: Path, target: Path, old: Path) -> None:
    """Rename; the older file is then at `new`, or gone."""
    if not _is_folder(new) or not os.path.lexists(target):
        new.replace(target)  # one step; but a folder cannot be renamed onto a full one
        return
    if _exchange(new, target):
        return
    try:
        target.rename(old)
        new.rename(target)
    finally:
        if not os.path.lexists(target):
            old.rename(target)  # interrupted in between
    remove(old)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step, if the system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux; glibc since 2.28
    if rename is None:
        return False
    if not rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()  # a link's target is somebody else's


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def start_flush(path: Path) -> None:
    """Have the disk begin with what is written of a file, while more is written: `flush` then waits for less."""
    begin = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux
    if begin is None or not path.is_file():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        begin(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)  # a hint: it may fail
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Have a file, or a folder with all that is in it, on the disk."""
    folders = [folder for folder, _, _ in os.walk(path)]
    files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    with ThreadPoolExecutor(8) as pool:  # many small files: the disk takes them together
        for _ in pool.map(_flush_entry, files or [path]):
            pass
    for folder in folders:
        flush_folder(Path(folder))


def flush_folder(path: Path) -> None:
    """Have a folder's names on the disk, where the file system can say so."""
    try:
        _flush_entry(path)
    except OSError as problem:
        if problem.errno not in _UNSUPPORTED:
            raise


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
