"""The measurements, as a page of documentation: right ports and planted faults."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from polymae.compare.record.environment import processor

from .faults import FAULTS
from .judging import Run
from .settings import NETS

# Variables that choose the kernels of a library, or the number of their threads.
KERNELS = (
    "OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY",
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip


@dataclass
class Measured:
    """The runs of one framework, and why there are no more of them, where its process ended early."""

    runs: list[Run] = field(default_factory=list)
    problem: str = ""


def machine(frameworks: Iterable[str], environment: Mapping[str, str]) -> str:
    """Processor, versions and the variables that choose kernels, in two sentences."""
    packages = ", ".join(f"{name} {version(name)}" for name in dict.fromkeys(("numpy", "torch", *frameworks)))
    chosen = ", ".join(f"{name}={value}" for name in KERNELS if (value := environment.get(name)))
    return f"{processor()}, Python {platform.python_version()}, {packages}. Kernels: {chosen}."


def page(by_framework: Mapping[str, Measured], options: str, environment: Mapping[str, str]) -> str:
    """Tables of right ports and of faults, and all that is not as it should be; Markdown.

    environment: that in which the runs were made.
    """
    lines = [
        "# Your own models: false alarms and planted faults",
        "",
        f"Written by `benchmarks/own_models.py {options}`. {machine(by_framework, environment)}",
        "",
    ]
    if any(run.fault is None for measured in by_framework.values() for run in measured.runs):
        lines += [
            "Right ports, judged by `parity`. Ratios are error over limit: above 1 is a fault, where no kernel explains it.",
            "",
            "| framework | net | runs | roundoff | explained | called wrong | nearest to its limit |",
            "|---|---|---|---|---|---|---|",
            *(row for framework, measured in by_framework.items() for row in _right(framework, measured.runs)),
            "",
        ]
    if planted := [run for measured in by_framework.values() for run in measured.runs if run.fault]:
        counts = f"{sum(run.as_expected for run in planted)} of {len(planted)} runs"
        kinds = len({run.fault for run in planted})
        lines += [
            f"Planted faults: {counts} ({kinds} kinds) were found as they were planted. The number is the margin:",
            "error over limit where the fault is, the smallest of its seeds.",
            "",
            f"| fault | what the porter did | net | where it is | {' | '.join(by_framework)} |",
            f"|{'|'.join('---' for _ in range(4 + len(by_framework)))}|",
            *_faults(by_framework),
            "",
        ]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in complaints(by_framework))]).rstrip() + "\n"


def _right(framework: str, runs: Sequence[Run]) -> Iterable[str]:
    for net in NETS:
        of_net = [run for run in runs if run.net == net and run.fault is None]
        if of_net:
            verdicts = Counter(run.verdict for run in of_net)
            nearest = max(of_net, key=lambda run: run.nearest)
            counts = (len(of_net), verdicts["roundoff"] + verdicts["exact"], verdicts["explained"])
            wrong = sum(not run.as_expected for run in of_net)
            where = f"{nearest.nearest:.2f} (`{nearest.nearest_tap}`, seed {nearest.seed})"
            yield f"| {' | '.join([framework, net, *map(str, counts), str(wrong), where])} |"


def _faults(by_framework: Mapping[str, Measured]) -> Iterable[str]:
    for fault in FAULTS.values():
        runs = [[run for run in measured.runs if run.fault == fault.name] for measured in by_framework.values()]
        if any(runs):
            cells = [fault.name, fault.about, fault.net, fault.tap or "-", *map(_cell, runs)]
            yield f"| {' | '.join(cells)} |"


def _cell(runs: Sequence[Run]) -> str:
    if not runs:
        return "-"  # it cannot be planted there
    if wrong := [run for run in runs if not run.as_expected]:
        return "misplaced" if all(run.verdict == FAULTS[str(run.fault)].verdict for run in wrong) else "missed"
    margin = min(run.ratio for run in runs)
    return runs[0].verdict if not margin else f"{margin:.3g}" if margin < 1000 else f"{margin:.1e}"


def complaints(by_framework: Mapping[str, Measured]) -> list[str]:
    """A sentence for every false alarm, every fault that was missed or misplaced, and every process that failed."""
    problems = []
    for framework, measured in by_framework.items():
        for run in measured.runs:
            reason = run.reason.removeprefix(f"{framework}: ")
            if not run.as_expected and run.fault is None:
                problems.append(f"{framework}, {run.net}, seed {run.seed}: {reason}")
            elif not run.as_expected:
                fault = FAULTS[str(run.fault)]
                planted = f"planted at {fault.tap}" if fault.tap else f"it has to be {fault.verdict}"
                problems.append(f"{framework}, {fault.name}, seed {run.seed}: {reason}; {planted}")
        if measured.problem:
            problems.append(f"{framework}: {measured.problem}")
    return problems
