"""A checkpoint made ready for a model or a file: opened, resolved, selected, transformed; and written, with its provenance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path

from ..backends.config import Config, MAEConfig
from ..backends.presets import NAMED
from .checkpoint import Checkpoint, Loaded, open_checkpoint
from .dialects import DIALECTS, Contents, Dialect, expected_params, settings_in
from .dialects.dialect import EXACT, UNCONFIGURED
from .formats import FORMATS
from .hashing import UNKNOWN, Hashed, hash_tensors
from .layouts import inverse
from .parts import grouped, unwrapped
from .problems import overflow_problem, report
from .provenance import Provenance
from .resolve import COMPUTED, Wish, resolve, with_requested_head
from .tensors import CheckpointProblem, Progress
from .transform import WeightSet, notices, refuse_inexpressible
from .writing import NotFiniteProblem, write_weights

__all__ = ["Prepared", "Wish", "convert", "prepare", "require_apart"]


@dataclass(frozen=True)
class Prepared:
    """A checkpoint, and the weights that a request makes of it; nothing is loaded yet."""

    checkpoint: Checkpoint
    model: str  # its name: as it was requested, else that of the preset, else "own model"
    config: Config  # the model that the weights are for; a requested classifier, if they are the encoder that it is built on
    original: WeightSet  # as they lie in the file
    weights: WeightSet  # with all transformations
    requested: bool  # whether the model was requested by name

    @property
    def changed(self) -> bool:
        """Whether the transformations changed any tensor."""
        return self.weights.tensors != self.original.tensors

    def load(self) -> Loaded:
        """The weights in memory, float32 by spec name, with their content hash. Raises CheckpointProblem as Checkpoint.load."""
        return self.checkpoint.load_tensors(self.weights.config, self.weights.tensors, self.changed)

    def notices(self, target: Dialect, form: str) -> tuple[str, ...]:
        """A sentence for each setting that the target's program computes differently, and each assumption about the source."""
        sentences = [*notices(target, self.weights)]
        named = NAMED.get(self.model)
        if target.computes == EXACT and type(named) is type(self.weights.config):
            counted = settings_in(self.weights.contents).intersection(COMPUTED)
            settings = asdict(self.weights.config)
            others = [f"{n}={v}" for n, v in settings.items() if n in counted and v != getattr(named, n)]
            if others:
                sentences.append(
                    f"{self.model} is built otherwise by default: these weights are for {', '.join(others)}, which PolyMAE "
                    "reads from the provenance"
                )
        if target.config_file and not FORMATS[form].FOLDER:
            sentences.append(
                "a single file has no config.json: transformers computes with its defaults, eps 1e-12 among them"
            )
        return (*sentences, *self._assumed())

    def _assumed(self) -> list[str]:
        checkpoint, config, evidence = self.checkpoint, self.weights.config, self.checkpoint.evidence
        dialect = checkpoint.identified.dialect
        sentences = []
        if checkpoint.provenance is None and (note := dialect.notes.get(checkpoint.contents)):
            sentences.append(note)
        if dialect.config_file and evidence.config_text is None and checkpoint.provenance is None:
            sentences.append(
                f"there is no config.json beside {checkpoint.path.name}: taken for eps {config.norm_eps}, where transformers' "
                "own default is 1e-12"
            )
        if evidence.no_qkv_bias:
            sentences.append(
                "its program adds no bias to q, k and v (qkv_bias): they have biases of 0, which compute the same"
            )
        if evidence.options and checkpoint.contents == "mae":
            options = ", ".join(f"{name}={value}" for name, value in evidence.options.items())
            sentences.append(f"{options}, as the options say that training saved in the file")
        if checkpoint.unknown:
            listed = ", ".join(checkpoint.unknown[:4]) + (" and more" if len(checkpoint.unknown) > 4 else "")
            sentences.append(
                f"beside the weights the file names what is not known here and was not looked up: {listed}"
            )
        if outside := checkpoint.identified.outside:
            sentences.append(f"left out, since they lie outside of the model: {grouped(unwrapped(outside))}")
        if not self.requested and evidence.declared is None:
            sentences.append(self._heads())
        return sentences

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

    def mapping(self, target: Dialect) -> list[tuple[str, str, str, str]]:
        """A row for each tensor: names in the file, name and shape in the spec, names in the target, and the rearrangement.

        In the spec's order; a tensor in parts takes several rows, and a derived tensor has a dash in place of a name.
        Layouts are patterns as einops has them. Tensors of the file that are left out come last.
        """
        rows = [("FROM", "SPEC", "TO", "")]
        weights, readings = self.weights, self.checkpoint.identified.readings
        spelling = target.spellings.get(weights.contents)
        for param in expected_params(weights.config, weights.contents):
            if param.name not in weights.tensors:
                continue
            reading = readings.get(param.name)
            names, layout = spelling.spell(param) if spelling and param.name not in target.derived else ((), None)
            done = [f"laid out {inverse(reading.layout)}"] if reading and reading.layout else []
            done += ["joined"] if reading and len(reading.names) > 1 else []
            done += [f"laid out {layout}"] if layout else []
            done += ["cut in parts"] if len(names) > 1 else []
            done += ["derived"] if reading is None else []
            shape = "x".join(map(str, weights.tensors[param.name].shape))
            sources = reading.names if reading else ("-",)
            columns = (sources, [f"{param.name} {shape}"], names or ("-",), ["; ".join(done)])
            rows += zip_longest(*columns, fillvalue="")
        for spec, reading in readings.items():
            if spec not in weights.tensors:
                rows += [(name, spec, "-", "left out") for name in reading.names]
        return rows


def prepare(path: str | Path, wish: Wish) -> Prepared:
    """Open a checkpoint, find its model, and turn its weights into the requested ones.

    Raises CheckpointProblem, with every problem of the file at once, and ConfigError for an unusable model.
    """
    checkpoint = open_checkpoint(path, wish.source_dialect, wish.prefix)
    resolved = resolve(checkpoint.evidence, wish)
    weights = original = _selected(checkpoint, resolved.config, resolved.encoder_only)
    config: Config | None = resolved.classifier
    if wish.adapt and config is None:
        config = with_requested_head(checkpoint.evidence, resolved.config, wish)
    if resolved.encoder_only and checkpoint.contents == "mae":
        weights = weights.without_decoder("without the decoder" if wish.adapt else "encoder only")
    if wish.num_classes is not None:
        weights = weights.with_classes(wish.num_classes)
    if wish.image_size is not None:
        weights = weights.with_image_size(wish.image_size)
        config = None if config is None else replace(config, img_size=wish.image_size)
    if wish.dtype is not None:
        weights = weights.with_dtype(wish.dtype)
    return Prepared(checkpoint, resolved.name, config or weights.config, original, weights, wish.model is not None)


def _selected(checkpoint: Checkpoint, config: Config, encoder_only: bool) -> WeightSet:
    """The weights of a model in a checkpoint, with the settings that they were trained with. Raises as `select`."""
    dialect, evidence = checkpoint.identified.dialect, checkpoint.evidence
    computed = {n: v for n, v in dialect.function(checkpoint.contents).items() if n in UNCONFIGURED}
    function = {**({} if checkpoint.provenance else computed), **evidence.function}
    contents: Contents = "encoder" if encoder_only else checkpoint.contents
    chosen = checkpoint.select(config, encoder_only)
    return WeightSet(config, contents, chosen, function=function, config_text=evidence.config_text)


def convert(prepared: Prepared, dialect: str, form: str, output: Path, progress: Progress | None = None) -> str:
    """Write prepared weights in a dialect and a format, with their provenance, and return their content hash.

    Raises CheckpointProblem if the weights are not finite, or the provenance beside the source is of other weights.
    """
    checkpoint, weights, target = prepared.checkpoint, prepared.weights, DIALECTS[dialect]
    refuse_inexpressible(target, weights)
    whole = prepared.original.tensors.keys() >= checkpoint.identified.readings.keys()
    before = hash_tensors(prepared.original.tensors, progress) if prepared.changed else None
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
        problems = problem.problems if before is None else before.not_finite
        if not problems:  # they were finite before they were rounded
            dtype = next(iter(weights.tensors.values())).dtype
            read = {n: t for n, t in prepared.original.tensors.items() if n in weights.tensors}
            raise overflow_problem(checkpoint.path, dtype, read) from None
        raise CheckpointProblem(
            report(checkpoint.path, problems, None, None, weights.config), problems, code="not-finite"
        ) from None


def require_apart(source: Path, output: Path, form: str, lost: Sequence[str]) -> None:
    """Raise CheckpointProblem if writing `output` would destroy a source that holds more than the output will.

    lost: that which the output will not hold, in words.
    """
    one, other = source.resolve(), output.resolve()
    if one == other and lost:
        raise CheckpointProblem(
            f"{output} is the file that is read, and would lose something ({', '.join(lost)}); write to another file with -o.",
            code="bad-argument",
        )
    around, within = FORMATS[form].FOLDER and other in one.parents, one.is_dir() and one in other.parents
    if around or within:
        raise CheckpointProblem(
            f"{output} is in the same place as the checkpoint {source}; write to another place with -o.",
            code="bad-argument",
        )


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(Path(folder, name).stat().st_size for folder, _, names in os.walk(path) for name in names)
