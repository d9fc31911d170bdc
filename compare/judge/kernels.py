"""Kernels known to be less accurate than others, as measured by `polymae profile`, and the errors that they explain.

An error above its limit is explained where the oracle, run again in float64 with noise of the kernel's measured size
behind each of its calls, predicts it. The measurements are data: kernels.json, by framework, version and device.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from ...backends.config import Config
from ..limits.findings import Finding, Judgement
from ..limits.metrics import error
from ..limits.tensors import end_to_end_limit
from ..limits.tolerance import APriori
from ..record.noise import operations
from ..trace import Trace

_FILES = ("kernels.json", "operations.json")


def known_kernels(environment: Mapping[str, Any], config: Config | None = None) -> dict[str, float]:
    """Operation and error in units of roundoff of the inaccurate kernels of a recorded environment.

    config: only those that this model uses.
    """
    used = set(operations(config).values()) if config else ()
    rows = _rows("kernels.json", environment)
    return {row["operation"]: row["error"] for row in rows if config is None or row["operation"] in used}


@dataclass(frozen=True)
class Inaccuracy:
    """How far a kernel is off, in units of roundoff: on most inputs, and on the worst that were measured (in words)."""

    typical: float
    worst: float
    inputs: str = ""


def known_operations(environment: Mapping[str, Any]) -> dict[str, Inaccuracy]:
    """The inaccurate kernels of the operations that people build their own models of, by operation."""
    kernels: dict[str, Inaccuracy] = {}
    for file in _FILES:
        for row in _rows(file, environment):
            one = Inaccuracy(row.get("typical", row["error"]), row["error"], row.get("inputs", ""))
            other = kernels.get(row["operation"], one)
            worse = max(one, other, key=lambda kernel: kernel.worst)
            kernels[row["operation"]] = replace(worse, typical=max(one.typical, other.typical))
    return kernels


def _rows(file: str, environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The measurements that hold for a recorded environment: of its framework and device, the nearest version, its kernels.

    A row whose error depends on more than the version names the kernels that it was measured with, by library; it does not
    hold where the environment says that others ran.
    """
    where, kernels = _place(environment), environment.get("kernels") or {}
    mine = [row for row in _measured(file) if _place(row) == where]
    version = nearest(_version(environment), {_version(row) for row in mine})
    return [row for row in mine if _version(row) == version and holds(row.get("depends_on", "version"), kernels)]


@cache
def _measured(file: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(resources.files(__package__).joinpath(file).read_text())
    return rows


def _place(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("framework")), str(row.get("device"))


def _version(row: Mapping[str, Any]) -> str:
    """A version without its build: "2.13.0" of "2.13.0+cu130"."""
    return str(row.get("version")).partition("+")[0]


def nearest(version: str, measured: Collection[str]) -> str:
    """The measured version to go by: the newest that is not newer, else the oldest; "" where none was measured.

    Kernels outlive releases, and the error that they explain is predicted in size: a fault of another size stays one.
    """
    older = [one for one in measured if _order(one) <= _order(version)]
    return max(older, key=_order) if older else min(measured, key=_order, default="")


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def holds(depends_on: Any, kernels: Mapping[str, str]) -> bool:
    """Whether the kernels that ran may be those of a row: "version", or by library the kernels for which it holds.

    oneDNN's avx512_core_vnni and so on are its avx512_core with more instructions, for other types than float32.
    """
    if not isinstance(depends_on, dict):
        return True
    return all(
        not (ran := kernels.get(library, "")) or f"{ran}_".startswith(tuple(f"{name}_" for name in names))
        for library, names in depends_on.items()
    )


def explain(judgement: Judgement, oracle: Trace, noisy: Trace, noise: Mapping[str, float]) -> None:
    """Raise the limits of the tensors that the named kernels' errors reach; a fault that is within them is explained."""
    kernels = ", ".join(f"{operation} kernel ({size:.3g} u)" for operation, size in noise.items())
    kernels += f" of {judgement.environment['framework']} {named_version(judgement.environment)}"
    for finding in judgement.findings:
        if finding.verdict in ("roundoff", "fault") and finding.limit and finding.name in noisy:
            extra = error(noisy[finding.name], oracle[finding.name])
            if extra:  # none where the noise does not reach, as in the levels with inputs of their own
                widen(finding, extra, kernels, oracle[finding.name].ndim == 0)
    if any(finding.verdict == "explained" for finding in judgement.findings):
        judgement.explained_by = kernels


def named_version(environment: Mapping[str, Any]) -> str:
    """The version that ran, and in words the one that was measured where that is another."""
    rows = [row for file in _FILES for row in _measured(file) if _place(row) == _place(environment)]
    measured, ran = nearest(_version(environment), {_version(row) for row in rows}), str(environment["version"])
    return ran if measured in ("", _version(environment)) else f"{ran} (as measured in {measured})"


def unexplained(noise: Mapping[str, float]) -> str:
    """The advice where these kernels might explain a fault, without a noisy oracle that decides."""
    text = ",".join(f"{operation}={size:g}" for operation, size in noise.items())
    return (
        f"its {', '.join(noise)} kernel is known to be inaccurate; to see whether that explains the fault, add a trace of "
        f"the oracle with it: polymae record --framework numpy --dtype float64 --kernel-noise {text} ..."
    )


def widen(finding: Finding, extra: float, kernels: str, scalar: bool) -> None:
    """Give a finding the limit that it has with known kernels' errors, which alone put it `extra` u off the oracle."""
    limit = end_to_end_limit(finding, [math.hypot(finding.floor, extra)], scalar, APriori(0))
    finding.limit = limit.value
    if finding.verdict == "fault" and finding.error <= limit.value:
        finding.verdict = "explained"
        finding.reason = f"{kernels} adds {extra:.2f} to the floor {finding.floor:.2f} (in quadrature)"
    else:
        finding.reason += f", known kernels add {extra:.3g}"
