"""Faults in nets, and how they are planted in the ports: other text in the source, or wrong inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from mutants.planting import Edit, edited_copy
from numpy.typing import NDArray

from .settings import Arrays

PORTS = {
    "torch": "nets.torch_port", "megengine": "nets.megengine_nets", "mindspore": "nets.mindspore_nets",
    "oneflow": "nets.oneflow_nets",
}  # fmt: skip
Pair = tuple[str, str]  # text of a port, and what stands there instead
Edits = Mapping[str, tuple[Pair, ...]]  # by framework
RAISES = "raised"  # why a port that raises is not comparable
Spoil = Callable[[Arrays], Arrays]
STOP = dict.fromkeys(PORTS, "{}.detach()") | {"mindspore": "ops.stop_gradient({})"}
TF32 = "({0} * 8193.0 - ({0} * 8193.0 - {0}))"  # Veltkamp's: rounded to 11 bits, with the gradient of {0} itself


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    net: that of settings.NETS which is run with it. tap: the first tensor that is wrong; none where there is nothing to
    judge, because every run gives other numbers, or none. about: what the porter did. edits: text of the port, by framework.
    inputs: what reaches the port instead of its inputs, in every framework. incomparable: words of the reason why it is not
    comparable, where it has to be that and not a fault.
    """

    name: str
    net: str
    tap: str
    about: str
    edits: Edits = field(default_factory=dict)
    inputs: Spoil | None = None
    incomparable: str = ""

    def __post_init__(self) -> None:
        if not self.edits and not self.inputs:
            raise ValueError(f"{self.name} changes nothing; give edits or inputs.")
        if bool(self.tap) == bool(self.incomparable):
            raise ValueError(f"{self.name} needs either a tap or why it is not comparable.")

    @property
    def verdict(self) -> str:
        """The verdict that a judge must reach."""
        return "not comparable" if self.incomparable else "fault"

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The frameworks in which it can be planted."""
        return tuple(self.edits) or tuple(PORTS)

    def port(self, framework: str) -> ModuleType:
        """The framework's port with the fault in it. Raises Problem where an edit no longer fits the source."""
        return edited_copy(PORTS[framework], [Edit(PORTS[framework], *pair) for pair in self.edits.get(framework, ())])

    def spoilt(self, inputs: Arrays) -> Arrays:
        """The inputs of the port: those of the reference, spoilt where the fault lies in them."""
        return self.inputs(dict(inputs)) if self.inputs else inputs


def everywhere(*pairs: Pair) -> Edits:
    """The same replacements in every port."""
    return dict.fromkeys(PORTS, pairs)


def by_framework(old: Mapping[str, str], **new: str) -> Edits:
    """One replacement, spelled otherwise in each framework."""
    return {framework: ((old[framework], text),) for framework, text in new.items()}


def stopped(old: str, name: str) -> Edits:
    """The gradient of one factor or term stopped; old: text with the place of its name as {}."""
    return {framework: ((old.format(name), old.format(stop.format(name))),) for framework, stop in STOP.items()}


def exchanged(one: str, other: str) -> Spoil:
    """Every tensor under the other's name, where one part of its name is this or that."""

    def exchange(name: str) -> str:
        if one in name:
            return name.replace(one, other)
        return name.replace(other, one)

    return lambda inputs: {name: inputs[exchange(name)] for name in inputs}


def changed(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Spoil:
    """One input changed."""
    return lambda inputs: inputs | {name: np.ascontiguousarray(change(inputs[name]))}


def in_bfloat16(inputs: Arrays) -> Arrays:
    """Weights cut to 8 bits, rounded to nearest."""

    def cut(x: NDArray[Any]) -> NDArray[Any]:
        return ((x.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)

    return {name: cut(x) if name.endswith("weight") else x for name, x in inputs.items()}
