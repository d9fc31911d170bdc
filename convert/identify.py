"""Which dialect a set of tensor names and shapes is in, and where each of the spec's tensors lies in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..backends.naming import Spelling
from ..backends.spec import Shape
from ..files.errors import option
from .dialects import DIALECTS, Contents, Dialect, holds, known_params
from .dialects.dialect import MINDSPORE_TRAINING
from .layouts import inverse, shape_after
from .parts import Own, find_part, prefix_of, under, unwrapped
from .relatives import relative
from .shapes import contents_of
from .tensors import CheckpointProblem

Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Reading:
    """Where one of the spec's tensors lies: the names of its parts, their layout, and its shape in the spec."""

    names: tuple[str, ...]
    layout: str | None
    shape: Shape


@dataclass(frozen=True)
class Identified:
    """A file's names, understood.

    readings: by spec name, in the spec's order; what the spec does not know comes last, under its own name. problems: a
    sentence for each of the spec's tensors whose parts are not all there. unused: what the dialect is known to leave
    over. outside: what lies in other parts of a larger model. strangers: of the readings, what no model here has. own: the
    file's own names, by those without prefix and wrappers. prefix: what stands before every name.
    """

    dialect: Dialect
    contents: Contents
    readings: Mapping[str, Reading]
    problems: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    outside: tuple[str, ...] = field(default=(), compare=False)
    strangers: tuple[str, ...] = ()
    own: Own = field(default_factory=dict, compare=False)
    prefix: str = field(default="", compare=False)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Of `unused`, the model's own tensors, without what training saves along with them."""
        return tuple(name for name in self.unused if not re.fullmatch(MINDSPORE_TRAINING, name))


def identify(
    shapes: Shapes, where: str, dialect: str | None = None, told: str | None = None, prefix: str | None = None
) -> Identified:
    """The dialect of a file's tensors, and every tensor by its spec name.

    dialect: the one to take; None finds out. told: the one that a provenance names, taken where no name shows it and it
    fits. prefix: what the names of the model begin with, in a file that holds more; None finds out. Raises
    CheckpointProblem, listing the candidates, where none fits, or where several do and would read the file differently.
    """
    own = unwrapped(shapes)
    if prefix is not None:
        own = under(own, prefix, where)
    offered = [one for one in DIALECTS.values() if not one.explicit or one.name == told]
    if dialect is not None:
        offered = [dialect_named(dialect)]

    def shapes_of(names: Own) -> Shapes:
        return {name: tuple(shapes[there]) for name, there in names.items()}

    part, fitting = find_part(own, lambda names: _shown_by(shapes_of(names), offered)[1], where)
    inside = {*part.values()}
    rest = {name: there for name, there in own.items() if there not in inside}
    mixed = _shown_by(shapes_of(rest if fitting else own), offered)[0]
    if mixed or not fitting:
        raise CheckpointProblem(_none_fits(mixed, shapes_of(own), where, dialect))
    found = [_translate(candidate, part, shapes_of(part), where) for candidate in fitting]
    # Where what would tell them apart is missing, all of them read the file alike: then nothing is guessed.
    if any((other.contents, other.readings) != (found[0].contents, found[0].readings) for other in found[1:]):
        raise CheckpointProblem(
            f"{where} can be read in more than one dialect: {', '.join(d.name for d in fitting)}. Say which with "
            f"{option('--from')}."
        )
    training = {name: None for name in rest if re.fullmatch(MINDSPORE_TRAINING, name)}
    outside = tuple(name for name in shapes if name not in inside and name not in training)
    return replace(found[0], unused=(*found[0].unused, *training), outside=outside, own=part, prefix=prefix_of(part))


def dialect_named(name: str) -> Dialect:
    """The row of this name. Raises CheckpointProblem for a name that is none."""
    if name not in DIALECTS:
        raise CheckpointProblem(f"Unknown dialect {name!r}; there are {', '.join(DIALECTS)}.")
    return DIALECTS[name]


def _shown_by(shapes: Shapes, offered: Iterable[Dialect]) -> tuple[list[Dialect], list[Dialect]]:
    """The dialects that a file shows signs of, and of these the ones that nothing in it speaks against."""
    shown = [dialect for dialect in offered if any(sign.found(shapes) for sign in dialect.shows)]
    fitting = [dialect for dialect in shown if not any(sign.found(shapes) for sign in dialect.never)]
    return shown, [dialect for dialect in fitting if dialect.explicit] or fitting


def _none_fits(shown: list[Dialect], shapes: Shapes, where: str, asked: str | None) -> str:
    against = [(one, [name for sign in one.never if (name := sign.found(shapes))]) for one in shown]
    begin = f"Its {len(shapes)} tensors begin with {', '.join(list(shapes)[:5])}"
    if asked is not None:
        names = [name for _, found in against for name in found]
        why = (
            f"it holds {names[0]} {tuple(shapes[names[0]])}" if names else "no tensor in it has a name of that dialect"
        )
        return (
            f"{where} is not in the {asked} dialect ({DIALECTS[asked].title}): {why}. {begin}; leave out {option('--from')}, and "
            "the dialect is found."
        )
    if shown:
        reasons = (
            f"{one.name}, if not for {names[0]} {tuple(shapes[names[0]])}" if names else one.name
            for one, names in against
        )
        return f"{where} mixes dialects. It could be {'; '.join(reasons)}. Was it put together from two files?"
    known = ", ".join(name for name, one in DIALECTS.items() if not one.explicit)
    said = f"{where} is not a masked autoencoder or its classifier in a dialect known here ({known}). {begin}. "
    return (said + relative(shapes)).rstrip()


def _translate(dialect: Dialect, own: Own, shapes: Shapes, where: str) -> Identified:
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
            absent = ", ".join(prefix_of(own) + name for name in names if name not in shapes)
            problems[spec] = f"missing: {absent}, the rest of {spec}"
            continue
        found = _reading(names, layout, [shapes[name] for name in names])
        if isinstance(found, str):
            problems[spec] = found
        else:
            readings[spec] = Reading(tuple(own[name] for name in names), layout, found)
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
            raise CheckpointProblem(f"{where} holds both {name} and {readings[name].names[0]}, which are one tensor.")
        readings[name] = Reading((own[name],), None, tuple(shape))
        strangers.append(name)
    contents = contents_of(readings, where)
    return Identified(dialect, contents, readings, problems, tuple(own[name] for name in unused), (), tuple(strangers))


def _reading(names: tuple[str, ...], layout: str | None, shapes: list[Shape]) -> Shape | str:
    """The spec shape of a tensor with these parts; a sentence where they do not make one."""
    if len(set(shapes)) > 1 or not all(shapes):
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in zip(names, shapes))
        if len(names) > 1:
            return f"shape: {listed} must be equally large parts of one tensor"
    if len(names) > 1:
        return (shapes[0][0] * len(names), *shapes[0][1:])
    if layout is None:
        return tuple(shapes[0])
    found = shape_after(inverse(layout), shapes[0])
    return found or f"shape: {names[0]} {tuple(shapes[0])} has not the axes of '{layout.split(' -> ')[1]}'"


def spelled_names(
    dialect: Dialect, contents: Contents, names: Mapping[str, object]
) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """For each of the spec's tensors that such a file can hold: its names in the dialect, and its layout.

    names: tells how deep the stacks are.
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
