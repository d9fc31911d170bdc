"""One conversion, from the file that is given to the weights that are to be written: opened, chosen, changed, explained."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..backends.presets import NAMED
from .changes import Weights, as_computed, notices, refuse_inexpressible
from .checkpoint import Checkpoint, open_checkpoint
from .choice import model_of
from .dialects import DIALECTS, Contents, Dialect
from .dialects.dialect import EXACT
from .hashing import UNKNOWN, Hashed, hash_tensors
from .provenance import Provenance
from .said import COMPUTED
from .tensors import Progress
from .writing import write_weights


@dataclass(frozen=True)
class Wish:
    """What is to be made of a checkpoint. None leaves it as it is.

    model: as --model takes it. source_dialect: the one to read. image_size: (height, width) in pixels.
    """

    model: str | None = None
    source_dialect: str | None = None
    encoder_only: bool = False
    dtype: str | None = None
    image_size: tuple[int, int] | None = None
    num_classes: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A checkpoint, the name of its model, and the weights that the wish makes of it; nothing is loaded yet."""

    checkpoint: Checkpoint
    model: str
    original: Weights
    weights: Weights

    def notices(self, target: Dialect) -> tuple[str, ...]:
        """What the target's program would compute otherwise, and what the source's dialect has to say."""
        source = self.checkpoint.identified.dialect
        found = notices(source, self.checkpoint.function, target, self.weights)
        named = NAMED.get(self.model)
        if target.computes == EXACT and named is not None:
            own = [
                f"{n}={v}" for n, v in asdict(self.weights.config).items() if n in COMPUTED and v != getattr(named, n)
            ]
            if own:
                found = (*found, f"{self.model} is built otherwise by default: these weights are for {', '.join(own)}, "
                         "which PolyMAE reads from the provenance")  # fmt: skip
        return (*found, *([source.note] if source.note and self.checkpoint.contents == "mae" else ()))


def prepare(path: Path, wish: Wish) -> Prepared:
    """Open a checkpoint and apply a wish to it. Raises CheckpointProblem, with every problem of the file at once."""
    checkpoint = open_checkpoint(path, wish.source_dialect)
    model, config = model_of(checkpoint, wish.model)
    alone = wish.encoder_only or (wish.num_classes is not None and checkpoint.contents in ("mae", "encoder"))
    # Without -m an encoder's file is taken for what it is; one asked for by name is expected to be whole.
    alone = alone or (checkpoint.contents == "encoder" and wish.model is None)
    gelu = {**checkpoint.identified.dialect.function(checkpoint.contents), **checkpoint.function}.get("gelu", "erf")
    contents: Contents = "encoder" if alone else checkpoint.contents
    original = Weights(config, contents, checkpoint.select(config, alone), gelu=gelu)
    weights = original.without_decoder() if alone and checkpoint.contents == "mae" else original
    if wish.num_classes is not None:
        weights = weights.with_classes(wish.num_classes)
    if wish.image_size is not None:
        weights = weights.with_image_size(wish.image_size)
    if wish.dtype is not None:
        weights = weights.with_dtype(wish.dtype)
    return Prepared(checkpoint, model, original, weights)


def convert(prepared: Prepared, dialect: str, form: str, output: Path, progress: Progress | None = None) -> str:
    """Write what was prepared, with its provenance, and return the content hash of what was written.

    Raises CheckpointProblem where the weights are not finite, or the provenance beside the source is of other weights.
    """
    checkpoint, weights, target = prepared.checkpoint, prepared.weights, DIALECTS[dialect]
    refuse_inexpressible(target, weights)
    changed = weights.tensors != prepared.original.tensors
    whole = prepared.original.tensors.keys() >= checkpoint.identified.readings.keys()
    before = hash_tensors(prepared.original.tensors, progress) if changed else None
    if checkpoint.provenance is not None and (before or not whole):
        checkpoint.require_own_provenance(before.content if before and whole else checkpoint.hash)
    known = checkpoint.provenance
    source = {
        "name": checkpoint.path.name,
        "bytes": _size(checkpoint.path),
        "format": checkpoint.format,
        "dialect": checkpoint.dialect,
        "ignored": list(checkpoint.extras),
    }
    draft = Provenance(
        hash="",
        dialect=dialect,
        config=as_computed(target, weights),
        source=source,
        transformations=(*(known.transformations if known else ()), *weights.done),
        notices=prepared.notices(target),
    )

    def about(hashed: Hashed) -> Provenance:
        if before is None and whole and hashed is not UNKNOWN:
            checkpoint.require_own_provenance(hashed.content)
        return replace(draft, hash=hashed.content, source={**source, "hash": (before or hashed).content})

    return write_weights(weights, target, form, output, about, progress)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(Path(folder, name).stat().st_size for folder, _, names in os.walk(path) for name in names)
