"""The limits of a comparison, in words: a verdict says nothing about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...backends import DEVICES, FRAMEWORKS
from ...backends.config import MAEConfig
from ..limits.findings import Judgement
from ..options import LEVELS
from ..trace import Trace

SCHEDULE = (
    "whether your own decay groups and learning rates are these: every framework has PolyMAE's, "
    "which tests hold against timm's rule and the paper's formula"
)
DTYPES = ("float32", "float64", "float16", "bfloat16")


def not_compared(
    oracle: Trace, traces: Mapping[str, Trace], judgements: Sequence[Judgement], levels: Sequence[str]
) -> list[str]:
    """A phrase for each level, tensor, framework and code path that no verdict is about.

    traces: of the candidates that could be opened, by label; judgements: of all of them.
    """
    phrases = []
    judged = {finding.level for judgement in judgements for finding in judgement.findings}
    models = {str(trace.manifest["framework"]) for trace in traces.values()}
    if models == {str(oracle.manifest["framework"])}:
        name = "NumPy" if models == {"numpy"} else oracle.label
        phrases.append(f"whether the {name} model is right: oracle and candidate are the same code")
    if absent := [level for level in LEVELS if level not in judged or level not in levels]:
        phrases.append(f"the levels {', '.join(absent)}")
    if missing := [name for name in FRAMEWORKS if name not in models]:
        phrases.append(f"the frameworks {', '.join(missing)}")
    for label, trace in traces.items():
        if patterns := trace.manifest.get("taps"):
            phrases.append(f"{label}'s tensors other than {', '.join(patterns)}")
    for judgement in judgements:
        if not judgement.findings:
            phrases.append(f"anything of {judgement.label}")
        elif judgement.coverage:
            lacking = len(judgement.coverage)
            phrases.append(f"{lacking} tensors or levels of {judgement.label} that are missing or unknown")
    manifests = [trace.manifest for trace in traces.values()] or [oracle.manifest]
    used = {
        str(manifest["environment"].get("device", manifest.get("device", "cpu"))).split(":")[0]
        for manifest in manifests
    }
    phrases.append(f"devices other than {_and(used)} ({', '.join(name for name in DEVICES if name not in used)})")
    types = {str(manifest["dtype"]) for manifest in manifests}
    phrases.append(f"types other than {_and(types)} ({', '.join(name for name in DTYPES if name not in types)})")
    return phrases + _paths(oracle, judgements, levels)


def _paths(oracle: Trace, judgements: Sequence[Judgement], levels: Sequence[str]) -> list[str]:
    """Code paths of the model that no run went through."""
    config, phrases = oracle.config, []
    tensors = {finding.name for judgement in judgements for finding in judgement.findings}
    ratio = oracle.manifest["mask_ratio"]
    if isinstance(config, MAEConfig):
        injected = sorted(
            {name.split("/")[1] for name in tensors if name.startswith("injected/") and name.count("/") == 2}
            - {f"{ratio:g}"}
        )
        also = f" (the losses also at {', '.join(injected)})" if injected else ""
        phrases.append(f"mask ratios other than {ratio:g}{also}")
        if "gradients" in levels:
            kind = "pixels" if config.norm_pix_loss else "normalised patches (--norm-pix-loss)"
            phrases.append(f"gradients of the loss of {kind}")
    if "input/imgs" in oracle:
        phrases.append(f"batches other than of {len(oracle['input/imgs'])}")
    if any(name.startswith("preprocessed/") for name in tensors):
        phrases.append("whether your own preprocessing gives these numbers: every framework runs PolyMAE's")
    elif "inputs" in levels:
        phrases.append("the preprocessing of image files")
    if small := [level for level in ("optimizer", "curve") if any(_is_of(j, level) for j in judgements)]:
        phrases.append(f"{' and '.join(small)} of the full model: a small one of its family was trained")
        phrases.append(SCHEDULE)
    return phrases


def suspect_oracle(oracle: Trace, judgements: Sequence[Judgement]) -> None:
    """Add a notice where frameworks other than the oracle's are first wrong at the same tensor.

    They share no code with one another: more likely than the same mistake in all of them is one in the oracle.
    """
    first: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        if wrong := judgement.first_wrong:
            first.setdefault(wrong.name, []).append(judgement)
    for name, same in first.items():
        others = {str(j.environment.get("framework", j.label)) for j in same} - {oracle.manifest["framework"]}
        if len(others) > 1:
            for judgement in same:
                judgement.notices.append(
                    f"{', '.join(sorted(others))} are first wrong at {name}: the oracle itself is suspect"
                )


def _is_of(judgement: Judgement, level: str) -> bool:
    return any(finding.level == level for finding in judgement.findings)


def _and(names: Any) -> str:
    return " and ".join(sorted(names))
