"""Where weights come from: what `pretrained` and `weights` mean, and the local file that they lead to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..backends.config import Config, MAEConfig
from ..backends.errors import Problem
from .download import is_address
from .registry import Published, best_for, find, nearest, of_model

# owner/name as the Hugging Face Hub has it, perhaps with a branch, tag or commit.
_HUGGINGFACE = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_ENDINGS = (".pth", ".pt", ".bin", ".safetensors", ".npz", ".pkl", ".ckpt", ".tar")


@dataclass(frozen=True)
class Source:
    """Where weights are: a row of the registry, else a URL, a Hugging Face id or a path."""

    row: Published | None = None
    url: str = ""
    huggingface: str = ""
    path: Path | None = None

    def fetch(self, framework: str | None = None) -> Path:
        """The local file or folder, downloaded where it has not been yet, and converted to a framework's own file.

        What is not in the cache itself, the user's files and the Hugging Face Hub's, stays as it is: every format is read.
        Raises Problem where it is not to be had.
        """
        if self.path is not None:
            return self.path
        from . import cache  # only who downloads needs what it imports

        if self.row is not None:
            original = cache.fetch(self.row)
        else:
            original = cache.fetch_huggingface(self.huggingface) if self.huggingface else cache.fetch_url(self.url)
        return cache.native(original, framework) if framework and not self.huggingface else original

    def __str__(self) -> str:
        if self.row:
            return f"{self.row.name} ({self.row.holds}; {self.row.licence})"
        return self.url or self.huggingface or str(self.path)


def source_of(weights: str | Path | bool, model: str, config: Config) -> Source:
    """What `pretrained` or `weights` stands for.

    True: the best that is published for the model; else one of its kinds ("visualize"), a name or file name of the registry, a
    path, a URL, or a Hugging Face id ("facebook/vit-mae-base", "owner/name@revision", "hf://owner/name").
    Raises Problem where it is none of these, and where a published file has no decoder and the model needs one.
    """
    if weights is True:
        return _of_row(best_for(model, config), model, config)
    text = str(weights)
    if not text.strip():
        raise Problem("weights is empty; give a name, a path, a URL or a Hugging Face id, or leave it out.")
    kind = None if isinstance(weights, Path) else of_model(model).get(text)
    if kind is not None:  # before a folder that happens to be called so: ./full names that
        return _of_row(kind, model, config)
    path = Path(text).expanduser()
    if isinstance(weights, Path) or path.exists():
        return Source(path=path)
    if (row := find(text)) is not None:
        return _of_row(row, model, config)
    if (elsewhere := _elsewhere(text)) is not None:
        return elsewhere
    if text.endswith(_ENDINGS) or not _HUGGINGFACE.fullmatch(text):
        kinds = ", ".join(of_model(model))
        raise Problem(
            f"There are no weights {text!r}: no such file, and nothing of that name is published. {nearest(text)} "
            + (f"For {model} there are {kinds}. " if kinds else "")
            + "A path, a URL or a Hugging Face id (owner/name) also works."
        )
    return Source(huggingface=text)


def local(text: str) -> Path:
    """The file that a command's argument names: a path, else a name of the registry, a URL or hf://owner/name, downloaded.

    Raises Problem where it cannot be downloaded. What is none of these is taken for a path.
    """
    path = Path(text)
    if path.exists():
        return path
    row = find(text)
    source = Source(row=row, huggingface=row.huggingface) if row else _elsewhere(text)
    return source.fetch() if source else path


def _elsewhere(text: str) -> Source | None:
    if is_address(text):
        return Source(url=text)
    return Source(huggingface=text.removeprefix("hf://")) if text.startswith("hf://") else None


def _of_row(row: Published, model: str, config: Config) -> Source:
    if isinstance(config, MAEConfig) and row.contents == "encoder":
        whole = [other for other in of_model(row.model).values() if other.contents == "mae"]
        listed = ", ".join(f"{other.kind} ({other.name}: {other.holds})" for other in whole) or "none is published"
        raise Problem(
            f"{row.name} holds an encoder without a decoder, and {model} needs both. Files that have it: {listed}. Or load the "
            f"encoder into a classifier: {row.model.removeprefix('mae_')}."
        )
    return Source(row=row, huggingface=row.huggingface)
