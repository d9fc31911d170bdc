"""Images in tar files, as webdataset lays them out: `key.jpg` with `key.cls` or `key.json`, read by place, not in sequence."""

from __future__ import annotations

import json
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..files.errors import Problem
from .dataset import ENDINGS, Named, labels_and_classes

_BLOCK = 512
_LABELS = ("label", "cls", "class")  # keys of a sample's json


class Shards(Named):
    """The images of one or more tar files, which are not compressed.

    Each file's headers are read once, and where its images lie is kept in memory; nothing is extracted. The files of a
    sample follow each other and share their name up to its first dot. A label is a number or a name in `key.cls`, or in
    `key.json` under label, cls or class.
    """

    format = "tar"

    def __init__(self, files: list[Path]):
        """Raises Problem for a file that is no tar file, is compressed or cut off, and for labels of some images only."""
        self.files, self.path = files, files[0] if len(files) == 1 else files[0].parent
        self.names: list[str] = []
        self._shards, self._offsets, self._sizes = array("l"), array("q"), array("q")
        given: list[str | None] = []
        others: Counter[str] = Counter()
        for number, file in enumerate(files):
            for name, offset, size, label in _samples(file, others):
                self.names.append(f"{file.name}/{name}")
                self._shards.append(number)
                self._offsets.append(offset)
                self._sizes.append(size)
                given.append(label)
        if not self.names:
            raise Problem(_no_image(files[0], others))
        labels = [label for label in given if label is not None]
        if labels and len(labels) < len(given):
            raise Problem(
                f"{self.names[given.index(None)]} of {self.path} has no label, and others have; give each sample a .cls file, "
                "or none."
            )
        if labels:
            self.labels, self.classes = labels_and_classes(labels, str(self.path))

    def read(self, index: int) -> bytes:
        path, size = self.files[self._shards[index]], self._sizes[index]
        try:
            data = _bytes_at(path, self._offsets[index], size)
        except OSError as problem:
            raise Problem(f"Cannot read {path}: {problem.strerror}. It must stay as it is while it is used.") from None
        if len(data) != size:
            raise Problem(f"{path} became shorter since it was opened; start anew with the whole file.")
        return data

    def sizes(self) -> Iterator[int]:
        return iter(self._sizes)


def _samples(path: Path, others: Counter[str]) -> Iterator[tuple[str, int, int, str | None]]:
    """The name of each image in a tar file, where its bytes begin, how many they are, and its label as written.

    others: counts what else is there, by its ending.
    """
    key, images, label = "", list[tuple[str, int, int]](), None
    for member in _members(path):
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if f"{folder}/{stem}" != key:
            yield from _sample(path, images, label)
            key, images, label = f"{folder}/{stem}", [], None
        if member.name.lower().endswith(ENDINGS):
            images.append((member.name.removeprefix("./"), member.offset_data, member.size))
        elif ending.lower() in ("cls", "json"):
            number = _label(path, member, ending.lower())
            label = label if number is None else number
        else:
            others[base.rpartition(".")[2]] += 1
    yield from _sample(path, images, label)


def _sample(
    path: Path, images: list[tuple[str, int, int]], label: str | None
) -> Iterator[tuple[str, int, int, str | None]]:
    if len(images) > 1:
        names = " and ".join(name for name, _, _ in images[:2])
        raise Problem(
            f"{path}: {names} belong to one sample (the same name up to its first dot); each may have one image."
        )
    for name, offset, size in images:
        yield name, offset, size, label


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The files in a tar file. Raises Problem where it is none, is compressed or ends too soon."""
    end = 0
    try:
        with tarfile.open(path, "r:") as opened:
            while (member := opened.next()) is not None:
                end = max(end, member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0))
                opened.members = []  # type: ignore[attr-defined]  # or each would be kept
                if member.isreg() and not member.name.rpartition("/")[2].startswith("."):
                    yield member
        rest = _bytes_at(path, end, _BLOCK)
    except tarfile.ReadError as problem:
        raise Problem(_cut_off(path, end) if end else _no_tar(path, problem)) from None
    except OSError as problem:
        raise Problem(f"Cannot read {path}: {problem.strerror or problem}.") from None
    if end > path.stat().st_size or rest.strip(b"\0"):
        raise Problem(_cut_off(path, end))


def _no_image(path: Path, others: Counter[str]) -> str:
    there = ", ".join(f"{count} .{ending}" for ending, count in others.most_common(3)) or "no other file"
    unpack = f": unpack it first (tar -xf {path}), and those in it" if others["tar"] else ""
    return f"{path} holds no image (files ending in {', '.join(ENDINGS)}), but {there}{unpack}."


def _cut_off(path: Path, end: int) -> str:
    return f"{path} is cut off or damaged, near byte {end}; fetch or write it again."


def _no_tar(path: Path, problem: Exception) -> str:
    head = _bytes_at(path, 0, 6)
    packed = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
    command = next((command for magic, command in packed.items() if head.startswith(magic)), None)
    if command:
        return f"{path} is compressed, and its images can only be read in any order where it is not: {command} {path}"
    return f"{path} is not a tar file that can be read ({problem}); fetch or write it again."


def _label(path: Path, member: tarfile.TarInfo, ending: str) -> str | None:
    """A label as text; None for a json without one."""
    data = _bytes_at(path, member.offset_data, member.size)
    try:
        text = data.decode().strip()
        if ending == "cls":
            return text
        sample = json.loads(text)
    except ValueError:
        raise Problem(
            f"{member.name} of {path} is not text, or not JSON; it must hold the label of its image."
        ) from None
    values = sample if isinstance(sample, dict) else {}
    return next((str(values[name]) for name in _LABELS if name in values), None)


def _bytes_at(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size)
