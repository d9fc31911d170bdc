"""The level weights: the model holds the bits of the checkpoint. A trace has their digests, not the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...backends.config import Config
from ...backends.spec import Tap
from ..limits.findings import Finding, Verdict
from .subject import Named, Subject


def taps(config: Config) -> Iterator[Tap]:
    """None: what is judged is in the manifest."""
    return iter(())


def record(subject: Subject) -> Iterator[Named]:
    """Nothing: the digests are in the manifest."""
    return iter(())


def judge(oracle: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[Finding]:
    """A finding for every parameter, from the manifests of two traces."""
    findings = []
    for name, digest in oracle["weights"].items():
        same = candidate["weights"].get(name) == digest
        reason = "same bits" if same else "the model holds other bits than the checkpoint"
        verdict: Verdict = "exact" if same else "fault"
        findings.append(Finding(f"weights/{name}", "weights", "load", verdict, float(not same), reason=reason))
    return findings
