"""Opening a checkpoint of any format and dialect, and checking its weights against a model. No framework needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from einops import EinopsError
from numpy.typing import NDArray

from ..backends.config import Config, MAEConfig
from ..files.errors import option
from .dialects import KINDS, OF_CLASSIFIERS, Contents, expected_params
from .formats import find_format
from .hashing import content_hash, hash_tensors
from .identify import Identified, Reading, identify
from .layouts import sizes_of, to_spec
from .problems import layout_problems, needs_decoder, report
from .provenance import Provenance, beside, read_beside
from .resolve import Evidence, Resolved, Wish, read_evidence, resolve
from .tensors import Array, CheckpointProblem, Tensor, cast, of_array

__all__ = ["Checkpoint", "Loaded", "content_hash", "open_checkpoint"]

Weights = dict[str, NDArray[np.float32]]
_FLOATS = ("float32", "float16", "bfloat16", "float64")
# Names of tensors that are not an encoder's, in any family: decoders, heads, necks, by the spec's names and others.
_OF_NO_ENCODER = re.compile(
    r"(patch_norm|unconv)\..*|(.*\.)?(mask_token|(decoder|decode_head|head|neck|classifier|predictor|projector)\w*)(\..*)?"
)


class Loaded(NamedTuple):
    """Weights in memory."""

    weights: Weights  # by spec name: read-only arrays, over the mapped file if it holds them as float32
    hash: str  # their content hash, as content_hash gives; loading computes it anyway


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; the values stay in the file until somebody loads them."""

    path: Path
    format: str  # a key of formats.FORMATS
    evidence: Evidence  # the file's tensors by spec name, and its declarations of its model
    stored: Mapping[str, Tensor]  # the tensors by the file's names, as they lie in it
    extras: tuple[str, ...] = ()  # names of everything else in the file, which is ignored
    provenance: Provenance | None = None  # the note of the conversion that wrote the file
    unknown: tuple[str, ...] = ()  # names of classes in the file, beside the weights, that PolyMAE does not know
    taken_for: tuple[str, Config] | None = None  # the model that a user names; None: the one that the file shows
    settings: Mapping[str, Any] = field(default_factory=dict)  # the options that a training saved in the file

    @property
    def identified(self) -> Identified:
        """The file's tensors by spec name."""
        return self.evidence.identified

    @property
    def dialect(self) -> str:
        """The name of a row of dialects.DIALECTS."""
        return self.identified.dialect.name

    @property
    def contents(self) -> Contents:
        """The kind of file."""
        return self.identified.contents

    @property
    def model(self) -> str | None:
        """The named model that the file shows by itself; None if it shows none. Head counts are the named model's."""
        return (self.taken_for or self.evidence.shown)[0]

    @property
    def config(self) -> Config | None:
        """The configuration that the file declares, or that of the only named model with its shapes; None without one."""
        return (self.taken_for or self.evidence.shown)[1]

    @property
    def placed(self) -> bool:
        """Whether the place of every value is known: some dialects need the model's sizes, which the file has to show then."""
        identified = self.identified
        by_model = identified.dialect.derive is not None or any(
            "(" in (reading.layout or "") for reading in identified.readings.values()
        )
        return not by_model or self.config is not None

    def resolve(self, model: str | None = None) -> Resolved:
        """The model of this checkpoint; model: the requested one, as --model takes it. Raises as resolve.resolve."""
        return resolve(self.evidence, Wish(model))

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by spec name, in the spec's order and layout; those that the spec does not know come last."""
        return self.tensors_of(self.config)

    @cached_property
    def hash(self) -> str:
        """The content hash of all tensors, as content_hash gives for the same weights in any file. Reads the whole file."""
        return hash_tensors(self.tensors).content

    def tensors_of(self, config: Config | None) -> dict[str, Tensor]:
        """The same tensors for a given model: in some dialects its head counts decide where a value lies."""
        tensors = {spec: self._tensor(spec, reading, config) for spec, reading in self.identified.readings.items()}
        derive, no_bias = self.identified.dialect.derive, self.evidence.no_qkv_bias
        if no_bias:
            tensors |= _zero_biases(tensors)
        if (derive is None and not no_bias) or config is None:
            return tensors
        expected = expected_params(config, self.contents)
        stored = {name: self.stored[name_in_file] for name, name_in_file in self.identified.file_names.items()}
        made = derive(stored, {p.name: p.shape for p in expected if p.name not in tensors}) if derive else {}
        order = [p.name for p in expected]
        return {name: (tensors | made)[name] for name in [*order, *tensors] if name in tensors or name in made}

    def select(self, config: Config, encoder_only: bool = False) -> dict[str, Tensor]:
        """The tensors of a model, by spec name, not loaded.

        encoder_only: only the tensors of the published encoder files, from a file with or without a decoder.
        Raises CheckpointProblem with every problem at once: missing, unexpected, mis-shaped, not floating point.
        """
        if encoder_only and self.contents in OF_CLASSIFIERS:
            raise CheckpointProblem(
                f"{self.path} is a classifier; --encoder-only is for autoencoders. --num-classes K drops a head that has "
                "not K classes.",
                code="does-not-fit",
            )
        if isinstance(config, MAEConfig) and self.contents == "encoder" and not encoder_only:
            raise CheckpointProblem(needs_decoder(self.path, self.model, len(self.tensors)), code="does-not-fit")
        contents: Contents = "encoder" if encoder_only else self.contents
        if isinstance(config, MAEConfig) != (contents in ("mae", "encoder")):
            raise CheckpointProblem(_of_another_kind(self, config), code="does-not-fit")
        actual = self.tensors_of(config)
        expected = expected_params(config, contents)
        if encoder_only:
            decoder = {p.name for p in expected_params(config)} - {p.name for p in expected}
            actual = {n: t for n, t in actual.items() if n not in decoder and not _of_no_encoder(n)}
        mixed = self._mixed(actual)
        problems = [*layout_problems(expected, actual, self.identified, _FLOATS), *mixed.values()]
        if problems:  # then all of them, values included, at once
            here = [p for p in expected if p.name in actual and p.name not in mixed]
            sound = {p.name: actual[p.name] for p in here if actual[p.name].shape == p.shape}
            problems += hash_tensors(sound).not_finite
            raise CheckpointProblem(
                report(self.path, problems, self.model, self.config, config), tuple(problems), code="does-not-fit"
            )
        return {param.name: actual[param.name] for param in expected}

    def weights(self, config: Config, encoder_only: bool = False) -> Weights:
        """The weights of a model by spec name: read-only float32 arrays, all checked. Raises as `load`."""
        return self.load(config, encoder_only).weights

    def load(self, config: Config, encoder_only: bool = False) -> Loaded:
        """The weights of a model as float32 arrays, and their content hash, in one pass over the file.

        Half precision becomes float32 exactly. Raises CheckpointProblem with every problem at once, as `select`; also for
        float64, for values that are not finite, and for a provenance of other weights.
        """
        return self.load_tensors(config, self.select(config, encoder_only))

    def load_tensors(self, config: Config, chosen: Mapping[str, Tensor], changed: bool = False) -> Loaded:
        """As `load`, of tensors that `select` gave, or of others that were made of them (changed)."""
        wide = [name for name, tensor in chosen.items() if tensor.dtype == "float64"]
        if wide:
            raise CheckpointProblem(
                f"{self.path} holds float64 ({len(wide)} tensors, the first {wide[0]}), of which float32 would lose digits; "
                "convert it first: convert_weights ... --dtype float32.",
                tuple(wide),
                code="not-expressible",
            )
        chosen = {name: cast(tensor, "float32") for name, tensor in chosen.items()}
        hashed = hash_tensors(chosen)
        if hashed.not_finite:
            raise CheckpointProblem(
                report(self.path, hashed.not_finite, None, None, config), hashed.not_finite, code="not-finite"
            )
        if self.provenance is not None:
            untouched = all(tensor.dtype == "float32" for tensor in self.stored.values())
            if changed or (untouched and chosen.keys() == self.tensors.keys()):
                self.require_own_provenance(self.hash if changed else hashed.content)
        return Loaded({name: tensor.load() for name, tensor in chosen.items()}, hashed.content)

    def _mixed(self, names: Iterable[str]) -> dict[str, str]:
        """A sentence for each tensor, by spec name, whose parts have more than one dtype."""
        readings = {name: self.identified.readings[name].names for name in names if name in self.identified.readings}
        return {
            name: f"dtype: {', '.join(f'{part} {self.stored[part].dtype}' for part in parts)} are parts of one tensor, "
            "of one dtype"
            for name, parts in readings.items()
            if len({self.stored[part].dtype for part in parts}) > 1
        }

    def require_own_provenance(self, content: str) -> None:
        """Raise CheckpointProblem if the provenance is of other weights. content: the hash of all the file's tensors."""
        known = self.provenance
        if known is not None and known.hash != content:
            raise CheckpointProblem(
                f"The provenance of {self.path} is of other weights (hash {known.hash[:16]}..., the file has "
                f"{content[:16]}...): one of the two was replaced. Remove {beside(self.path).name}, or restore the file.",
                code="bad-note",
            )

    def _tensor(self, spec: str, reading: Reading, config: Config | None) -> Tensor:
        parts = [self.stored[name] for name in reading.names]
        if reading.layout is None and len(parts) == 1:
            return parts[0]

        def load() -> Array:
            for problem in self._mixed([spec]).values():
                raise CheckpointProblem(f"{self.path} does not fit: {problem}.", code="does-not-fit")
            loaded = [part.load() for part in parts]
            array = loaded[0] if len(loaded) == 1 else np.concatenate(loaded)
            if reading.layout is None:
                return array
            if "(" in reading.layout and config is None:
                raise CheckpointProblem(
                    f"{self.path} is of no named model, and in the {self.dialect} dialect the place of a value depends on "
                    f"the model; say with {option('-m')} what it is.",
                    code="unknown-model",
                )
            sizes = sizes_of(config, spec) if config is not None else {}
            try:
                return to_spec(array, reading.layout, sizes)
            except EinopsError:
                raise CheckpointProblem(
                    f"{spec} {array.shape} does not fit the layout {reading.layout}.", code="damaged"
                ) from None

        joined = len({part.dtype for part in parts}) == 1 and reading.layout is None
        return Tensor(reading.shape, parts[0].dtype, load, tuple(parts) if joined else ())


def _of_no_encoder(name: str) -> bool:
    return _OF_NO_ENCODER.fullmatch(name) is not None


def _zero_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Biases of 0 for q, k and v, if a file has none."""
    weights = {
        name.removesuffix("weight") + "bias": t for name, t in tensors.items() if name.endswith("attn.qkv.weight")
    }
    return {name: of_array(np.zeros(t.shape[0], np.float32)) for name, t in weights.items() if name not in tensors}


def _of_another_kind(checkpoint: Checkpoint, config: Config) -> str:
    problem = f"{checkpoint.path} is of another kind: {KINDS[checkpoint.contents]}"
    problem += f" ({checkpoint.model})" if checkpoint.model else ""
    if isinstance(config, MAEConfig):
        return f"{problem}, and an autoencoder is asked for. Name the classifier, or give an autoencoder's file."
    return (
        f"{problem}, and a classifier is asked for. Name the autoencoder, or leave the name out; polymae.hub.load makes a "
        "classifier of its encoder, to be fine-tuned."
    )


def open_checkpoint(path: str | Path, dialect: str | None = None, prefix: str | None = None) -> Checkpoint:
    """Open a checkpoint of any known format. Nothing in it is run and no framework is needed.

    dialect: the one to read it in, if its spelling alone does not tell. prefix: what the names of the model begin with, if
    the file holds several. Raises CheckpointProblem.
    """
    path = Path(path)
    kind, form = find_format(path)
    state = form.read(path)
    provenance = read_beside(path, state)
    shapes = {name: tensor.shape for name, tensor in state.tensors.items()}
    identified = identify(shapes, str(path), dialect, provenance.dialect if provenance else None, prefix)
    evidence = read_evidence(path, state, identified, provenance)
    extras = (*state.extras, *identified.unused, *identified.outside)
    return Checkpoint(path, kind, evidence, state.tensors, extras, provenance, state.unknown, settings=state.settings)
