"""Images as files: a folder for each class, any tree of images, a list of paths."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from ..files.errors import Problem
from .dataset import ENDINGS, Named, labels_and_classes

_HEADERS = ("path", "image", "file", "filename", "name", "image_path", "filepath", "img", "img_path")
# Folders that programs leave beside the classes, and that are none where they hold no image.
_LEFT_BY_PROGRAMS = (".", "__MACOSX")


class _Files(Named):
    """Images that are files, named by their paths relative to a folder."""

    def __init__(self, path: Path, base: Path, names: list[str], labels: list[int] | None, classes: tuple[str, ...]):
        self.path, self.base, self.names, self.labels, self.classes = path, base, names, labels, classes

    def read(self, index: int) -> bytes:
        path = os.path.join(self.base, self.names[index])  # noqa: PTH118  (a Path for each of a million takes seconds)
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                return file.read()
        except OSError as problem:
            raise Problem(self._unreadable(index, problem)) from None

    def sizes(self) -> Iterator[int]:
        for index, name in enumerate(self.names):
            try:
                yield os.stat(os.path.join(self.base, name)).st_size  # noqa: PTH116, PTH118
            except OSError as problem:
                raise Problem(self._unreadable(index, problem)) from None

    def _unreadable(self, index: int, problem: OSError) -> str:
        return (
            f"Cannot read {self.names[index]} of {self.path}: {problem.strerror}. The data set must stay as it is while "
            "it is used; put the file back, or start anew."
        )


class Folder(_Files):
    """A folder for each class, its images at any depth: torchvision's ImageFolder, with its order and its labels."""

    format = "folder"

    def __init__(self, path: Path):
        """Raises Problem where there are fewer than two classes, or one without images."""
        names: list[str] = []
        labels: list[int] = []
        classes: list[str] = []
        empty: list[str] = []
        for folder in class_folders(path):
            inside = [f"{folder}/{name}" for name in images_below(path / folder)]
            if inside:
                labels += [len(classes)] * len(inside)
                names += inside
                classes.append(folder)
            elif not folder.startswith(_LEFT_BY_PROGRAMS):
                empty.append(folder)
        if empty:
            raise Problem(
                f"{path}: no image is in {_listed(empty)}, though every folder is a class. Remove empty folders, or put "
                f"images there (files ending in {', '.join(ENDINGS)})."
            )
        if len(classes) == 1:
            raise Problem(
                f"{path} has one class only, {classes[0]!r}, and labels would all be 0. Give the folder that holds the "
                'class folders, or read the images without labels: format "tree" (--data-format tree).'
            )
        super().__init__(path, path, names, labels, tuple(classes))


class Tree(_Files):
    """All images in a folder and the folders in it, without labels."""

    format = "tree"

    def __init__(self, path: Path):
        super().__init__(path, path, images_below(path), None, ())


class Given(_Files):
    """Images that are named one by one, without labels."""

    format = "given"

    def __init__(self, names: list[str]):
        super().__init__(Path(), Path(), names, None, ())


class Listed(_Files):
    """The images that a file lists: a line for each, `path` or `path,label`.

    Between the two stands a comma, a tab or, where the path's ending shows its end, a space. Paths are relative to the
    list's folder, or absolute. Lines that begin with #, empty lines and a heading (`path,label`) are passed over.
    """

    format = "list"

    def __init__(self, path: Path):
        """Raises Problem for a list that cannot be read, is empty, or names files that are not there."""
        rows = _rows(path)
        labelled = [line for line, (_, label) in rows.items() if label]
        if labelled and len(labelled) < len(rows):
            line = next(line for line, (_, label) in rows.items() if not label)
            raise Problem(
                f"{path}: line {line} has no label, and line {labelled[0]} has one; give every image a label, or none."
            )
        labels: list[int] | None = None
        classes: tuple[str, ...] = ()
        if labelled:
            labels, classes = labels_and_classes([label for _, label in rows.values()], str(path))
        names = [name for name, _ in rows.values()]
        super().__init__(path, path.parent, names, labels, classes)
        for line, (name, _) in rows.items():
            if not os.path.isfile(os.path.join(path.parent, name)):  # noqa: PTH113, PTH118
                raise Problem(
                    f"{path}: line {line} names {name!r}, and no such file is there. Paths are relative to {path.parent}, "
                    "or absolute; a line is `path` or `path,label`."
                )


def class_folders(path: Path) -> list[str]:
    """The names of the folders in a folder, sorted."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def images_below(path: Path) -> list[str]:
    """The images in a folder and the folders in it, relative to it, in the order of torchvision's ImageFolder.

    Folders are sorted by their whole path, and the files within each by name. Links to folders are followed.
    Raises Problem for a link that leads back to a folder that it is in.
    """
    folders: list[tuple[str, list[str]]] = []
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(path),))]
    while waiting:
        inside, above = waiting.pop()
        files = []
        for entry in _entries(path / inside):
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_dir():
                if not entry.is_symlink():
                    waiting.append((name, (*above, (entry.stat().st_dev, entry.inode()))))
                    continue
                identity = _identity(path / name)
                if identity in above:
                    raise Problem(f"{path / name} is a link to a folder that it is in; remove the link.")
                waiting.append((name, (*above, identity)))
            elif entry.name.lower().endswith(ENDINGS):
                files.append(entry.name)
        folders.append((inside, sorted(files)))
    folders.sort()
    return [f"{inside}/{name}" if inside else name for inside, files in folders for name in files]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as problem:
        raise Problem(f"Cannot list {folder}: {problem.strerror}; make it readable, or leave it out.") from None


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _rows(path: Path) -> dict[int, tuple[str, str]]:
    """By the number of its line, each path and its label ("" where there is none). Raises Problem."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as problem:
        raise Problem(f"Cannot read the list {path}: {problem.strerror}.") from None
    except UnicodeDecodeError as problem:
        raise Problem(
            f"{path} is not text in UTF-8 ({problem}); a list has a line `path` or `path,label` for each image."
        ) from None
    rows: dict[int, tuple[str, str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = [word.strip() for word in _split(line)]
        if not rows and words[0].lower() in _HEADERS:
            continue
        if len(words) > 2 or not words[0]:
            raise Problem(
                f"{path}: line {number} is {line!r}; a line is `path` or `path,label`. Put a path that holds a comma "
                'into double quotes: "a,b.jpg",3'
            )
        rows[number] = (words[0], words[1] if len(words) == 2 else "")
    if not rows:
        raise Problem(f"{path} lists no images; a list has a line `path` or `path,label` for each.")
    return rows


def _split(line: str) -> list[str]:
    if "\t" in line:
        return line.split("\t")
    if line.lower().rstrip().endswith(ENDINGS) and '"' not in line and "," not in line:
        return [line]  # a path that may hold spaces
    if "," in line or '"' in line:
        return next(csv.reader([line], skipinitialspace=True))
    return line.rsplit(None, 1)


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
