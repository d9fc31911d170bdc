"""Which dialect a set of tensor names and shapes is in, and where each of the spec's tensors lies in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..backends.spec import Shape
from ..backends.spelling import Spelling
from .dialects import DIALECTS, Contents, Dialect, holds, known_params
from .dialects.dialect import MINDSPORE_TRAINING
from .layouts import inverse, shape_after
from .shapes import contents_of
from .tensors import CheckpointProblem

Shapes = Mapping[str, Shape]
# What wrappers put before every name: DistributedDataParallel, torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
# What a larger model, as Lightning's, calls the one in it.
_PARTS = ("model.", "backbone.", "net.", "encoder.")


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
    over. prefix: what a wrapper put before every name.
    """

    dialect: Dialect
    contents: Contents
    readings: Mapping[str, Reading]
    problems: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    prefix: str = field(default="", compare=False)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Of `unused`, the model's own tensors, without what training saves along with them."""
        return tuple(name for name in self.unused if not re.fullmatch(MINDSPORE_TRAINING, name))


def identify(shapes: Shapes, where: str, dialect: str | None = None, told: str | None = None) -> Identified:
    """The dialect of a file's tensors, and every tensor by its spec name.

    dialect: the one to take; None finds out. told: the one that a provenance names, taken where no name shows it and it
    fits. Raises CheckpointProblem, listing the candidates, where none fits, or where several do and would read the file
    differently.
    """
    prefix = common_prefix(shapes)
    bare = {name[len(prefix) :]: tuple(shape) for name, shape in shapes.items()}
    if dialect is not None:
        fitting = [_asked_for(dialect, bare, where)]
    else:
        shown, fitting = _shown_by(bare, told)
        for part in () if fitting else _PARTS:  # the model may be a part of a larger one
            inner = {name.removeprefix(part): shape for name, shape in bare.items() if name.startswith(part)}
            if len(inner) == len(bare) and (fitting := _shown_by(inner, told)[1]):
                prefix, bare = prefix + part, inner
                break
        if not fitting:
            raise CheckpointProblem(_none_fits(shown, bare, where))
    found = [_translate(candidate, bare, where, prefix) for candidate in fitting]
    # Where what would tell them apart is missing, all of them read the file alike: then nothing is guessed.
    if any((other.contents, other.readings) != (found[0].contents, found[0].readings) for other in found[1:]):
        raise CheckpointProblem(
            f"{where} can be read in more than one dialect: {', '.join(d.name for d in fitting)}. Say which with --from."
        )
    return found[0]


def common_prefix(names: Mapping[str, object]) -> str:
    """What wrappers put before every single name; nothing where they did not."""
    prefix = ""
    while names:
        added = next((p for p in _PREFIXES if all(name.startswith(prefix + p) for name in names)), None)
        if added is None:
            break
        prefix += added
    return prefix


def dialect_named(name: str) -> Dialect:
    """The row of this name. Raises CheckpointProblem for a name that is none."""
    if name not in DIALECTS:
        raise CheckpointProblem(f"Unknown dialect {name!r}; there are {', '.join(DIALECTS)}.")
    return DIALECTS[name]


def _asked_for(name: str, shapes: Shapes, where: str) -> Dialect:
    """The dialect of this name. Raises CheckpointProblem where the file's names are not of it: none is in its spelling."""
    dialect = dialect_named(name)
    against = next((found for sign in dialect.never if (found := sign.found(shapes))), None)
    if against is None and any(sign.found(shapes) for sign in dialect.shows):
        return dialect
    why = f"it holds {against} {tuple(shapes[against])}" if against else "no tensor in it has a name of that dialect"
    raise CheckpointProblem(
        f"{where} is not in the {name} dialect ({dialect.title}): {why}. Its {len(shapes)} tensors begin with "
        f"{', '.join(list(shapes)[:5])}; leave out --from, and the dialect is found."
    )


def _shown_by(shapes: Shapes, told: str | None) -> tuple[list[Dialect], list[Dialect]]:
    """The dialects that a file shows signs of, and of these the ones that nothing in it speaks against."""
    offered = [dialect for dialect in DIALECTS.values() if not dialect.explicit or dialect.name == told]
    shown = [dialect for dialect in offered if any(sign.found(shapes) for sign in dialect.shows)]
    fitting = [dialect for dialect in shown if not any(sign.found(shapes) for sign in dialect.never)]
    return shown, [dialect for dialect in fitting if dialect.explicit] or fitting


def _none_fits(shown: list[Dialect], shapes: Shapes, where: str) -> str:
    reasons = []
    for dialect in shown:
        against = next(name for sign in dialect.never if (name := sign.found(shapes)))
        reasons.append(f"{dialect.name}, if not for {against} {tuple(shapes[against])}")
    if reasons:
        return f"{where} mixes dialects. It could be {'; '.join(reasons)}. Was it put together from two files?"
    return (
        f"{where} is not a masked autoencoder or its classifier in a dialect known here "
        f"({', '.join(name for name, d in DIALECTS.items() if not d.explicit)}). "
        f"Its {len(shapes)} tensors begin with {', '.join(list(shapes)[:5])}."
    )


def _translate(dialect: Dialect, shapes: Shapes, where: str, prefix: str) -> Identified:
    tables = [(kind, spelled_names(dialect, kind, shapes)) for kind in dialect.spellings]
    kind, spelled = max(
        tables, key=lambda table: sum(name in shapes for names, _ in table[1].values() for name in names)
    )
    readings: dict[str, Reading] = {}
    problems: dict[str, str] = {}
    taken: set[str] = set()
    for spec, (names, layout) in spelled.items():
        present = [name for name in names if name in shapes]
        taken.update(present)
        if not present:
            continue
        if len(present) < len(names):
            absent = ", ".join(prefix + name for name in names if name not in shapes)
            problems[spec] = f"missing: {absent}, the rest of {spec}"
            continue
        found = _reading(names, layout, [shapes[name] for name in names])
        if isinstance(found, str):
            problems[spec] = found
        else:
            readings[spec] = Reading(tuple(prefix + name for name in names), layout, found)
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
        readings[name] = Reading((prefix + name,), None, tuple(shape))
    contents = contents_of(readings, where)
    return Identified(dialect, contents, readings, problems, tuple(unused), prefix)


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
