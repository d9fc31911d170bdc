"""Every published checkpoint: its address, its contents, its licence. The data is registry.json."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..backends.config import Config, MAEConfig, ViTConfig
from ..backends.presets import NAMED
from ..files.errors import Problem

MORE = "POLYMAE_REGISTRY"  # a JSON file in the form of registry.json, whose checkpoints are added
# Kinds of contents, in words.
_HOLDS = {"encoder": "encoder only", "mae": "encoder and decoder", "classifier": "classifier"}


@dataclass(frozen=True)
class Published:
    """One published checkpoint."""

    name: str
    source: str  # a key of the list's "sources", which give address, licence and citation
    model: str  # a preset
    kind: str  # its name among the model's checkpoints, as visualize
    contents: str  # encoder, mae (with the decoder) or classifier
    address: str
    licence: str
    citation: str
    path: str = ""  # below the address of its source, or of a mirror
    huggingface: str = ""  # or its id there
    pixels: str = ""  # the target of its decoder: raw, or normalised per patch
    digests: Mapping[str, str] = field(default_factory=dict)  # by algorithm: all hexadecimal digits, or the first ones
    numbers: Mapping[str, float] = field(default_factory=dict)  # published results on ImageNet-1k, in per cent
    note: str = ""

    @property
    def url(self) -> str:
        """Where its project publishes it."""
        return self.address.rstrip("/") + "/" + (self.path or self.huggingface)

    @property
    def file(self) -> str:
        """Its file's name; "" if it is a folder of the Hugging Face Hub."""
        return self.path.rpartition("/")[2]

    @property
    def holds(self) -> str:
        """Its contents, in words."""
        return _HOLDS[self.contents] + (f", {self.pixels} pixels" if self.pixels else "")


def published() -> dict[str, Published]:
    """Every known checkpoint by name; $POLYMAE_REGISTRY adds those of a file. Raises Problem if that file is unusable."""
    rows = dict(_read(Path(__file__).with_name("registry.json")))
    if more := os.environ.get(MORE):
        rows |= _read(Path(more))
        try:
            _require_distinct("place", [f"{row.source}: {row.path or row.huggingface}" for row in rows.values()])
        except ValueError as problem:
            raise Problem(f"{more} ({MORE}) and what is published do not go together: {problem}.") from None
    return rows


def find(name: str) -> Published | None:
    """The checkpoint of this name, file name, address or Hugging Face id, or None."""
    return next((row for row in published().values() if name in (row.name, row.file or row.huggingface, row.url)), None)


def nearest(name: str) -> str:
    """The names nearest to a mistyped one, and the command that lists all, as a sentence."""
    near = get_close_matches(name, published(), n=3)
    return (f"Nearest: {', '.join(near)}. " if near else "") + "`polymae weights list` shows what is published."


def of_model(model: str) -> dict[str, Published]:
    """The checkpoints that fit a preset, by kind; a classifier also takes the encoders of the autoencoder of its size."""
    rows = list(published().values())
    return {row.kind: row for row in rows if row.model == f"mae_{model}"} | {
        row.kind: row for row in rows if row.model == model
    }


def best_for(model: str, config: Config) -> Published:
    """The checkpoint that pretrained=True means.

    An autoencoder of raw pixels: visualize; of normalised ones: full. A classifier: the fine-tuned one if it has these
    classes and this pooling, else the pre-trained encoder, from which official fine-tuning starts.
    Raises Problem if none is published.
    """
    rows = of_model(model)
    if isinstance(config, MAEConfig):
        wanted = "full" if config.norm_pix_loss else "visualize"
    else:
        usual = NAMED.get(model)
        same = (
            isinstance(usual, ViTConfig) and usual.num_classes == config.num_classes and usual.pooling == config.pooling
        )
        wanted = "finetuned" if same else "pretrain"
    if wanted in rows:
        return rows[wanted]
    others = f"No {wanted} weights are published for {called(model)}, only {', '.join(rows)}. "
    raise Problem(
        (others if rows else f"None are published for {called(model)}. ")
        + "Give your own with weights=<path, URL or Hugging Face id>, or leave pretrained=False for initial weights."
    )


def called(model: str) -> str:
    """A model's name, for a sentence."""
    return model if model in NAMED else "a model of these sizes"


@functools.cache
def _parsed(path: Path, changed: int) -> dict[str, Published]:
    """The file's rows; `changed`: its time in nanoseconds, so that a file that was replaced is read again."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [_row(row, content["sources"][row["source"]]) for row in content["checkpoints"]]
    _require_distinct("name", [row.name for row in rows])
    return {row.name: row for row in rows}


def _require_distinct(field_name: str, values: Iterable[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"two checkpoints have the {field_name} {twice[0]}")


def _row(row: Mapping[str, Any], source: Mapping[str, str]) -> Published:
    made = Published(**row, address=source["url"], licence=source["licence"], citation=source["citation"])
    if made.contents not in _HOLDS or bool(made.file) == bool(made.huggingface):
        raise ValueError(
            f"{made.name} needs contents of {', '.join(_HOLDS)} and either a path of a file or a huggingface id"
        )
    if made.model not in NAMED or (made.contents == "classifier") == isinstance(NAMED[made.model], MAEConfig):
        raise ValueError(f"{made.name} has {made.contents} weights of {made.model}, which is no such model")
    if wrong := made.digests.keys() - {"md5", "sha256"}:
        raise ValueError(f"{made.name} has a digest of {', '.join(wrong)}; md5 and sha256 are compared")
    return made


def _read(path: Path) -> dict[str, Published]:
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise Problem(
            f"{path} ({MORE}) is no list of checkpoints: {problem!r}. It must have the form of {Path(__file__).name[:-3]}.json "
            "in PolyMAE's folder hub."
        ) from None
