"""The dialect of a set of tensor names and shapes, and the place of each of the spec's tensors in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..backends.naming import Spelling
from ..backends.spec import Shape
from ..files.errors import option
from .dialects import DIALECTS, Contents, Dialect, contents_of, holds, known_params
from .dialects.dialect import MINDSPORE_TRAINING
from .layouts import inverse, shape_after
from .parts import FileNames, find_part, prefix_of, under, unwrapped
from .tensors import CheckpointProblem

Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Reading:
    """The place of one of the spec's tensors in a file."""

    names: tuple[str, ...]  # of its parts, which are joined along the first axis
    layout: str | None  # None: the spec's
    shape: Shape  # in the spec


@dataclass(frozen=True)
class Identified:
    """A file's tensors by spec name, and the dialect that spells them."""

    dialect: Dialect
    contents: Contents
    # By spec name, in the spec's order. Tensors that the spec does not know come last, under their own names.
    readings: Mapping[str, Reading]
    # By spec name: a sentence for each tensor of which the file lacks a part.
    problems: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()  # tensors that the dialect is known to leave over
    outside: tuple[str, ...] = field(default=(), compare=False)  # tensors in other parts of a larger model
    strangers: tuple[str, ...] = ()  # of the readings, those that no model here has
    # The file's names, by those without prefix and wrappers.
    file_names: FileNames = field(default_factory=dict, compare=False)
    prefix: str = field(default="", compare=False)  # the beginning of every name in the file
    where: str = field(default="", compare=False)  # the file, for messages
    shapes: Shapes = field(default_factory=dict, compare=False)  # of all its tensors, by the file's names

    @property
    def spec_shapes(self) -> dict[str, Shape]:
        """The shapes of the model's tensors by spec name."""
        return {spec: reading.shape for spec, reading in self.readings.items()}

    @property
    def dropped(self) -> tuple[str, ...]:
        """Of `unused`, the model's own tensors, without those of the optimizer."""
        return tuple(name for name in self.unused if not re.fullmatch(MINDSPORE_TRAINING, name))


def identify(
    shapes: Shapes, where: str, dialect: str | None = None, declared: str | None = None, prefix: str | None = None
) -> Identified:
    """The dialect of a file's tensors, and every tensor by its spec name.

    where: the file, for messages. dialect: the one to take; None finds it. declared: the one that a provenance names, a
    candidate even if no name shows it. prefix: the beginning of the model's names, in a file that holds more; None
    finds it. Raises CheckpointProblem, listing the candidates, if none fits, or if several do and would read the file
    differently.
    """
    file_names = unwrapped(shapes)
    if prefix is not None:
        file_names = under(file_names, prefix, where)
    offered = [one for one in DIALECTS.values() if not one.explicit or one.name == declared]
    if dialect is not None:
        offered = [dialect_named(dialect)]

    def shapes_of(names: FileNames) -> Shapes:
        return {name: tuple(shapes[name_in_file]) for name, name_in_file in names.items()}

    part, fitting = find_part(file_names, lambda names: _shown_by(shapes_of(names), offered)[1], where)
    inside = {*part.values()}
    rest = {name: name_in_file for name, name_in_file in file_names.items() if name_in_file not in inside}
    mixed = _shown_by(shapes_of(rest if fitting else file_names), offered)[0]
    if mixed or not fitting:
        raise CheckpointProblem(
            _none_fits(mixed, shapes_of(file_names), where, dialect),
            code="unknown-model" if dialect is None else "bad-argument",
        )
    readable = [_translate(candidate, part, shapes_of(part), where) for candidate in fitting]
    # A file may lack the tensors that tell dialects apart. If all candidates read it alike, the first one is no guess.
    if any((other.contents, other.readings) != (readable[0].contents, readable[0].readings) for other in readable[1:]):
        raise CheckpointProblem(
            f"{where} can be read in more than one dialect: {', '.join(d.name for d in fitting)}. Say which with "
            f"{option('--from')}.",
            code="ambiguous",
        )
    training = {name: None for name in rest if re.fullmatch(MINDSPORE_TRAINING, name)}
    outside = tuple(name for name in shapes if name not in inside and name not in training)
    return replace(
        readable[0],
        unused=(*readable[0].unused, *training),
        outside=outside,
        file_names=part,
        prefix=prefix_of(part),
        where=where,
        shapes=shapes,
    )


def dialect_named(name: str) -> Dialect:
    """The row of this name. Raises CheckpointProblem for an unknown name."""
    if name not in DIALECTS:
        raise CheckpointProblem(f"Unknown dialect {name!r}; there are {', '.join(DIALECTS)}.", code="bad-argument")
    return DIALECTS[name]


def _shown_by(shapes: Shapes, offered: Iterable[Dialect]) -> tuple[list[Dialect], list[Dialect]]:
    """The dialects of which a file shows a sign, and those of them of which it shows no sign against."""
    shown = [dialect for dialect in offered if any(sign.match(shapes) for sign in dialect.shows)]
    fitting = [dialect for dialect in shown if not any(sign.match(shapes) for sign in dialect.never)]
    return shown, [dialect for dialect in fitting if dialect.explicit] or fitting


def _none_fits(shown: list[Dialect], shapes: Shapes, where: str, requested: str | None) -> str:
    against = [(one, [name for sign in one.never if (name := sign.match(shapes))]) for one in shown]
    begin = f"Its {len(shapes)} tensors begin with {', '.join(list(shapes)[:5])}"
    if requested is not None:
        names = [name for _, signs in against for name in signs]
        why = (
            f"it holds {names[0]} {tuple(shapes[names[0]])}" if names else "no tensor in it has a name of that dialect"
        )
        return (
            f"{where} is not in the {requested} dialect ({DIALECTS[requested].title}): {why}. {begin}; leave out "
            f"{option('--from')}, and the dialect is found."
        )
    if shown:
        reasons = (
            f"{one.name}, if not for {names[0]} {tuple(shapes[names[0]])}" if names else one.name
            for one, names in against
        )
        return f"{where} mixes dialects. It could be {'; '.join(reasons)}. Was it put together from two files?"
    known = ", ".join(name for name, one in DIALECTS.items() if not one.explicit)
    sentence = f"{where} is not a masked autoencoder or its classifier in a dialect known here ({known}). {begin}. "
    return (sentence + relative(shapes)).rstrip()


def _translate(dialect: Dialect, file_names: FileNames, shapes: Shapes, where: str) -> Identified:
    tables = [(kind, spelled_names(dialect, kind, shapes)) for kind in dialect.spellings]
    kind, spelled = max(
        tables, key=lambda table: sum(name in shapes for names, _ in table[1].values() for name in names)
    )
    readings: dict[str, Reading] = {}
    problems: dict[str, str] = {}
    taken: set[str] = set()
    strangers: list[str] = []
    for spec, (names, layout) in spelled.items():
        present = [name for name in names if name in shapes]
        taken.update(present)
        if not present:
            continue
        if len(present) < len(names):
            absent = ", ".join(prefix_of(file_names) + name for name in names if name not in shapes)
            problems[spec] = f"missing: {absent}, the rest of {spec}"
            continue
        shape_in_spec = _reading(names, layout, [shapes[name] for name in names])
        if isinstance(shape_in_spec, str):
            problems[spec] = shape_in_spec
        else:
            readings[spec] = Reading(tuple(file_names[name] for name in names), layout, shape_in_spec)
    unused = [name for name in shapes if name not in taken and re.fullmatch(dialect.unused, name)]
    for name, shape in sorted(shapes.items()):
        if name in taken or name in unused or re.fullmatch(dialect.sources, name):
            continue
        if name in spelled and name not in readings:  # the spec's own name, which means nothing here
            problems[name] = (
                f"unexpected: {name} {tuple(shape)}; the {dialect.name} dialect has {', '.join(spelled[name][0])}"
            )
            continue
        if name in readings:
            raise CheckpointProblem(
                f"{where} holds both {name} and {readings[name].names[0]}, which are one tensor.", code="ambiguous"
            )
        readings[name] = Reading((file_names[name],), None, tuple(shape))
        strangers.append(name)
    contents = contents_of(readings, where)
    return Identified(
        dialect, contents, readings, problems, tuple(file_names[name] for name in unused), (), tuple(strangers)
    )


def _reading(names: tuple[str, ...], layout: str | None, shapes: list[Shape]) -> Shape | str:
    """The spec shape of a tensor with these parts; a sentence if they do not fit together."""
    if len(set(shapes)) > 1 or not all(shapes):
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in zip(names, shapes))
        if len(names) > 1:
            return f"shape: {listed} must be equally large parts of one tensor"
    if len(names) > 1:
        return (shapes[0][0] * len(names), *shapes[0][1:])
    if layout is None:
        return tuple(shapes[0])
    shape = shape_after(inverse(layout), shapes[0])
    return shape or f"shape: {names[0]} {tuple(shapes[0])} has not the axes of '{layout.split(' -> ')[1]}'"


def spelled_names(
    dialect: Dialect, contents: Contents, names: Mapping[str, object]
) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """For each of the spec's tensors that such a file can hold: its names in the dialect, and its layout.

    names: the file's, which show how deep the stacks are.
    """
    spelling = dialect.spellings[contents]
    leaves = known_params(*(_depth(names, spelling, stack) for stack in ("blocks", "decoder_blocks")))
    kept = (p for p in leaves if holds(dialect, contents, p.name))
    return {param.name: tuple(spelling.spell(param)) for param in kept}  # type: ignore[misc]


def _depth(names: Mapping[str, object], spelling: Spelling, stack: str) -> int:
    """Blocks in a stack: one more than the highest number, but no more than there can be tensors for."""
    start = re.escape(spelling.stacks.get(stack, stack))
    numbers = [int(match[1]) for name in names if (match := re.match(rf"{start}\.(\d{{1,6}})\.", name))]
    return max(1, min(max(numbers, default=0) + 1, len(names)))


# Models of other projects: a pattern for the whole name of a tensor, its number of axes if that matters, and the model.
_RELATIVES = (
    (r"encoder_to_decoder\.weight", None, "pengzhiliang/MAE-pytorch: no class token, no bias of k, fixed positions of its own"),
    (r".*patch_embed\.proj\.weight", 5, "a model for video (VideoMAE, MAE-ST): its patches have a length in time"),
    (r"(.*\.)?(decoder_)?channel_embed", None, "SatMAE: groups of channels with embeddings of their own"),
    (r".*\.relative_position_bias_table|.*\.q_bias", None, "BEiT or in its style: relative positions, no bias of k, LayerScale"),
    (r"(.*\.)?(layers|stages)\.\d+\.(blocks|downsample)\..*", None, "a Swin or another model with stages"),
    (r"(.*\.)?register_tokens|(.*\.)?ls1\.gamma", None, "DINOv2 or in its style: LayerScale, register tokens"),
    (r"(.*\.)?gamma_1|(.*\.)?ls1\.gamma", None, "a model with LayerScale, as CaiT, BEiT or DINOv2"),
    (r"encoder\.mask_token", None, "SimMIM: its mask tokens enter the encoder"),
    (r"(.*\.)?(rope|freqs_cis|rotary)[\w.]*", None, "a model with rotary positions, as EVA-02"),
    (r"(.*\.)?class_embedding|(.*\.)?positional_embedding", None, "CLIP: another order of its norms and no such decoder"),
    (r"(.*\.)?rel_pos_[hw]", None, "SAM or ViTDet: windows and relative positions"),
)  # fmt: skip


def relative(shapes: Mapping[str, Shape]) -> str:
    """A sentence that names the other project's model whose tensors these are; "" if they show none."""
    for pattern, axes, model in _RELATIVES:
        if any(axes in (None, len(shape)) and re.fullmatch(pattern, name) for name, shape in shapes.items()):
            return f"By its names it is {model}; no model here computes so."
    return ""
