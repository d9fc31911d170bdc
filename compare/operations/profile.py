"""Measure every framework's operations, each in a process of its own, as they are and under other kernels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...backends.operations import OPERATIONS, load_operations
from ...files.errors import Problem
from ..options import Run
from ..record.child import finished
from .measure import READY, Measured
from .settings import AS_IS, Setting, command

MODULE = "polymae.compare.operations.measure"
ACCURATE = ("numpy", "torch")  # whose kernels show how accurate float32 can be


@dataclass
class Profile:
    """The measurements: by framework and by the name of a setting ("" as it is), in the order of the operations.

    environments: version, device and kernels of each framework. absent: why a framework lacks an operation. failed: why a
    framework could not be measured under a setting.
    """

    operations: tuple[str, ...]
    settings: tuple[Setting, ...]
    measured: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def frameworks(self) -> list[str]:
        return list(self.environments)


def profile_operations(
    frameworks: Sequence[str],
    operations: Sequence[str] = tuple(OPERATIONS),
    settings: Sequence[Setting] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> Profile:
    """Measure operations of these frameworks, and beside them those of the accurate ones.

    settings: under which to measure again. tell: gets a line on each measurement. Raises Problem for a framework that cannot
    be measured as it is.
    """
    profile = Profile(tuple(operations), tuple(settings))
    with tempfile.TemporaryDirectory(prefix="polymae-") as name:
        folder = Path(name)
        archives = _oracle(folder, operations, tell)
        for setting in (AS_IS, *settings):
            wanted = (
                [*ACCURATE, *(one for one in frameworks if one not in ACCURATE)] if setting is AS_IS else frameworks
            )
            for framework in wanted:
                if setting.frameworks and framework not in setting.frameworks:
                    continue
                tell(f"{framework} {setting.name}".strip())
                try:
                    _measure(profile, framework, setting, folder, archives)
                except Problem as problem:
                    if setting is AS_IS:
                        raise
                    profile.failed[framework, setting.name] = str(problem)
    return profile


def _oracle(folder: Path, operations: Sequence[str], tell: Callable[[str], None]) -> list[str]:
    """Files of the operations in float64: NumPy's, and PyTorch's for what NumPy lacks."""
    lacking = load_operations("numpy").ABSENT
    parts = {"numpy": [one for one in operations if one not in lacking]}
    parts["torch"] = [one for one in operations if one in lacking]
    paths = []
    for framework, listed in parts.items():
        if listed:
            tell(f"{framework} in float64, the oracle")
            path = folder / f"oracle-{framework}.npz"
            for _ in _answers(framework, AS_IS, folder, listed, {"oracle": str(path)}):
                pass
            if not path.exists():
                raise Problem(f"The oracle of {', '.join(listed)} was not written; run `polymae doctor`.")
            paths.append(str(path))
    return paths


def _measure(profile: Profile, framework: str, setting: Setting, folder: Path, archives: Sequence[str]) -> None:
    """Measure one framework under one setting; an operation at which its process dies is a row that says so."""
    rest = list(profile.operations)
    rows: list[Measured] = []
    absent: dict[str, str] = {}
    while rest:
        ended = ""
        for answer in _answers(framework, setting, folder, rest, {"archives": archives}):
            if isinstance(answer, str):
                ended = answer
            elif READY in answer:
                if setting is AS_IS:
                    profile.environments[framework] = answer[READY]
            else:
                rest.remove(answer["operation"])
                if "absent" in answer:
                    absent[answer["operation"]] = answer["absent"]
                else:
                    rows += [Measured(**one) for one in answer["measured"]]
        if rest:
            rows.append(Measured(rest.pop(0), "", "", problem=f"the process ended: {ended or 'without a word'}"))
    profile.measured[framework, setting.name] = rows
    profile.absent[framework] = absent


def _answers(
    framework: str, setting: Setting, folder: Path, operations: Sequence[str], more: dict[str, Any]
) -> Iterator[Any]:
    """A worker's answers, and at the end, where it did not end well, why. Raises Problem where there are none."""
    run = Run(framework, folder / "worker", folder / "worker")  # its threads and folder
    task = {"framework": framework, "threads": run.threads, "operations": list(operations), **more}
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as answered:
        request.write(json.dumps(task).encode())
        request.seek(0)
        process = finished(command(setting, MODULE), run, None, stdin=request, stdout=answered)
        answered.seek(0)
        answers = list(_parsed(answered))
    if not answers:
        raise Problem(f"{framework} could not be measured: {process.reason}")
    yield from answers
    if process.status:
        yield process.reason


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The answers among the lines of a worker's output; the last may be cut."""
    for line in lines:
        if line.endswith(b"\n"):
            yield json.loads(line)
