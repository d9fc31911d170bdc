"""Names of a model's classes, and which of them the classes of a data set are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset, whole_number
from ..files.errors import Problem
from .measured import names_in
from .scores import Whole


def read_names(path: Path, classes: int) -> tuple[str, ...]:
    """The names of a model's classes in order, from a file: a line for each, a JSON list, or a config.json with id2label.

    Raises Problem for a file that cannot be read, or holds another number of names than the model has classes.
    """
    if path.suffix.lower() == ".json":
        content = _json(path)
        names = tuple(map(str, content)) if isinstance(content, list) else names_in(content)
    else:
        names = tuple(line.strip() for line in _text(path).splitlines() if line.strip())
    if len(names) != classes:
        raise Problem(
            f"{path} names {len(names)} classes, and the model has {classes}. A line for each class of the model in its order, "
            "a JSON list of them, or a config.json with id2label is read."
        )
    return names


def labels_to(dataset: Dataset, classes: int, path: Path | None) -> Whole | None:
    """By the data set's label the model's class, int64 [the data set's classes]; None: they are the same.

    path: a file that maps names of the data set's classes to numbers of the model's, as `n01498041 6` or `n01498041,6`
    lines, or a JSON object. A file with a name a line, for each of the model's classes in their order, will do as well.
    Raises Problem for a data set of other classes than the model's where there is no such file, and for one that does not fit.
    """
    there = dataset.classes
    if path is None:
        _require_same_classes(dataset, classes)
        return None
    numbers = _numbers(path, classes)
    absent = [name for name in there if name not in numbers]
    if absent:
        shown = ", ".join(absent[:3])
        raise Problem(
            f"The class map {path} names {len(numbers)} classes, and not {shown}{' ...' if len(absent) > 3 else ''} of "
            f"{dataset.path}; every class of the data set must be in it, as `{absent[0]} NUMBER`."
        )
    return np.array([numbers[name] for name in there], np.int64)


def _require_same_classes(dataset: Dataset, classes: int) -> None:
    """Raise Problem where a label of the data set is, or may be, not the model's class of that number."""
    there = dataset.classes
    # Labels that are written as numbers are the model's, though the last classes may have no image.
    numbered = dataset.format != "folder" and there == tuple(map(str, range(len(there))))
    if len(there) == classes or (numbered and len(there) < classes):
        return
    shown = ", ".join(there[:3])
    more = "more" if len(there) > classes else "fewer"
    raise Problem(
        f"{dataset.path} has {len(there)} classes ({shown}, ...), {more} than the model's {classes}: which of the model's are "
        "they? A file with lines `CLASS NUMBER` says it: --class-map FILE (class_map=). Else take another model, or data."
    )


def _numbers(path: Path, classes: int) -> Mapping[str, int]:
    """By the name of a data set's class the number of the model's. Raises Problem."""
    given: Any = _json(path) if path.suffix.lower() == ".json" else _lines(path, classes)
    if not isinstance(given, dict):
        raise Problem(f'{path} must hold a JSON object, as {{"n01498041": 6}}.')
    for name, number in given.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < classes:
            raise Problem(
                f"{path} maps {name} to {number!r}; the model's {classes} classes are numbered from 0 to {classes - 1}."
            )
    return given


def _lines(path: Path, classes: int) -> dict[str, Any]:
    rows = [line.strip() for line in _text(path).splitlines() if line.strip() and not line.startswith("#")]
    parted = [row.replace(",", " ").rsplit(None, 1) for row in rows]
    pairs = [(row[0], whole_number(row[1])) for row in parted if len(row) == 2]
    if len(pairs) == len(rows) and all(number is not None for _, number in pairs):
        pass  # lines of a class and its number
    elif len(rows) == classes:  # the names of the model's classes, in order
        pairs = [(row, number) for number, row in enumerate(rows)]
    else:
        line = next((row for row, words in zip(rows, parted) if len(words) != 2 or whole_number(words[1]) is None), "")
        raise Problem(
            f"{path} holds {len(rows)} lines, one of them {line!r}; a class map has lines `CLASS NUMBER`, or the {classes} names "
            "of the model's classes in their order."
        )
    _require_distinct(path, [name for name, _ in pairs])
    return dict(pairs)


def _require_distinct(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise Problem(f"{path} names {twice[0]} more than once; every class stands there once.")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise Problem(f"Cannot read {path}: {problem}.", code="cannot-read") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as problem:
        raise Problem(f"{path} is not JSON that can be read ({problem}).", code="cannot-read") from None
