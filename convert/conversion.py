"""One conversion, from the file that is given to the weights that are to be written: opened, chosen, changed, explained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..backends.config import Config, MAEConfig
from ..backends.presets import NAMED, model_config
from .checkpoint import Checkpoint, open_checkpoint
from .dialects import DIALECTS, Contents, Dialect
from .dialects.contents import settings_in
from .dialects.dialect import EXACT, UNCONFIGURED
from .formats import FORMATS
from .hashing import UNKNOWN, Hashed, hash_tensors
from .overflow import overflow_problem
from .parts import grouped, unwrapped
from .problems import report
from .provenance import Provenance
from .resolve import model_of, own_size
from .said import COMPUTED
from .tensors import CheckpointProblem, Progress
from .transform import WeightSet, notices, refuse_inexpressible
from .writing import NotFiniteProblem, write_weights


@dataclass(frozen=True)
class Wish:
    """What is to be made of a checkpoint. None leaves it as it is.

    model: as --model takes it. source_dialect: the one to read. image_size: (height, width) in pixels. prefix: what the
    names of the model begin with, where the file holds several.
    """

    model: str | None = None
    source_dialect: str | None = None
    encoder_only: bool = False
    dtype: str | None = None
    image_size: tuple[int, int] | None = None
    num_classes: int | None = None
    prefix: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A checkpoint, the name of its model, and the weights that the wish makes of it; nothing is loaded yet."""

    checkpoint: Checkpoint
    model: str
    original: WeightSet
    weights: WeightSet
    asked: bool

    def notices(self, target: Dialect, form: str) -> tuple[str, ...]:
        """What the target's program would compute otherwise, and what was taken for granted about the source."""
        found = [*notices(target, self.weights)]
        named = NAMED.get(self.model)
        if target.computes == EXACT and type(named) is type(self.weights.config):
            counted = settings_in(self.weights.contents).intersection(COMPUTED)
            settings = asdict(self.weights.config)
            own = [f"{n}={v}" for n, v in settings.items() if n in counted and v != getattr(named, n)]
            if own:
                found.append(
                    f"{self.model} is built otherwise by default: these weights are for {', '.join(own)}, which PolyMAE "
                    "reads from the provenance"
                )
        if target.config_file and not FORMATS[form].FOLDER:
            found.append(
                "a single file has no config.json: transformers computes with its defaults, eps 1e-12 among them"
            )
        return (*found, *self._assumed())

    def _assumed(self) -> list[str]:
        checkpoint, config = self.checkpoint, self.weights.config
        dialect = checkpoint.identified.dialect
        found = []
        if checkpoint.provenance is None and (said := dialect.notes.get(checkpoint.contents)):
            found.append(said)
        if dialect.config_file and checkpoint.config_text is None and checkpoint.provenance is None:
            found.append(
                f"there is no config.json beside {checkpoint.path.name}: taken for eps {config.norm_eps}, where transformers' "
                "own default is 1e-12"
            )
        if checkpoint.no_qkv_bias:
            found.append(
                "its program adds no bias to q, k and v (qkv_bias): they have biases of 0, which compute the same"
            )
        if checkpoint.options and checkpoint.contents == "mae":
            said = ", ".join(f"{name}={value}" for name, value in checkpoint.options.items())
            found.append(f"{said}, as the options say that training saved in the file")
        if checkpoint.unknown:
            listed = ", ".join(checkpoint.unknown[:4]) + (" and more" if len(checkpoint.unknown) > 4 else "")
            found.append(f"beside the weights the file names what is not known here and was not looked up: {listed}")
        if outside := checkpoint.identified.outside:
            found.append(f"left out, since they lie outside of the model: {grouped(unwrapped(outside))}")
        if not self.asked and not checkpoint.told:
            found.append(self._heads())
        return found

    def _heads(self) -> str:
        """No file shows how many heads there are."""
        config, dialect = self.weights.config, self.checkpoint.identified.dialect
        heads = f"{config.num_heads} heads"
        if isinstance(config, MAEConfig) and self.checkpoint.contents == "mae":
            heads += f", {config.decoder_num_heads} in the decoder"
        by_head = any("h" in layout for spelling in dialect.spellings.values() for layout in spelling.layouts.values())
        if by_head or dialect.derived:
            return (
                f"taken for {self.model}: {config.img_size[0]}x{config.img_size[1]} pixels, {heads}, which the file does not "
                "show and on which the place of its values depends; if it is another model, say with -m"
            )
        return f"taken for {self.model}: {heads}, which no file shows; for others say -m '{self.model},num_heads=...'"


def prepare(path: Path, wish: Wish) -> Prepared:
    """Open a checkpoint and apply a wish to it. Raises CheckpointProblem, with every problem of the file at once."""
    checkpoint = open_checkpoint(path, wish.source_dialect, wish.prefix)
    own: dict[str, Any] = {}
    if wish.model is not None and wish.image_size is not None:  # the file may be of that size already
        own = {"img_size": own_size(checkpoint, model_config(wish.model), wish.image_size)}
    model, config = model_of(checkpoint, wish.model, own)
    alone = wish.encoder_only or (wish.num_classes is not None and checkpoint.contents in ("mae", "encoder"))
    # Without -m an encoder's file is taken for what it is; one asked for by name is expected to be whole.
    alone = alone or (checkpoint.contents == "encoder" and wish.model is None)
    original = selected(checkpoint, config, alone)
    weights = original.without_decoder() if alone and checkpoint.contents == "mae" else original
    if wish.num_classes is not None:
        weights = weights.with_classes(wish.num_classes)
    if wish.image_size is not None:
        weights = weights.with_image_size(wish.image_size)
    if wish.dtype is not None:
        weights = weights.with_dtype(wish.dtype)
    return Prepared(checkpoint, model, original, weights, wish.model is not None)


def selected(checkpoint: Checkpoint, config: Config, encoder_only: bool = False) -> WeightSet:
    """The weights of a model in a checkpoint, with what they were trained for. Raises CheckpointProblem as `select`."""
    dialect = checkpoint.identified.dialect
    computed = {n: v for n, v in dialect.function(checkpoint.contents).items() if n in UNCONFIGURED}
    function = {**({} if checkpoint.provenance else computed), **checkpoint.function}
    contents: Contents = "encoder" if encoder_only else checkpoint.contents
    chosen = checkpoint.select(config, encoder_only)
    return WeightSet(config, contents, chosen, function=function, config_text=checkpoint.config_text)


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
        config=weights.config,
        function=weights.function,
        source=source,
        transformations=(*(known.transformations if known else ()), *weights.done),
        notices=prepared.notices(target, form),
    )

    def about(hashed: Hashed) -> Provenance:
        if before is None and whole and hashed is not UNKNOWN:
            checkpoint.require_own_provenance(hashed.content)
        return replace(draft, hash=hashed.content, source={**source, "hash": (before or hashed).content})

    try:
        return write_weights(weights, target, form, output, about, progress)
    except NotFiniteProblem as problem:
        found = problem.problems if before is None else before.not_finite
        if not found:  # it was finite before it was rounded
            asked = next(iter(weights.tensors.values())).dtype
            read = {n: t for n, t in prepared.original.tensors.items() if n in weights.tensors}
            raise overflow_problem(checkpoint.path, asked, read) from None
        raise CheckpointProblem(report(checkpoint.path, list(found), None, None, weights.config), found) from None


def require_apart(source: Path, output: Path, form: str, lost: Sequence[str]) -> None:
    """Raise CheckpointProblem where writing `output` would destroy a source of which something is lost.

    lost: what of the source the output will not hold.
    """
    one, other = source.resolve(), output.resolve()
    if one == other and lost:
        raise CheckpointProblem(
            f"{output} is the file that is read, and would lose something ({', '.join(lost)}); write to another file with -o."
        )
    around, within = FORMATS[form].FOLDER and other in one.parents, one.is_dir() and one in other.parents
    if around or within:
        raise CheckpointProblem(
            f"{output} is in the same place as the checkpoint {source}; write to another place with -o."
        )


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(Path(folder, name).stat().st_size for folder, _, names in os.walk(path) for name in names)
