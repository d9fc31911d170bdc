"""Images in parquet files, as Hugging Face's data sets are published. Needs pyarrow."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files.errors import Problem
from .dataset import Dataset, labels_and_classes

CACHE_BYTES = 2**30  # of decoded row groups that are kept, so that small sets are read once
_IMAGES, _LABELS = ("image", "img", "images", "jpg", "png"), ("label", "labels", "fine_label", "cls")


class Tables(Dataset):
    """The images of parquet files, in the order of the files and of their rows.

    A column image (or img ...) holds encoded images: bytes, or Hugging Face's struct of bytes and path. A column label, if
    there is one, holds numbers, or the names of classes. A row is read with its row group, and row groups of up to
    CACHE_BYTES are kept: where the set is larger, small row groups (a hundred rows) are read fastest in random order.
    """

    format = "parquet"

    def __init__(self, files: list[Path]):
        """Raises Problem where pyarrow is missing, a file is no parquet file, or has no column of images."""
        self._parquet = _pyarrow_parquet()
        self.files, self.path = files, files[0] if len(files) == 1 else files[0].parent
        self._metadata = [self._read_metadata(file) for file in files]
        self._groups: list[tuple[int, int]] = []  # file and row group
        firsts, count = [], 0
        for number, metadata in enumerate(self._metadata):
            for group in range(metadata.num_row_groups):
                self._groups.append((number, group))
                firsts.append(count)
                count += metadata.row_group(group).num_rows
        self._firsts, self._count = np.array(firsts, np.int64), count
        schema = self._metadata[0].schema.to_arrow_schema()
        self._column = _column(schema, _IMAGES, files[0])
        self.labels: list[int] | None = None
        label = next((name for name in _LABELS if name in schema.names), None)
        if label is not None:
            self.labels, self.classes = self._read_labels(label, schema)
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        group = self._group(index)
        file = self._groups[group][0]
        first = next(number for number, (one, _) in enumerate(self._groups) if one == file)
        return f"{self.files[file].name}[{index - int(self._firsts[first])}]"

    def label(self, index: int) -> int | None:
        return None if self.labels is None else self.labels[index]

    def read(self, index: int) -> bytes:
        group = self._group(index)
        data = self._images(group)[index - int(self._firsts[group])].as_py()
        if data is None:
            raise Problem(
                f"{self.name(index)} of {self.path} holds no bytes (but a path, perhaps): write the images into the file, as "
                "Hugging Face's push_to_hub does."
            )
        return bytes(data)

    def sizes(self) -> Iterator[int]:
        for group in range(len(self._groups)):
            yield from (len(value.as_py() or b"") for value in self._images(group))

    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes in bytes and rows, the classes and the labels."""
        whole = hashlib.sha256(repr((self.format, self.classes)).encode())
        for file, metadata in zip(self.files, self._metadata):
            whole.update(f"{file.name}\0{file.stat().st_size}\0{metadata.num_rows}\n".encode(errors="surrogateescape"))
        whole.update(np.array(self.labels or [], "<i8").tobytes())
        return whole.hexdigest()

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self._firsts, index, "right")) - 1

    def _images(self, group: int) -> Any:
        """The encoded images of a row group: an array of pyarrow's."""
        with self._lock:
            if group in self._kept:
                self._kept.move_to_end(group)
                return self._kept[group]
        file, number = self._groups[group]
        try:
            opened = self._parquet.ParquetFile(self.files[file], metadata=self._metadata[file])
            column = opened.read_row_group(number, columns=[self._column], use_threads=False).column(0).combine_chunks()
        except (OSError, ValueError) as problem:
            raise Problem(
                f"Cannot read {self.files[file]}: {problem}. It must stay as it is while it is used."
            ) from None
        if hasattr(column, "chunks"):  # of more than pyarrow puts into one array
            raise Problem(f"A row group of {self.files[file]} holds more than 2 GB; write smaller ones.")
        images = column.field("bytes") if hasattr(column, "field") else column
        with self._lock:
            self._kept[group] = images
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > CACHE_BYTES:
                self._kept.popitem(last=False)
        return images

    def _read_metadata(self, file: Path) -> Any:
        try:
            return self._parquet.read_metadata(file)
        except (OSError, ValueError) as problem:
            raise Problem(f"{file} is not a parquet file that can be read ({problem}); fetch it again.") from None

    def _read_labels(self, column: str, schema: Any) -> tuple[list[int], tuple[str, ...]]:
        given: list[Any] = []
        for file in self.files:
            given += self._parquet.read_table(file, columns=[column]).column(0).to_pylist()
        if None in given or -1 in given:  # -1: Hugging Face's for images of a test set
            raise Problem(
                f"Row {next(row for row, value in enumerate(given) if value in (None, -1))} of {self.path} has no label in the "
                f"column {column}; leave such rows out, or the column."
            )
        labels, classes = labels_and_classes([str(value) for value in given], str(self.path))
        names = _class_names(schema, column)
        if len(names) >= len(classes) and not isinstance(given[0] if given else "", str):
            classes = tuple(names)
        return labels, classes


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise Problem("Parquet files are read by pyarrow, which is not installed: pip install pyarrow") from None
    return pyarrow.parquet


def _column(schema: Any, names: Sequence[str], file: Path) -> str:
    there = list(schema.names)
    name = next((name for name in names if name in there), None)
    if name is None:
        raise Problem(f"{file} has the columns {', '.join(there)}; one must be called image and hold encoded images.")
    kind = schema.field(name).type
    fields = [kind[number].name for number in range(kind.num_fields)]
    if "bytes" not in fields and str(kind) not in ("binary", "large_binary"):
        raise Problem(
            f"The column {name} of {file} is of type {kind}; it must hold encoded images, as bytes or as a struct with bytes."
        )
    return name


def _class_names(schema: Any, column: str) -> list[str]:
    """The names that Hugging Face's data sets keep for the numbers of a column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return list(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):
        return []
