"""Measure one framework's operations, in a process of its own: `python -m polymae.compare.operations.measure`.

A task comes as JSON on stdin. The oracle (NumPy's float64, PyTorch's for what NumPy lacks) is written first, with the inputs
that it had; every framework is measured on these.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.operations import OPERATIONS, Gradients, load_operations
from ...backends.runtime import load_backend
from ..limits.metrics import U
from ..record.environment import neutralise
from .cases import cases

LEAST = 2.0  # units of roundoff from which a kernel may be inaccurate, or its function another: float64 is asked which
LONGEST = 200  # characters of a framework's own words
READY = "environment"  # the key of a worker's first answer

Array = NDArray[Any]


@dataclass(frozen=True)
class Measured:
    """How far an output, or the gradient for one argument, is from the oracle on one of an operation's inputs.

    operation: "softmax", or "softmax backward"; argument: of which it is the gradient. error: E = ||x - o|| / (u ||o||), of
    several draws the root mean square; bias: |<x, o> / <o, o> - 1| / u, that of their mean. double: E, in the same u, of the
    operation in float64; None where it was not asked, or where the framework has no float64 of its own for it: it refuses, or
    rounds to float32 inside, which gives the same bits. digest: of the bits. problem: why there is nothing else here.
    """

    operation: str
    argument: str
    inputs: str
    width: int = 0
    error: float = 0.0
    bias: float = 0.0
    double: float | None = None
    digest: str = ""
    problem: str = ""


def write_oracle(framework: str, operations: Sequence[str], out: Path) -> None:
    """Run operations in float64 on all of their inputs, and write inputs, outputs and gradients to an .npz file."""
    module = load_operations(framework)
    arrays: dict[str, Array] = {}
    for operation in operations:
        for index, case in enumerate(cases(operation)):
            for draw in range(case.draws):
                inputs = case.arrays(draw)
                shape = module.value_and_gradients(operation, inputs, None, True)[0].shape
                dy = case.dy(draw, shape)
                value, gradients = module.value_and_gradients(operation, inputs, dy, True)
                key = f"{operation}/{index}/{draw}"
                arrays |= {f"{key}/given/{name}": array for name, array in inputs.items()}
                arrays |= {f"{key}/dy": dy, f"{key}/value": value}
                arrays |= {f"{key}/gradient/{name}": array for name, array in gradients.items()}
    np.savez(out, **arrays)


def measure(framework: str, operation: str, oracle: Mapping[str, Array]) -> list[Measured]:
    """An operation's output and gradients on all of its inputs; the framework's exception is in the problem."""
    module = load_operations(framework)
    rows: list[Measured] = []
    for index, case in enumerate(cases(operation)):
        keys = [f"{operation}/{index}/{draw}" for draw in range(case.draws)]
        try:
            runs = [_run(module, operation, oracle, key, False) for key in keys]
        except Exception as problem:  # whatever it is, it is a row of the table
            rows.append(Measured(operation, "", case.inputs, case.width, problem=_words(problem)))
            continue
        exact = [_exact(operation, oracle, key) for key in keys]
        measured = _compared(operation, case.inputs, case.width, runs, exact)
        if any(one.problem or one.error > LEAST for one in measured):
            measured = _with_double(module, operation, oracle, keys, measured, exact)
        rows += measured
    return rows


def _run(module: Any, operation: str, oracle: Mapping[str, Array], key: str, double: bool) -> Gradients:
    inputs = {name: oracle[f"{key}/given/{name}"] for name in OPERATIONS[operation]}
    gradients: Gradients = module.value_and_gradients(operation, inputs, oracle[f"{key}/dy"], double)
    return gradients


def _exact(operation: str, oracle: Mapping[str, Array], key: str) -> Gradients:
    names = [name for name in OPERATIONS[operation] if f"{key}/gradient/{name}" in oracle]
    return oracle[f"{key}/value"], {name: oracle[f"{key}/gradient/{name}"] for name in names}


def _compared(
    operation: str, inputs: str, width: int, runs: Sequence[Gradients], exact: Sequence[Gradients]
) -> list[Measured]:
    """The output, then each gradient, over all draws."""
    pairs = {("", operation): [(run[0], one[0]) for run, one in zip(runs, exact)]}
    for name in exact[0][1]:
        pairs[name, f"{operation} backward"] = [(run[1][name], one[1][name]) for run, one in zip(runs, exact)]
    return [_distance(label, argument, inputs, width, both) for (argument, label), both in pairs.items()]


def _distance(label: str, argument: str, inputs: str, width: int, both: Sequence[tuple[Array, Array]]) -> Measured:
    narrow = (np.ascontiguousarray(x, np.float32).tobytes() for x, _ in both)
    digest = hashlib.sha256(b"".join(narrow)).hexdigest()[:16]
    for x, o in both:
        if x.shape != o.shape:
            return Measured(label, argument, inputs, width, problem=f"its shape is {x.shape}, and {o.shape} is right")
        if lost := int(np.count_nonzero(~np.isfinite(x))):
            return Measured(label, argument, inputs, width, problem=f"{lost} of {x.size} numbers are not finite")
    errors, gains = zip(*(_errors(x.astype(np.float64), o.astype(np.float64)) for x, o in both))
    error = math.sqrt(sum(e * e for e in errors) / len(errors))
    return Measured(label, argument, inputs, width, error, abs(sum(gains)) / len(gains), digest=digest)


def _errors(x: Array, o: Array) -> tuple[float, float]:
    """E and the gain, in u. Sums are NumPy's own: the same bits whatever its BLAS is."""
    power = float(np.sum(o * o))
    if power == 0:
        return (0.0 if not x.any() else math.inf), 0.0
    d = x - o
    return math.sqrt(float(np.sum(d * d)) / power) / U, float(np.sum(d * o)) / power / U


def _with_double(
    module: Any,
    operation: str,
    oracle: Mapping[str, Array],
    keys: Sequence[str],
    measured: Sequence[Measured],
    exact: Sequence[Gradients],
) -> list[Measured]:
    """The same with the error in float64 of each, where the framework has that."""
    try:
        runs = [_run(module, operation, oracle, key, True) for key in keys]
    except Exception:  # it has none, and the answer leaves it out
        return list(measured)
    doubled = _compared(operation, "", 0, runs, exact)
    return [
        one if two.problem or two.digest == one.digest else replace(one, double=two.error)
        for one, two in zip(measured, doubled)
    ]


def _words(problem: Exception) -> str:
    """The first line of a framework's message; its traces of C++ calls come after it."""
    lines = [line.strip(" -") for line in str(problem).splitlines()]
    first = next((line for line in lines if line), "")
    return f"{type(problem).__name__}: {first}"[:LONGEST]


class Archives(dict[str, Array]):
    """The arrays of several .npz files by name, each read at its first use."""

    def __init__(self, paths: Sequence[Path]):
        files = [np.load(path) for path in paths]
        super().__init__({name: file for file in files for name in file.files})

    def __getitem__(self, name: str) -> Array:
        array: Array = super().__getitem__(name)[name]
        return array


def _tell(out: Any, answer: Any) -> None:
    print(json.dumps(answer), file=out, flush=True)


def _answers(task: Mapping[str, Any]) -> Iterator[Any]:
    """The answers to a task, piece by piece: the environment, then the measurements of each operation."""
    neutralise()
    framework = task["framework"]
    runtime = load_backend(framework)
    runtime.setup("cpu", task["threads"])
    environment = runtime.environment("cpu")
    yield {
        READY: {
            name: environment[name] for name in ("framework", "version", "device", "kernels") if name in environment
        }
    }
    if task.get("oracle"):
        write_oracle(framework, task["operations"], Path(task["oracle"]))
        return
    oracle = Archives([Path(path) for path in task["archives"]])
    absent = load_operations(framework).ABSENT
    for operation in task["operations"]:
        if operation in absent:
            yield {"operation": operation, "absent": absent[operation]}
        else:
            yield {"operation": operation, "measured": [asdict(one) for one in measure(framework, operation, oracle)]}


def main() -> None:
    """Do the task on stdin and print a line of JSON for each piece of the answer."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a framework prints to stderr, not among the answers
    warnings.simplefilter("ignore")
    for answer in _answers(json.load(sys.stdin)):
        _tell(out, answer)


if __name__ == "__main__":
    main()
