"""From measurements to rows: which kernels are clearly less accurate than others, which are wrong, and under which settings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...backends.operations import PRODUCTS
from ...files.errors import Problem
from ..judge.kernels import holds
from ..limits.tolerance import HIGHEST_FLOOR
from ..profile import NOTABLE, WRONG
from .measure import LEAST, Measured
from .profile import ACCURATE, Profile
from .settings import NEWEST, SETTINGS

REMEMBERED = Path(__file__).parent.parent / "judge" / "operations.json"
ACCEPTED = Path(__file__).parent / "accepted.json"
SAME = 1.5  # times by which an error may differ between kernels and still count as the same
QUANTILE = 0.75  # of the inputs, on which an error is typical
VERSION = "version"  # the only cause of an error that is the same with all kernels: the framework's version

Key = tuple[str, str, str]  # operation, argument, inputs


@dataclass
class Judged:
    """The rows of a profile: all of them, and the faults of operations on some of their inputs."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[dict[str, str]] = field(default_factory=list)

    @property
    def notable(self) -> list[dict[str, Any]]:
        """The rows of kernels that are clearly less accurate than others."""
        return [row for row in self.rows if row["notable"]]


def judged(profile: Profile, accepted: Sequence[Mapping[str, Any]] | None = None) -> Judged:
    """A row for each framework and operation, several where the error depends on the kernels that a library takes.

    Matrix products and convolutions are never notable: in which order they sum is free. accepted: operations as far off as a
    wrong one, each with the reason why it is not; those of accepted.json.
    """
    accepted = json.loads(ACCEPTED.read_text()) if accepted is None else accepted
    judgement = Judged()
    for framework in profile.frameworks:
        if framework == "numpy":  # its formulas are ours
            continue
        environment = profile.environments[framework]
        where = {key: environment[key] for key in ("framework", "version", "device")}
        for operation in dict.fromkeys(one.operation for one in profile.measured[framework, ""]):
            excuse = _excuse(accepted, where, operation)
            kernels = _Kernels(profile, framework, operation, excuse)
            judgement.wrong += [where | {"operation": operation, **why} for why in kernels.wrong()]
            judgement.rows += [where | row for row in kernels.rows()]
    return judgement


def _excuse(accepted: Sequence[Mapping[str, Any]], where: dict[str, Any], operation: str) -> Mapping[str, Any]:
    wanted = where | {"operation": operation}
    return next((one for one in accepted if all(one[key] == wanted[key] for key in one if key in wanted)), {})


def unsound(measured: Measured, others: float = 0, at_most: float = 0) -> str:
    """Why a measurement is that of a wrong operation and not of an inaccurate kernel; "" where it is not.

    A function that is another one is as wrong in float64; a kernel that rounds is not. Where the framework has no float64 of
    its own for an operation, twenty units are the bound. others: the error of accurate kernels on the same inputs, of which
    twice is no fault. at_most: up to which error it is accepted nevertheless.
    """
    if measured.problem:
        return measured.problem
    off = f"{measured.error:.3g} u off"
    if measured.error > HIGHEST_FLOOR:
        return f"{off}: at most three digits are right"
    if measured.error <= max(LEAST, NOTABLE * others, at_most):
        return ""
    if measured.double is None:
        none = f"{off}, and there is no float64 of its own to tell whether its function is another"
        return none if measured.error > WRONG else ""
    same = f"{off}, and {measured.double:.3g} u in float64 too: its function is another"
    return same if measured.double > measured.error / 2 else ""


class _Kernels:
    """One operation of one framework, under every setting."""

    def __init__(self, profile: Profile, framework: str, operation: str, excuse: Mapping[str, Any]):
        self.profile, self.framework, self.operation, self.excuse = profile, framework, operation, excuse
        self.at_most = float(excuse.get("at_most", 0))
        names = [name for (one, name) in profile.measured if one == framework]
        self.measured = {name: self._of(framework, name) for name in names}
        self.others = self._others()
        self.sound = {
            name: {key: one for key, one in of.items() if not self._unsound(key, one)}
            for name, of in self.measured.items()
        }

    def _of(self, framework: str, setting: str) -> dict[Key, Measured]:
        listed = self.profile.measured[framework, setting]
        return {(m.operation, m.argument, m.inputs): m for m in listed if m.operation == self.operation}

    def _others(self) -> dict[Key, float]:
        """The least error of the accurate frameworks on each of the inputs, or else of any other framework."""
        frameworks = [one for one in self.profile.frameworks if one != self.framework]
        errors: dict[Key, dict[str, float]] = {}
        for other in frameworks:
            for key, one in self._of(other, "").items():
                if not one.problem:
                    errors.setdefault(key, {})[other] = one.error
        return {
            key: min([size for other, size in of.items() if other in ACCURATE] or of.values())
            for key, of in errors.items()
        }

    def _unsound(self, key: Key, one: Measured, accepting: bool = True) -> str:
        return unsound(one, self.others.get(key, 0.0), self.at_most if accepting else 0)

    def wrong(self) -> Iterator[dict[str, str]]:
        """On which inputs it is wrong, as it is, and why; "of" names the argument of a gradient."""
        for key, one in self.measured[""].items():
            if why := self._unsound(key, one):
                yield {"inputs": one.inputs, "why": why} | ({"of": one.argument} if one.argument else {})

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row, or one for each group of settings with about the same error where that differs."""
        if not self.sound[""]:
            return
        keys = [key for key in self.measured[""] if any(self._is_notable(name, key) for name in self.sound)]
        if not keys:
            yield self._row("", list(self.sound[""]), VERSION, False)
            return
        worst = {
            name: max((of[key].error for key in keys if key in of), default=0.0) for name, of in self.sound.items()
        }
        groups = _groups(worst)
        for names in groups:
            here = [key for key in keys if any(self._is_notable(name, key) for name in names)]
            largest = max(names, key=lambda name: worst[name])
            depends = VERSION if len(groups) == 1 else self._depends(names, groups)
            if here:
                yield self._row(largest, [key for key in here if key in self.sound[largest]], depends, True)
            elif "" in names:
                yield self._row("", list(self.sound[""]), depends, False)

    def _is_notable(self, setting: str, key: Key) -> bool:
        one = self.sound[setting].get(key)
        free = self.operation.removesuffix(" backward") in PRODUCTS
        return one is not None and not free and one.error > max(LEAST, NOTABLE * self.others.get(key, float("inf")))

    def _row(self, setting: str, keys: Sequence[Key], depends: Any, notable: bool) -> dict[str, Any]:
        """The worst of some inputs under a setting, and the sizes of the rest."""
        of = self.sound[setting]
        worst = max((of[key] for key in keys), key=lambda one: one.error)
        row: dict[str, Any] = {
            "operation": self.operation,
            "error": _rounded(worst.error),
            "typical": _rounded(_typical(of.values())),
            "others": _rounded(self.others.get((worst.operation, worst.argument, worst.inputs))),
            "bias": _rounded(worst.bias),
            "inputs": worst.inputs,
            "depends_on": depends,
            "notable": notable,
        }
        if worst.double is not None:
            row["float64"] = _rounded(worst.double)
        if any(self._unsound(key, one, accepting=False) for key, one in of.items()):
            row["accepted"] = self.excuse["reason"]
        for name, group in (("gradients", "argument"), ("by_width", "width")):
            sizes: dict[str, float] = {}
            for one in of.values():
                if place := getattr(one, group):
                    sizes[str(place)] = max(sizes.get(str(place), 0.0), one.error)
            if len(sizes) > 1:
                row[name] = {place: _rounded(size) for place, size in sizes.items()}
        return row

    def _depends(self, names: Sequence[str], groups: Sequence[Sequence[str]]) -> dict[str, list[str]]:
        """By library, the kernels of a group of settings, of those libraries whose kernels are in more than one group."""
        kernels_of: dict[str, list[str]] = {}
        place = {name: index for index, group in enumerate(groups) for name in group}
        for library in dict.fromkeys(setting.library for setting in self.profile.settings):
            mine = {setting.name: setting.kernels for setting in self.profile.settings if setting.library == library}
            measured = [name for name in (*mine, "") if name in place]
            if len({place[name] for name in measured}) > 1:
                itself = str(self.profile.environments[self.framework].get("kernels", {}).get(library, ""))
                kernels = [mine[name] for name in measured if name in names and name]
                if "" in names and itself and not (kernels and holds({library: kernels}, {library: itself})):
                    kernels.append(itself)
                if kernels:
                    kernels_of[library] = kernels
        return kernels_of


def _typical(measured: Iterable[Measured]) -> float:
    """The error that an operation does not exceed on three of four inputs."""
    sizes: dict[str, float] = {}
    for one in measured:
        sizes[one.inputs] = max(sizes.get(one.inputs, 0.0), one.error)
    return sorted(sizes.values())[math.ceil(QUANTILE * len(sizes)) - 1]


def _groups(worst: Mapping[str, float]) -> list[list[str]]:
    """Settings with about the same error together, the least accurate first."""
    groups: list[list[str]] = []
    for name in sorted(worst, key=lambda name: -worst[name]):
        if groups and worst[groups[-1][0]] <= SAME * worst[name]:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _rounded(size: float | None) -> float | None:
    return None if size is None else float(f"{size:.3g}")


def remember(judgement: Judged, profile: Profile) -> None:
    """Put the notable rows into operations.json, in place of older ones of the same framework, version and operation.

    Wrong operations are not among them. Raises Problem where the causes of the errors were not measured: this CPU may lack the
    instructions of kernels that have rows of their own.
    """
    if not profile.settings:
        raise Problem(
            "What an error depends on was not measured: add --settings, which measures under other kernels too."
        )
    if lacking := [setting.name for setting in SETTINGS if setting not in profile.settings]:
        raise Problem(
            f"What errors depend on was measured without the kernels {', '.join(lacking)}, which this CPU cannot run: to "
            f"remember it, measure on one with {NEWEST}."
        )
    measured = {_place(row) for row in (*judgement.rows, *judgement.wrong)}
    kept = [row for row in json.loads(REMEMBERED.read_text()) if _place(row) not in measured]
    new = [{key: value for key, value in row.items() if key != "notable"} for row in judgement.notable]
    order = {name: place for place, name in enumerate(profile.frameworks)}
    rows = sorted([*kept, *new], key=lambda row: order.get(row["framework"], len(order)))
    lines = ",\n".join(f" {json.dumps(row)}" for row in rows)
    REMEMBERED.write_text(f"[\n{lines}\n]\n" if rows else "[]\n")


def _place(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[key] for key in ("framework", "version", "device", "operation"))
