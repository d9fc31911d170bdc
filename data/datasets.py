"""Opening a data set: which format it has, which part of it is meant, and what is there where it is another than expected."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from ..files.errors import Problem
from .arrays import Arrays
from .dataset import ENDINGS, Dataset
from .folders import Folder, Listed, Tree, class_folders, images_below
from .shards import Shards
from .tables import Tables

FORMATS = ("folder", "tree", "flat", "list", "tar", "parquet", "npz")
SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid")}
# Files that are a data set, or a part of one.
_KINDS = {
    ".tar": "tar", ".parquet": "parquet", ".npz": "npz", ".csv": "list", ".txt": "list", ".tsv": "list", ".lst": "list",
}  # fmt: skip
_PACKED = (".zip", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".7z", ".rar")
_LOOKED_AT = 20_000  # entries of a folder whose kinds are counted for a message


def open_dataset(
    path: str | os.PathLike[str], format: str | None = None, split: str = "train", labelled: bool = False
) -> Dataset:
    """A data set for reading.

    path: a folder, or a file (list, tar, parquet, npz). Where a folder holds parts (train/, val/, train.npz,
    train-00000.parquet ...), the one that `split` names is taken. format: one of FORMATS; None: found out by looking.
    labelled: the labels are needed. Raises Problem for what is not a data set, saying what is there and how to read it.
    """
    if split not in SPLITS:
        raise Problem(f"The split is {split!r}; it must be one of {', '.join(SPLITS)}.")
    if format is not None and format not in FORMATS:
        raise Problem(f"The data format is {format!r}; it must be one of {', '.join(FORMATS)}.")
    given = Path(path).expanduser()
    if not given.exists():
        pattern = (
            " Patterns are not expanded: give the folder that holds the files." if set("*?{") & set(str(given)) else ""
        )
        raise Problem(
            f"There is no {given}; give a folder of images, a list, or .tar, .parquet or .npz files.{pattern}"
        )
    files = _part(given, split)
    dataset = _opened(files, format or _detected(files, given), split)
    if len(dataset) == 0:
        raise Problem(f"{_named(files)} holds no image: {_contents(files[0])}.")
    if labelled and not dataset.classes:
        raise Problem(_without_labels(dataset))
    return dataset


def has_split(path: Path, split: str) -> bool:
    """Whether a folder holds a part of this name: train/, val/, or files that begin so."""
    return bool(_parts(path, split))


def _part(path: Path, split: str) -> list[Path]:
    """The folder, or the files, of a split; the path itself where it has no parts. Raises Problem for the other part only."""
    if path.is_file():
        return [path]
    parts = {name: _parts(path, name) for name in SPLITS}
    if parts[split]:
        return parts[split]
    other = next((name for name in SPLITS if parts[name]), None)
    if other is not None:
        raise Problem(
            f"{path} has no part {split} ({split}/, or files that begin so); it has {_named(parts[other])}. "
            f"Give that path itself if it is meant, or put the images for {split} in {path / split}."
        )
    if split != "train":
        raise Problem(
            f"{path} has no part {split}: train/ and val/ are missing in it, and it holds {_contents(path)}. Put the images "
            f"in {path / 'train'} and {path / 'val'}, or give the folder, list or file of the {split} images."
        )
    return [path]


def _parts(path: Path, split: str) -> list[Path]:
    """What in a folder is a split: a folder of its name, or the files that begin with it (a list has just that name)."""
    for name in SPLITS[split]:
        if (path / name).is_dir():
            return [path / name]
        for folder in (path, path / "data"):  # where Hugging Face keeps its parquet files
            matching = [one for one in _files(folder) if _is_part(one, name)]
            if matching:
                return matching
    return []


def _files(folder: Path) -> list[Path]:
    """The files in a folder that are data sets by their ending, sorted."""
    if not folder.is_dir():
        return []
    return sorted(one for one in folder.iterdir() if one.suffix.lower() in _KINDS and one.is_file())


def _is_part(file: Path, name: str) -> bool:
    if _KINDS[file.suffix.lower()] == "list":  # not training-notes.txt
        return file.stem.lower() == name
    return re.match(rf"{name}(?![a-z])", file.name, re.IGNORECASE) is not None


def _detected(files: list[Path], given: Path) -> str:
    """The format of what was found. Raises Problem, saying what is there, where it is none."""
    kinds = sorted({_KINDS.get(path.suffix.lower(), "") for path in files if path.is_file()})
    if len(kinds) > 1:
        raise Problem(f"{given} holds {_named(files)}, in several formats; give the one that is meant.")
    if kinds and kinds[0]:
        return kinds[0]
    if kinds:
        packed = files[0].name.lower().endswith(_PACKED)
        advice = (
            "Unpack it and give the folder" if packed else "Give a folder, a list (.csv, .txt), .tar, .parquet or .npz"
        )
        raise Problem(f"{files[0]} is not in a format that is read here. {advice}.")
    return _format_of_folder(files[0])


def _format_of_folder(path: Path) -> str:
    there = _counted(path)
    if there["images"]:
        return "tree"
    for kind in ("tar", "parquet"):
        if there[kind]:
            return kind
    with_images = (name for name in class_folders(path) if images_below(path / name))
    if next(with_images, None):
        return "folder" if next(with_images, None) else "tree"
    for kind in ("npz", "list"):
        if there[kind] == 1:
            one = next(one for one in _files(path) if _KINDS[one.suffix.lower()] == kind)
            raise Problem(f"{path} holds no images, but {one.name}: give that file, {one}.")
    raise Problem(
        f"{path} holds no image: {_contents(path)}. Give a folder of images (files ending in {', '.join(ENDINGS)}), a list "
        "of them, or .tar, .parquet or .npz files."
    )


def _opened(files: list[Path], format: str, split: str) -> Dataset:
    path = files[0]
    if format in ("folder", "tree", "flat"):
        if not path.is_dir():
            raise Problem(f'{path} is a file; the format "{format}" reads folders.{_better(path)}')
        if format == "folder":
            _refuse_without_classes(path)
            return Folder(path)
        if format == "flat":
            _refuse_without_images(path)
        return Tree(path)
    if format in ("list", "npz"):
        if not path.is_file() or len(files) > 1:
            raise Problem(f'{_named(files)}: the format "{format}" reads one file.{_better(path)}')
        return Listed(path) if format == "list" else Arrays(path, split)
    matching = [one for one in _files(path) if _KINDS[one.suffix.lower()] == format] if path.is_dir() else files
    if not matching or any(_KINDS.get(one.suffix.lower()) != format for one in matching):
        raise Problem(f"No .{format} file is in {_named(files)}: it holds {_contents(path)}.{_better(path)}")
    return Shards(matching) if format == "tar" else Tables(matching)


def _refuse_without_classes(path: Path) -> None:
    there = _counted(path)
    if not class_folders(path):
        raise Problem(f"No class folder in {path}: it holds {_contents(path)}.{_better(path)}{_flat_validation(path)}")
    if there["images"] and not any(images_below(path / name) for name in class_folders(path)):
        raise Problem(f"No class folder in {path} holds an image: it holds {_contents(path)}.{_better(path)}")


def _refuse_without_images(path: Path) -> None:
    if not _counted(path)["images"]:
        raise Problem(f"No image lies in {path} itself: it holds {_contents(path)}.{_better(path)}")


def _without_labels(dataset: Dataset) -> str:
    """What to do about images without labels where labels are needed."""
    return (
        f"{dataset.path} holds {len(dataset)} images without labels (format {dataset.format}), and labels are needed."
        f"{_flat_validation(dataset.path)} Put the images in a folder for each class, or give a list file with a line "
        f"`path,label` for each, as in: {dataset.name(0)},0"
    )


def _flat_validation(path: Path) -> str:
    if path.is_dir() and any(entry.name.startswith("ILSVRC2012_val_") for entry in path.iterdir()):
        return (
            " It is ImageNet's validation set as its archive unpacks, without class folders: the label of each image is in "
            "the development kit (ILSVRC2012_validation_ground_truth.txt, whose numbers are not those of the sorted class "
            "folders: meta.mat has both)."
        )
    return ""


def _better(path: Path) -> str:
    """How to read what is there, as a sentence."""
    kind = _KINDS.get(path.suffix.lower()) if path.is_file() else None
    if path.is_dir():
        there = _counted(path)
        kind = next((name for name in ("tar", "parquet", "list", "npz") if there[name]), None)
        if there["images"]:
            kind = "flat"
        elif kind is None and class_folders(path):
            kind = "folder" if len(class_folders(path)) > 1 else "tree"
        if there["packed"] and kind is None:
            return " Unpack what is packed first."
        if kind in ("list", "npz"):
            return f' Give the file itself, with the format "{kind}" (--data-format {kind}).'
    return f' The format "{kind}" reads it (--data-format {kind}).' if kind else ""


def _counted(path: Path) -> Counter[str]:
    """How many entries of each kind lie in a folder itself."""
    counts: Counter[str] = Counter()
    with os.scandir(path) as entries:
        for _, entry in zip(range(_LOOKED_AT), entries):
            name = entry.name.lower()
            if entry.is_dir():
                counts["folders"] += 1
            elif name.endswith(ENDINGS):
                counts["images"] += 1
            elif name.endswith(_PACKED):
                counts["packed"] += 1
            else:
                counts[_KINDS.get(os.path.splitext(name)[1], "other")] += 1  # noqa: PTH122
    return counts


def _contents(path: Path) -> str:
    """What lies in a folder, in words: "3 tar files, 1 folder"."""
    if path.is_file():
        return f"it is a file of {path.stat().st_size} bytes"
    words = {"packed": "archive", "other": "other file", "list": "text file", "images": "image", "folders": "folder"}
    counts = _counted(path)
    said = []
    for kind, count in counts.most_common():
        word = words.get(kind, f"{kind} file")
        said.append(f"{'more than ' if counts.total() == _LOOKED_AT else ''}{count} {word}{'s' if count > 1 else ''}")
    return ", ".join(said) or "nothing"


def _named(files: list[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
