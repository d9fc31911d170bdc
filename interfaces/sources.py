"""Where the weights are that somebody means: a model's name, a published checkpoint's, a path, a URL, a Hugging Face id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ..backends.presets import ALIASES, NAMED
from ..files.errors import Problem
from ..hub.registry import Published, published
from ..hub.resolve import Source, remote, source_of
from ..training.beginning import weights_file


@dataclass(frozen=True)
class Found:
    """Weights on this machine. path: a file, a checkpoint's folder or a run's. row: which published checkpoint it is, if any."""

    path: Path
    row: Published | None = None

    @property
    def norm_pix_loss(self) -> bool | None:
        """Whether a published decoder paints normalised patches; None: the file tells."""
        return self.row.pixels == "normalised" if self.row and self.row.contents == "mae" else None


def our_name(name: str) -> str:
    """A model's name here, of one here or of mindformers (mae_vit_base_p16); other texts stay as they are."""
    ours = re.sub(r"^((?:mae_)?vit_\w+)_p(\d+)$", r"\1_patch\2", name)
    return ours if ours in NAMED else name


def is_model(name: str) -> bool:
    """Whether a text is a model's name."""
    return our_name(name) in {*NAMED, *ALIASES}


def find(weights: str | Path) -> Found:
    """The weights that are meant, downloaded if need be: of a model's name, the best that is published for it.

    A folder that save_pretrained wrote is the one checkpoint in it. Raises Problem for what cannot be had: there is never
    another model in its place.
    """
    if not isinstance(weights, (str, Path)) or not str(weights):
        raise Problem(
            f"The weights are {weights!r}; give a model's name, a path, a URL or a Hugging Face id.",
            code="bad-argument",
        )
    text = str(weights)
    path = Path(text).expanduser()
    if path.exists():
        source = Source(path=_checkpoint_in(path) if path.is_dir() else path)
    elif is_model(text):
        name = ALIASES.get(our_name(text), our_name(text))
        source = source_of(True, name, NAMED[name])
    elif found := remote(text) or (
        remote(f"hf://{text}") if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", text) else None
    ):
        source = found
    else:
        near = get_close_matches(text, [*NAMED, *published()], n=2)
        hint = f" Nearest names: {', '.join(near)}." if near else ""
        raise Problem(
            f"There is no {text}: neither a file or folder, nor a model (`polymae models`) or a published checkpoint (`polymae "
            f"weights list`) of this name.{hint}",
            code="no-such-file",
        )
    return Found(source.fetch(), source.of_row)


def _checkpoint_in(folder: Path) -> Path:
    """The checkpoint that a folder is, or the only one in it. Raises Problem for several, saying their paths."""
    from ..convert.formats import find_format
    from ..convert.tensors import CheckpointProblem

    if weights_file(folder) != folder:
        return folder
    try:
        find_format(folder)
        return folder
    except CheckpointProblem as problem:
        inside = [one for one in sorted(folder.iterdir()) if not one.name.startswith(".") and _is_checkpoint(one)]
        if not inside:
            raise problem from None
    if len(inside) > 1:
        raise Problem(
            f"{folder} holds {len(inside)} checkpoints; give the one that is meant: {', '.join(map(str, inside))}.",
            code="ambiguous",
        )
    return inside[0]


def _is_checkpoint(path: Path) -> bool:
    from ..convert.formats import find_format
    from ..convert.tensors import CheckpointProblem

    try:
        find_format(path)
    except CheckpointProblem:
        return False
    return True
