"""Opening a checkpoint of any format and dialect, and checking its weights against the spec. No framework needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config, MAEConfig
from ..backends.spec import differences
from .dialects import identify, known_params
from .formats import find_format
from .shapes import Contents, contents_of, expected_params, fitting_models
from .tensors import Array, CheckpointProblem, Tensor, forget_pages, to_bytes

Weights = dict[str, NDArray[np.float32]]
_PUBLISHED = "https://dl.fbaipublicfiles.com/mae/"


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; the values stay in the file until they are asked for.

    format: a key of formats.FORMATS. dialect: the name of a row of dialects.DIALECTS. tensors: by spec name, in the
    spec's order and layout. extras: what else the file holds, ignored. model and config: the one preset that has
    exactly these shapes, or None. Head counts leave no trace in a checkpoint: they are the preset's.
    """

    path: Path
    format: str
    dialect: str
    contents: Contents
    tensors: Mapping[str, Tensor]
    extras: tuple[str, ...]
    model: str | None
    config: Config | None

    @cached_property
    def hash(self) -> str:
        """The content hash of everything stored, as content_hash gives for the same weights in any file."""
        return _hash((name, tensor.dtype, tensor.load()) for name, tensor in self.tensors.items())

    def weights(self, config: Config, encoder_only: bool = False) -> Weights:
        """The weights by spec name: read-only float32 arrays over the mapped file, all of them checked.

        encoder_only: only what the published encoder files hold, from a file with or without a decoder.
        Raises CheckpointProblem with every problem at once: missing, unexpected, mis-shaped, not float32, not finite.
        """
        if encoder_only and not isinstance(config, MAEConfig):
            raise CheckpointProblem(
                f"{self.path} is a classifier, which has no encoder file; leave out --encoder-only."
            )
        if self.contents == "encoder" and isinstance(config, MAEConfig) and not encoder_only:
            raise CheckpointProblem(self._needs_decoder())
        actual = dict(self.tensors)
        if encoder_only and self.contents == "mae":
            kept = {param.name for param in expected_params(config, encoder_only=True)}
            actual = {name: t for name, t in actual.items() if name in kept or not _of_decoder(name)}
        expected = {param.name: param.shape for param in expected_params(config, encoder_only)}
        found = _layout_problems(expected, actual)
        loaded: Weights = {}
        for name, shape in expected.items():
            if name in actual and actual[name].shape == shape and actual[name].dtype == "float32":
                loaded[name] = actual[name].load()
                found += not_finite(name, loaded[name])
        if found:
            raise CheckpointProblem(self._report(found, config), tuple(found))
        return loaded

    def _report(self, found: list[str], config: Config) -> str:
        shown = found
        hint = ""
        if self.config is not None and _shapes(self.config) != _shapes(config):
            hint = f" Its shapes are those of {self.model}: is that the model you mean (-m {self.model})?"
            shown = [*found[:6], f"... and {len(found) - 6} more"] if len(found) > 7 else found
        return f"{self.path} does not fit ({len(found)} problems).{hint}\n  " + "\n  ".join(shown)

    def _needs_decoder(self) -> str:
        size = next((s for s in ("base", "large", "huge") if self.model and s in self.model), "<size>")
        return (
            f"{self.path} holds an encoder without a decoder ({len(self.tensors)} tensors), as the published "
            f"mae_pretrain_vit_{size}.pth does; a masked autoencoder needs both. Use "
            f"{_PUBLISHED}pretrain/mae_pretrain_vit_{size}_full.pth (normalised pixels) or "
            f"{_PUBLISHED}visualize/mae_visualize_vit_{size}.pth (raw pixels), "
            "or convert the encoder alone (convert_weights --encoder-only)."
        )


def open_checkpoint(path: str | Path, dialect: str | None = None) -> Checkpoint:
    """Open a checkpoint of any known format. Nothing in it is run and no framework is needed.

    dialect: what to take it for, where its spelling alone does not tell. Raises CheckpointProblem.
    """
    path = Path(path)
    name, form = find_format(path)
    state = form.read(path)
    found, spelled = identify({n: t.shape for n, t in state.tensors.items()}, str(path), dialect)
    tensors = {spec: _reshaped(state.tensors[native], shape) for spec, (native, shape) in spelled.items()}
    shapes = {spec: tensor.shape for spec, tensor in tensors.items()}
    contents = contents_of(shapes, str(path))
    models = fitting_models(shapes, contents)
    model, config = next(iter(models.items())) if len(models) == 1 else (None, None)
    return Checkpoint(path, name, found.name, contents, tensors, state.extras, model, config)


def content_hash(weights: Mapping[str, Array]) -> str:
    """One hash for the same weights in every format, dialect and order of the dict: 64 hexadecimal digits.

    sha256 over, for each tensor in the spec's order, the JSON line [name, dtype, shape] and its little-endian bytes.
    """
    order = {param.name: i for i, param in enumerate(known_params(weights))}
    names = sorted(weights, key=lambda name: (order.get(name, len(order)), name))
    return _hash((name, weights[name].dtype.name, weights[name]) for name in names)


def _hash(tensors: Iterable[tuple[str, str, Array]]) -> str:
    digest = hashlib.sha256()
    for name, dtype, array in tensors:
        digest.update(json.dumps([name, dtype, array.shape]).encode() + b"\n")
        digest.update(to_bytes(array))
        forget_pages()
    return digest.hexdigest()


def not_finite(name: str, array: Array) -> list[str]:
    """A sentence with the counts where a tensor has NaN or infinite values; nothing where it has none."""
    # A sum is finite only where all terms are: one fast pass, and an exact count where it is not (or overflows).
    with np.errstate(all="ignore"):
        suspect = not np.isfinite(array.sum())
    nans, infinities = (int(np.isnan(array).sum()), int(np.isinf(array).sum())) if suspect else (0, 0)
    forget_pages()
    if not nans and not infinities:
        return []
    return [f"not finite: {name} has {nans} NaN and {infinities} Inf among {array.size:,} values"]


def _layout_problems(expected: Mapping[str, tuple[int, ...]], actual: Mapping[str, Tensor]) -> list[str]:
    """Every difference in names, shapes and dtypes, with what it probably means."""
    shapes = {name: tensor.shape for name, tensor in actual.items()}
    found = differences(expected, shapes)
    found += [
        f"transposed: {name} {shapes[name]} is the transpose of {shape}; the file stores it the other way round"
        for name, shape in expected.items()
        if shapes.get(name, shape) != shape and shapes[name] == shape[::-1]
    ]
    by_dtype: dict[str, list[str]] = {}
    for name, tensor in actual.items():
        if name in expected and tensor.dtype != "float32":
            by_dtype.setdefault(tensor.dtype, []).append(name)
    for dtype, names in by_dtype.items():
        listed = ", ".join(names) if len(names) <= 8 else f"{len(names)} tensors, the first being {names[0]},"
        found.append(f"dtype: {listed} {'is' if len(names) == 1 else 'are'} {dtype}, expected float32; save as float32")
    return found


def _of_decoder(name: str) -> bool:
    return name == "mask_token" or name.startswith("decoder_")


def _shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {param.name: param.shape for param in expected_params(config)}


def _reshaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if shape == tensor.shape:
        return tensor
    return replace(tensor, shape=shape, load=lambda: tensor.load().reshape(shape))
