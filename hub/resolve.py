"""From the arguments `pretrained` and `weights` to a local file: a name, a path, a URL or a Hugging Face id is resolved."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from ..backends.config import Config, Encoder, MAEConfig, ViTConfig
from ..backends.presets import NAMED
from ..files.errors import Problem
from ..files.urls import is_address, shown
from . import fetch
from .huggingface import fetch_huggingface
from .registry import Published, best_for, called, find, nearest, of_model, published

_HUB = "hf://"
# owner/name as the Hugging Face Hub has it, perhaps with a branch, tag or commit.
_HUGGINGFACE = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_ENDINGS = (".pth", ".pt", ".bin", ".safetensors", ".npz", ".pkl", ".ckpt", ".tar")
# Settings of a model on which its weights do not depend.
_FREE = {
    "img_size",
    "norm_pix_loss",
    "masking",
    "loss_over",
    "train_positions",
    "num_classes",
    "pooling",
    "head_norm",
    "train_encoder",
}


@dataclass(frozen=True)
class Source:
    """Where weights are: a row of the registry, else a URL, a Hugging Face id or a path."""

    row: Published | None = None
    url: str = ""
    huggingface: str = ""
    path: Path | None = None

    def fetch(self) -> Path:
        """The local file or folder, downloaded if it is not kept yet. Raises Problem if it cannot be had."""
        if self.path is not None:
            return self.path
        if self.row is not None:
            return fetch.fetch(self.row)
        return fetch_huggingface(self.huggingface) if self.huggingface else fetch.fetch_url(self.url)

    def kept(self) -> Path | None:
        """The download if it is kept and sound, else None. No network."""
        if not self.huggingface:
            return fetch.kept(self.row or self.url)
        try:
            return fetch_huggingface(self.huggingface, offline=True)
        except Problem:
            return None

    def why_not(self) -> str:
        """Why a kept file is not used, as a sentence; "" if none is kept, or nothing is wrong with it."""
        return "" if self.huggingface else fetch.why_not(self.row or self.url)

    @property
    def of_row(self) -> Published | None:
        """The published checkpoint that this is; of a file from elsewhere, the one of its name."""
        name = self.path.name if self.path else shown(self.url).rpartition("/")[2]
        return self.row or (find(name) if name.endswith(_ENDINGS) else None)

    def __str__(self) -> str:
        if self.row:
            return f"{self.row.name} ({self.row.holds}; {self.row.licence})"
        return shown(self.url) or self.huggingface or str(self.path)


def source_of(weights: str | Path | bool, model: str, config: Config) -> Source:
    """The source that `pretrained` or `weights` means.

    True: the best that is published for the model; else one of its kinds ("visualize"), a path, a name or file name of the
    registry, a URL, or a Hugging Face id ("facebook/vit-mae-base", "owner/name@revision", "hf://owner/name").
    Raises Problem for anything else, and for a published file of another model.
    """
    if weights is True:
        return _of_row(best_for(model, config), model, config)
    if isinstance(weights, Path):
        return Source(path=weights.expanduser())
    if not isinstance(weights, str) or not weights.strip():
        raise Problem(f"weights is {weights!r}; give a name, a path, a URL or a Hugging Face id, or leave it out.")
    path = Path(weights).expanduser()
    if ("/" in weights or weights.endswith(_ENDINGS)) and _exists(path):  # asks no list, which may be broken
        return Source(path=path)
    kind = of_model(model).get(weights)
    if kind is not None:  # before a folder that happens to be called so: ./full names that
        return _of_row(kind, model, config)
    if _exists(path):
        return Source(path=path)
    source = remote(weights)
    if source is not None:
        return source if source.row is None else _of_row(source.row, model, config)
    if not weights.endswith(_ENDINGS) and _HUGGINGFACE.fullmatch(weights):
        return Source(huggingface=weights)
    raise Problem(_unknown(weights, model, config))


def local(text: str) -> Path:
    """The file that a command's argument names: a path, else a download (`remote`).

    Raises Problem if it cannot be downloaded, and for a name that is nearly one of the registry. Anything else is taken
    for a path.
    """
    path = Path(text)
    if _exists(path):
        return path
    source = remote(text)
    if source is None and "://" in text:
        raise Problem(_no_address(text))
    if source is None and "/" not in text and (near := get_close_matches(text, published(), n=1, cutoff=0.8)):
        raise Problem(f"There is no file {text}; and the published checkpoint of a similar name is {near[0]}.")
    return source.fetch() if source else path


def _exists(path: Path) -> bool:
    """Whether something is there; no for a text too long for a path, which the reader of files reports."""
    try:
        return path.exists()
    except OSError:
        return False


def remote(text: str) -> Source | None:
    """The download that a text names: a row of the registry by its name, file name, id or address; a URL; hf://owner/name."""
    row = find(text.removeprefix(_HUB))
    if row is not None:
        return Source(row=row, huggingface=row.huggingface)
    if is_address(text):
        return Source(url=text)
    if text.startswith(_HUB) and _HUGGINGFACE.fullmatch(text.removeprefix(_HUB)):
        return Source(huggingface=text.removeprefix(_HUB))
    return None


def _of_row(row: Published, model: str, config: Config) -> Source:
    """A published checkpoint for a model. Raises Problem if it is of another one, before anything is downloaded."""
    published_for, autoencoder = NAMED[row.model], isinstance(config, MAEConfig)
    if autoencoder and row.contents == "encoder":
        whole = [other for other in of_model(row.model).values() if other.contents == "mae"]
        listed = ", ".join(f"{other.kind} ({other.name}: {other.holds})" for other in whole) or "none is published"
        raise Problem(
            f"{row.name} holds an encoder without a decoder, and {called(model)} needs both. Files that have it: {listed}. "
            f"Or load the encoder into a classifier: {row.model.removeprefix('mae_')}."
        )
    if autoencoder and isinstance(published_for, ViTConfig):
        raise Problem(
            f"{row.name} is a classifier of {row.model}, and {called(model)} is an autoencoder: load it as {row.model}."
        )
    shared = type(config) if type(config) is type(published_for) else Encoder
    pairs = {
        f.name: (getattr(published_for, f.name), getattr(config, f.name)) for f in fields(shared) if f.name not in _FREE
    }
    differ = [f"{name}={published}, not {here}" for name, (published, here) in pairs.items() if published != here]
    if differ:
        raise Problem(
            f"{row.name} is of another model than {called(model)} with these settings: it has {', '.join(differ)}. Its model is "
            f"{row.model}."
        )
    return Source(row=row, huggingface=row.huggingface)


def _no_address(text: str) -> str:
    return (
        f"{shown(text)} is no address that weights can be downloaded from; it begins with http://, https:// or {_HUB}."
    )


def _unknown(text: str, model: str, config: Config) -> str:
    if "://" in text:
        return _no_address(text)
    if "/" in text or text.endswith(_ENDINGS):
        return f"There is no file {text}. {nearest(Path(text).name)}"
    whole = isinstance(config, MAEConfig)
    usable = [kind for kind, row in of_model(model).items() if not whole or row.contents == "mae"]
    others = sorted({row.model for row in published().values() if row.kind == text})
    near = get_close_matches(text, usable, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    answer = f"No {text} weights are published for {called(model)}, only for {', '.join(others)}." if others else (
        f"There are no weights {text!r}: no such file, and nothing of that name is published.{hint}"
    )  # fmt: skip
    kinds = (
        f" For {called(model)} there are {', '.join(usable)}."
        if usable
        else f" None are published for {called(model)}."
    )
    return f"{answer}{kinds} {'' if others or near else nearest(text)}".rstrip()
