"""Opening a checkpoint of any format and dialect, and checking its weights against the spec. No framework needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from einops import EinopsError
from numpy.typing import NDArray

from ..backends.config import Config, MAEConfig
from ..files.errors import option
from . import layouts
from .dialects import KINDS, OF_CLASSIFIERS, Contents
from .dialects.contents import expected_params, fitting_models
from .formats import find_format
from .hashing import content_hash, hash_tensors
from .huggingface import FILE as HF_CONFIG
from .huggingface import read_config, without_qkv_bias
from .identify import Identified, Reading, identify
from .problems import layout_problems, needs_decoder, report
from .provenance import Provenance, beside, read_beside
from .said import config_beside, name_of, require_plausible, require_same, settings_of
from .tensors import Array, CheckpointProblem, Tensor, cast, of_array
from .timm_config import read_timm_config

__all__ = ["Checkpoint", "content_hash", "open_checkpoint"]

Weights = dict[str, NDArray[np.float32]]
_FLOATS = ("float32", "float16", "bfloat16", "float64")
_OPTIONS = ("norm_pix_loss",)  # what the official script saves as args, and decides about the model
# What is no encoder's, of any family: decoders, heads, necks, by the spec's names and others.
_OF_NO_ENCODER = re.compile(
    r"(patch_norm|unconv)\..*|(.*\.)?(mask_token|(decoder|decode_head|head|neck|classifier|predictor|projector)\w*)(\..*)?"
)


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; the values stay in the file until they are asked for.

    format: a key of formats.FORMATS. stored: the tensors as they lie in the file. identified: what each is in the spec.
    extras: what else the file holds, ignored. provenance: what an earlier conversion wrote of it, or None. model and
    config: what the file says it is (a config.json, a provenance), or the one preset that has exactly these shapes; else
    None. told: whether the file says it; where only the shapes do, head counts are the preset's. function: what else the
    file says of the program that it is for (WeightSet has it). config_text: its config.json. options: of a configuration's
    settings, what the options that training saved in the file say. no_qkv_bias: whether its program adds no bias to q, k
    and v, which one of 0 computes. unknown: names of classes in it, beside the weights, that are not known here.
    """

    path: Path
    format: str
    identified: Identified
    stored: Mapping[str, Tensor]
    extras: tuple[str, ...] = ()
    provenance: Provenance | None = None
    model: str | None = None
    config: Config | None = None
    told: bool = False
    function: Mapping[str, str] = field(default_factory=dict)
    config_text: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    no_qkv_bias: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def dialect(self) -> str:
        """The name of a row of dialects.DIALECTS."""
        return self.identified.dialect.name

    @property
    def contents(self) -> Contents:
        """Which kind of file it is."""
        return self.identified.contents

    @property
    def placed(self) -> bool:
        """Whether the place of every value is known: where the model's sizes say some of it, the file has to tell them."""
        found = self.identified
        by_model = found.dialect.derive is not None or any("(" in (r.layout or "") for r in found.readings.values())
        return self.config is not None or not by_model

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by spec name, in the spec's order and layout; those that the spec does not know come last."""
        return self.tensors_of(self.config)

    @cached_property
    def hash(self) -> str:
        """The content hash of all tensors, as content_hash gives for the same weights in any file."""
        return hash_tensors(self.tensors).content

    def tensors_of(self, config: Config | None) -> dict[str, Tensor]:
        """As `tensors`, for a model that the file itself does not tell: its head counts say where some values lie."""
        found = {spec: self._tensor(spec, reading, config) for spec, reading in self.identified.readings.items()}
        derive = self.identified.dialect.derive
        if self.no_qkv_bias:
            found |= _zero_biases(found)
        if (derive is None and not self.no_qkv_bias) or config is None:
            return found
        expected = expected_params(config, self.contents)
        stored = {name: self.stored[there] for name, there in self.identified.own.items()}
        made = derive(stored, {p.name: p.shape for p in expected if p.name not in found}) if derive else {}
        order = [p.name for p in expected]
        return {name: (found | made)[name] for name in [*order, *found] if name in found or name in made}

    def select(self, config: Config, encoder_only: bool = False) -> dict[str, Tensor]:
        """The tensors of a model, by spec name, nothing loaded yet.

        encoder_only: only what the published encoder files hold, from a file with or without a decoder.
        Raises CheckpointProblem with every problem at once: missing, unexpected, mis-shaped, not floating point.
        """
        if encoder_only and self.contents in OF_CLASSIFIERS:
            raise CheckpointProblem(
                f"{self.path} is a classifier; --encoder-only is for autoencoders. --num-classes K drops a head that has "
                "not K classes."
            )
        if isinstance(config, MAEConfig) and self.contents == "encoder" and not encoder_only:
            raise CheckpointProblem(needs_decoder(self.path, self.model, len(self.tensors)))
        contents: Contents = "encoder" if encoder_only else self.contents
        if isinstance(config, MAEConfig) != (contents in ("mae", "encoder")):
            raise CheckpointProblem(_of_another_kind(self, config))
        actual = self.tensors_of(config)
        expected = expected_params(config, contents)
        if encoder_only:
            decoder = {p.name for p in expected_params(config)} - {p.name for p in expected}
            actual = {n: t for n, t in actual.items() if n not in decoder and not _of_no_encoder(n)}
        mixed = self._mixed(actual)
        found = [*layout_problems(expected, actual, self.identified, _FLOATS), *mixed.values()]
        if found:  # then all of them, values included, at once
            here = [p for p in expected if p.name in actual and p.name not in mixed]
            sound = {p.name: actual[p.name] for p in here if actual[p.name].shape == p.shape}
            found += hash_tensors(sound).not_finite
            raise CheckpointProblem(report(self.path, found, self.model, self.config, config), tuple(found))
        return {param.name: actual[param.name] for param in expected}

    def weights(self, config: Config, encoder_only: bool = False) -> Weights:
        """The weights by spec name: read-only float32 arrays, over the mapped file where it holds them so, all checked.

        Half precision becomes float32 exactly. Raises CheckpointProblem with every problem at once, as `select`; also
        for float64, and for values that are not finite.
        """
        return self.loaded(config, self.select(config, encoder_only))

    def loaded(self, config: Config, chosen: Mapping[str, Tensor], changed: bool = False) -> Weights:
        """Selected tensors, or what was made of them (changed), as `weights` gives them."""
        wide = [name for name, tensor in chosen.items() if tensor.dtype == "float64"]
        if wide:
            raise CheckpointProblem(
                f"{self.path} holds float64 ({len(wide)} tensors, the first {wide[0]}), of which float32 would lose digits; "
                "convert it first: convert_weights ... --dtype float32.",
                tuple(wide),
            )
        chosen = {name: cast(tensor, "float32") for name, tensor in chosen.items()}
        untouched = all(tensor.dtype == "float32" for tensor in self.stored.values())
        hashed = hash_tensors(chosen)
        if hashed.not_finite:
            raise CheckpointProblem(report(self.path, list(hashed.not_finite), None, None, config), hashed.not_finite)
        if changed or (untouched and chosen.keys() == self.tensors.keys()):
            self.require_own_provenance(self.hash if changed else hashed.content)
        return {name: tensor.load() for name, tensor in chosen.items()}

    def _mixed(self, names: Iterable[str]) -> dict[str, str]:
        """For each tensor, by spec name, whose parts have more than one dtype: a sentence."""
        readings = {name: self.identified.readings[name].names for name in names if name in self.identified.readings}
        return {
            name: f"dtype: {', '.join(f'{part} {self.stored[part].dtype}' for part in parts)} are parts of one tensor, "
            "of one dtype"
            for name, parts in readings.items()
            if len({self.stored[part].dtype for part in parts}) > 1
        }

    def require_own_provenance(self, content: str) -> None:
        """Raise CheckpointProblem where what an earlier conversion wrote of the file is of other weights.

        content: the hash of all that the file holds.
        """
        known = self.provenance
        if known is not None and known.hash != content:
            raise CheckpointProblem(
                f"The provenance of {self.path} is of other weights (hash {known.hash[:16]}..., the file has "
                f"{content[:16]}...): one of the two was replaced. Remove {beside(self.path).name}, or restore the file."
            )

    def _tensor(self, spec: str, reading: Reading, config: Config | None) -> Tensor:
        parts = [self.stored[name] for name in reading.names]
        if reading.layout is None and len(parts) == 1:
            return parts[0]

        def load() -> Array:
            for problem in self._mixed([spec]).values():
                raise CheckpointProblem(f"{self.path} does not fit: {problem}.")
            loaded = [part.load() for part in parts]
            array = loaded[0] if len(loaded) == 1 else np.concatenate(loaded)
            if reading.layout is None:
                return array
            if "(" in reading.layout and config is None:
                raise CheckpointProblem(
                    f"{self.path} is of no named model, and in the {self.dialect} dialect the place of a value depends on "
                    f"the model; say with {option('-m')} what it is."
                )
            sizes = layouts.sizes_of(config, spec) if config is not None else {}
            try:
                return layouts.to_spec(array, reading.layout, sizes)
            except EinopsError:
                raise CheckpointProblem(f"{spec} {array.shape} does not fit the layout {reading.layout}.") from None

        joined = len({part.dtype for part in parts}) == 1 and reading.layout is None
        return Tensor(reading.shape, parts[0].dtype, load, tuple(parts) if joined else ())


def _of_these_shapes(config: Config | None, found: Identified) -> Config | None:
    """The configuration, where the tensors are of it: a config.json beside a file need not be the file's."""
    if config is None:
        return None
    expected = [param for param in expected_params(config, found.contents) if param.name in found.readings]
    return config if all(found.readings[param.name].shape == param.shape for param in expected) else None


def _of_no_encoder(name: str) -> bool:
    return _OF_NO_ENCODER.fullmatch(name) is not None


def _zero_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Biases of 0 for q, k and v, where a file has none."""
    weights = {
        name.removesuffix("weight") + "bias": t for name, t in tensors.items() if name.endswith("attn.qkv.weight")
    }
    return {name: of_array(np.zeros(t.shape[0], np.float32)) for name, t in weights.items() if name not in tensors}


def _of_another_kind(checkpoint: Checkpoint, config: Config) -> str:
    found = f"{checkpoint.path} is of another kind: {KINDS[checkpoint.contents]}"
    found += f" ({checkpoint.model})" if checkpoint.model else ""
    if isinstance(config, MAEConfig):
        return f"{found}, and an autoencoder is asked for. Name the classifier, or give an autoencoder's file."
    return (
        f"{found}, and a classifier is asked for. Name the autoencoder, or leave the name out; polymae.hub.load makes a "
        "classifier of its encoder, to be fine-tuned."
    )


def open_checkpoint(path: str | Path, dialect: str | None = None, prefix: str | None = None) -> Checkpoint:
    """Open a checkpoint of any known format. Nothing in it is run and no framework is needed.

    dialect: what to take it for, where its spelling alone does not tell. prefix: what the names of the model begin with,
    where the file holds several. Raises CheckpointProblem.
    """
    path = Path(path)
    kind, form = find_format(path)
    state = form.read(path)
    provenance = read_beside(path, state)
    told = provenance.dialect if provenance else None
    found = identify({n: t.shape for n, t in state.tensors.items()}, str(path), dialect, told, prefix)
    options = {name: state.settings[name] for name in _OPTIONS if isinstance(state.settings.get(name), bool)}
    extras = (*state.extras, *found.unused, *found.outside)
    checkpoint = Checkpoint(
        path, kind, found, state.tensors, extras, provenance, options=options, unknown=state.unknown
    )
    said: Config | None = None
    function: dict[str, Any] = {}
    text = None
    of_timm = found.dialect.name in ("official", "timm") and found.contents != "mae"
    if found.dialect.config_file or of_timm:
        text = state.metadata.get(HF_CONFIG) or config_beside(path)
    if text and of_timm:
        said, text = _of_these_shapes(read_timm_config(text, found.contents), found), None
    elif text:
        said, function = read_config(text, found.contents, f"{path}: {HF_CONFIG}")
        checkpoint = replace(checkpoint, no_qkv_bias=without_qkv_bias(text))
    config = provenance.config if provenance else None
    if provenance and config is not None:
        function = dict(provenance.function)
    if said is not None and config is not None:
        require_same(said, config, found, str(path))
    config = config or said
    if config is None:
        known = settings_of(found.dialect, found.contents)
        shapes = {spec: reading.shape for spec, reading in found.readings.items()}
        models = fitting_models(shapes, found.contents, known, found.dialect.derived)
        if len(models) != 1:
            return checkpoint
        ((name, config),) = models.items()
        if isinstance(config, MAEConfig) and found.contents == "mae":
            config = replace(config, **options)
        return replace(checkpoint, model=name_of(config, found.contents) or name, config=config)
    require_plausible(config, found, str(path), HF_CONFIG if provenance is None else "provenance")
    model = name_of(config, found.contents)
    return replace(checkpoint, model=model, config=config, told=True, function=function, config_text=text)
