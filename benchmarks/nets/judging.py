"""The process of one framework: its right ports and those with planted faults, judged by `parity` against PyTorch in float64.

python -m nets.judging FRAMEWORK OUT REQUEST: the file REQUEST lists, as JSON, runs of the form [net, seed, fault or null]; OUT
gets a line for each, a Run as JSON. One framework beside PyTorch in a process, imported before it.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from polymae.compare import Parity, parity

from .faults import FAULTS
from .planting import PORTS
from .settings import NETS


@dataclass(frozen=True)
class Run:
    """The verdict on one run of a port.

    fault: the name of the planted one; None: the port is right. first: the tensor that is wrong first, and ratio its error
    over its limit; empty and 0 where none is. nearest: the largest error over limit of any tensor, at nearest_tap.
    """

    net: str
    seed: int
    fault: str | None
    verdict: str
    reason: str
    first: str
    ratio: float
    nearest: float
    nearest_tap: str

    @property
    def as_expected(self) -> bool:
        """Whether a right port was judged right, or a fault noticed at its place."""
        if self.fault is None:
            return self.verdict in ("exact", "roundoff", "explained")
        fault = FAULTS[self.fault]
        return (self.verdict, self.first) == (fault.verdict, fault.tap) and fault.incomparable in self.reason


def judged(framework: str, net_name: str, seed: int, fault_name: str | None = None) -> Run:
    """One run, judged as a user judges a port; imports the framework."""
    net, fault = NETS[net_name], FAULTS[fault_name] if fault_name else None
    ports = fault.port(framework) if fault else importlib.import_module(PORTS[framework])
    port = getattr(ports, net.function)
    reference = getattr(importlib.import_module("nets.torch_nets"), net.function)
    result = parity(
        reference,
        (lambda inputs: port(fault.spoilt(inputs))) if fault else port,
        net.inputs(seed),
        net.taps,
        gradients=net.gradients,
        label=framework,
        environment={"framework": framework, "version": sys.modules[framework].__version__, "device": "cpu"},
    )
    return _run(net_name, seed, fault_name, result)


def _run(net: str, seed: int, fault: str | None, result: Parity) -> Run:
    first = result.first_wrong
    ratios = [(finding.error / finding.limit, finding.name) for finding in result.findings if finding.limit]
    nearest, tap = max(ratios, default=(0.0, ""))
    name, ratio = (first.name, first.ratio) if first else ("", 0.0)
    return Run(net, seed, fault, result.verdict, result.reason, name, ratio, nearest, tap)


def main(framework: str, out: str, request: str) -> None:
    """Judge the requested runs, and write a line for each as it is done."""
    with Path(out).open("w", encoding="utf-8") as lines:
        for net, seed, fault in json.loads(Path(request).read_text(encoding="utf-8")):
            print(json.dumps(asdict(judged(framework, net, seed, fault))), file=lines, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
