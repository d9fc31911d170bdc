"""Facts in tensors' names: which are gradients, in which order a backward pass comes to them, which is a slip."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from ...backends.spec import Tap
from ..judge.each import Source
from .callables import Listed

# Names that are nothing but a gradient's, and of which tensor: conv1.weight.grad, conv1.weight_grad, grad/conv1.weight, dy/conv1.
GRADIENT = re.compile(r"(?:grad[/._])(?P<first>.+)|dy/(?P<dy>.+)|(?P<last>.+)[/._]grad")
SHOWN = 3  # names that a message lists, where there are more


def subject(name: str) -> str:
    """The tensor whose gradient has this name; "" for a name of no gradient."""
    match = GRADIENT.fullmatch(name)
    return next((text for text in match.groups() if text), "") if match else ""


def by_name(oracle: Source, inputs: Sequence[str]) -> Listed:
    """All that the reference returns: gradients, by their names, last, in the order of the backward pass.

    A gradient is a floating-point tensor whose name is one of GRADIENT's forms.
    """
    names = [name for name in oracle.names if subject(name) and oracle[name].dtype.kind == "f"]
    forward = [name for name in oracle.names if name not in names]
    ordered = _backward(names, forward, inputs)
    return [("forward", Tap(name, "")) for name in forward] + [("gradients", Tap(name, "")) for name in ordered]


def _backward(names: list[str], forward: list[str], inputs: Sequence[str]) -> list[str]:
    """Gradients in the order in which a backward pass comes to them, as far as the names tell it.

    It is the reverse of the order of the taps, each being of a tap or of a parameter in one (conv1.weight in conv1); where
    fewer than half are, that of the inputs, each being of an input. The others follow as they came.
    """
    places = {name: _tap(subject(name), forward) for name in names}
    if 2 * sum(place >= 0 for place in places.values()) < len(names):
        places = {name: inputs.index(subject(name)) if subject(name) in inputs else -1 for name in names}
    placed = [name for name in reversed(names) if places[name] >= 0]
    # A tap's own gradient comes before those of the parameters behind which it stands.
    placed.sort(key=lambda name: (-places[name], subject(name) not in forward))
    return placed + [name for name in names if places[name] < 0]


def _tap(of: str, forward: list[str]) -> int:
    """Where the longest tap stands that it is, or in which it lies; -1 for none."""
    around = [tap for tap in forward if of == tap or of.startswith((f"{tap}.", f"{tap}/"))]
    return forward.index(max(around, key=len)) if around else -1


def holes(listed: Listed, oracle: Source, run: Source) -> list[str]:
    """Sentences on tensors missing on either side, or listed and returned by neither, with the nearest names."""
    names = [tap.name for _, tap in listed]
    sentences = []
    for name in names:
        if name not in oracle and name not in run:
            sentences.append(
                f"{name} was returned by neither side{nearest(name, [*oracle.names, *run.names], others=True)}"
            )
        elif name not in oracle:
            sentences.append(f"{name} is missing from the reference{nearest(name, oracle.names, others=True)}")
        elif name not in run:
            sentences.append(f"{name} is missing{nearest(name, [other for other in run.names if other not in names])}")
    sentences += [f"{name} of the reference is not among the taps" for name in oracle.names if name not in names]
    others = [name for name in oracle.names if name not in run]
    sentences += [
        f"{name} is unknown{nearest(name, others)}" for name in run.names if name not in (*names, *oracle.names)
    ]
    return sentences


def nearest(name: str, names: Sequence[str], others: bool = False) -> str:
    """In brackets, the names that are spelled most like it; with others: where none is, the first of them."""
    known = list(dict.fromkeys(names))
    if near := get_close_matches(name, known, SHOWN):
        return f" (nearest: {', '.join(near)})"
    more = ", ..." if len(known) > SHOWN else ""
    return f" (there are {', '.join(known[:SHOWN])}{more})" if known and others else ""
