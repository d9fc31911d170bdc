"""Which spelling of the spec a set of tensor names and shapes is, and what each tensor is called in the spec.

Dialects are rows of a table. The spellings themselves are those of backends/spelling.py; only that direction is
written, the inverse is derived here and checked for being one-to-one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..backends.config import Config, MAEConfig, ViTConfig
from ..backends.spec import Param, Shape, params
from ..backends.spelling import native
from .tensors import CheckpointProblem

Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Sign:
    """A tensor that tells dialects apart: a pattern for its whole name and, where it matters, its number of axes."""

    name: str
    axes: int | None = None

    def found(self, shapes: Shapes) -> str | None:
        """The first tensor that shows this sign."""
        for name, shape in shapes.items():
            if self.axes in (None, len(shape)) and re.fullmatch(self.name, name):
                return name
        return None


@dataclass(frozen=True)
class Dialect:
    """One spelling. A file is in it where one of `shows` is there and none of `never` is."""

    name: str
    framework: str  # whose spelling in backends/spelling.py
    shows: tuple[Sign, ...]
    never: tuple[Sign, ...]


_NORM = r"(.*\.)?(norm1|norm2|norm|fc_norm|decoder_norm)"
_WEIGHT, _GAMMA = Sign(_NORM + r"\.weight"), Sign(_NORM + r"\.(gamma|beta)")
_BLOCK = Sign(r"(blocks|decoder_blocks)\.\d+\.norm1\.weight")
_BROADCAST_BIAS = Sign(r"patch_embed\.proj\.bias", axes=4)
_FLAT_BIAS = Sign(r"patch_embed\.proj\.bias", axes=1)

DIALECTS = (
    Dialect("official", "torch", shows=(_BLOCK,), never=(_GAMMA, _BROADCAST_BIAS)),
    Dialect("megengine", "megengine", shows=(_BLOCK,), never=(_GAMMA, _FLAT_BIAS)),
    Dialect("mindspore", "mindspore", shows=(_GAMMA,), never=(_WEIGHT, _BROADCAST_BIAS)),
)


class Spelled(NamedTuple):
    """Where a spec tensor lies in a file, and its shape once brought into the spec's layout."""

    native: str
    shape: Shape


def identify(shapes: Shapes, where: str, dialect: str | None = None) -> tuple[Dialect, dict[str, Spelled]]:
    """The dialect of a file's tensors, and every tensor by its spec name (one that is not in the spec keeps its own).

    dialect: the name of the one to take; None finds out, and raises CheckpointProblem listing the candidates where
    none fits, or where several do and would read the file differently.
    """
    known = ", ".join(d.name for d in DIALECTS)
    if dialect is not None:
        chosen = next((d for d in DIALECTS if d.name == dialect), None)
        if chosen is None:
            raise CheckpointProblem(f"Unknown dialect {dialect!r}; there are {known}.")
        return chosen, translate(chosen, shapes, where)
    fitting = [
        d for d in DIALECTS if any(s.found(shapes) for s in d.shows) and not any(s.found(shapes) for s in d.never)
    ]
    if not fitting:
        raise CheckpointProblem(_none_fits(shapes, where))
    readings = [translate(d, shapes, where) for d in fitting]
    # Where what would tell them apart is missing, all of them read the file alike: then nothing is guessed.
    if any(reading != readings[0] for reading in readings[1:]):
        raise CheckpointProblem(
            f"{where} can be read in more than one dialect: {', '.join(d.name for d in fitting)}. Say which with --dialect."
        )
    return fitting[0], readings[0]


def _none_fits(shapes: Shapes, where: str) -> str:
    reasons = []
    for dialect in DIALECTS:
        against = [name for sign in dialect.never if (name := sign.found(shapes))]
        shown = any(sign.found(shapes) for sign in dialect.shows)
        if shown and against:
            reasons.append(f"{dialect.name}, if not for {against[0]} {tuple(shapes[against[0]])}")
    names = ", ".join(list(shapes)[:5])
    if reasons:
        return f"{where} mixes dialects. It could be {'; '.join(reasons)}. Was it put together from two files?"
    return (
        f"{where} is not a masked autoencoder or its classifier in a dialect known here "
        f"({', '.join(d.name for d in DIALECTS)}). Its {len(shapes)} tensors begin with {names}."
    )


def translate(dialect: Dialect, shapes: Shapes, where: str) -> dict[str, Spelled]:
    """Every tensor of a file by its spec name, in the spec's order; those the spec does not know come last."""
    spelled = {native(dialect.framework, param).name: param for param in known_params(shapes)}
    found: dict[str, Spelled] = {}
    for name, param in spelled.items():
        if name in shapes:
            found[param.name] = Spelled(name, _spec_shape(dialect.framework, param, tuple(shapes[name])))
    for name, shape in sorted(shapes.items()):
        if name in spelled:
            continue
        if name in found:
            raise CheckpointProblem(f"{where} holds both {name} and {found[name].native}, which are one tensor.")
        found[name] = Spelled(name, tuple(shape))
    return found


def known_params(names: Mapping[str, object]) -> tuple[Param, ...]:
    """Every parameter that any kind of model as deep as these names can have, in the spec's order.

    Names and roles count; the shapes are placeholders.
    """
    depth, decoder_depth = (_depth(names, stack) for stack in ("blocks", "decoder_blocks"))
    small = {"img_size": (4, 4), "patch_size": 4, "in_chans": 1, "embed_dim": 4, "num_heads": 1, "depth": depth}
    autoencoder = MAEConfig(**small, decoder_embed_dim=4, decoder_num_heads=1, decoder_depth=decoder_depth)  # type: ignore[arg-type]
    classifiers: list[Config] = [ViTConfig(**small, pooling=pooling) for pooling in ("gap", "cls")]  # type: ignore[arg-type]
    by_name = {param.name: param for config in (autoencoder, *classifiers) for param in params(config)}
    return tuple(by_name.values())


def _depth(names: Mapping[str, object], stack: str) -> int:
    """Blocks in a stack: one more than the highest number, but no more than there can be tensors for."""
    numbers = [int(match[1]) for name in names if (match := re.match(rf"{stack}\.(\d{{1,6}})\.", name))]
    return max(1, min(max(numbers, default=0) + 1, len(names)))


def _spec_shape(framework: str, param: Param, shape: Shape) -> Shape:
    """The spec shape that the framework spells as this one; the shape itself where there is none."""
    for candidate in (shape, (math.prod(shape),)):
        if native(framework, replace(param, shape=candidate)).shape == shape:
            return candidate
    return shape


def _check_one_to_one() -> None:
    names = [param.name for param in known_params({})]
    for dialect in DIALECTS:
        spelled = [native(dialect.framework, param).name for param in known_params({})]
        assert len(set(spelled)) == len(names), f"dialect {dialect.name} gives two tensors one name"


_check_one_to_one()
