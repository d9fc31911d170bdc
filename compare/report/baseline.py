"""A report beside an older one of the same model and inputs: the findings that became better or worse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...files.errors import Problem
from ..limits.findings import SEVERITY, Finding, Judgement
from ..limits.tolerance import kappa
from ..options import LEVELS
from .format import short
from .report import KINDS, Against, Change, Report

RATIO = 1.5  # of two errors of a large tensor, below which the difference is noise


def against(report: Report, older: Report, source: str) -> Against:
    """The changes since an older report. Raises Problem where it is of another model, weights or inputs."""
    _require_same(report, older, source)
    ours = {judgement.label: judgement for judgement in report.judgements}
    theirs = {judgement.label: judgement for judgement in older.judgements}
    changes = []
    for label in dict.fromkeys((*ours, *theirs)):
        if label not in theirs or label not in ours:
            changes.append(Change(label, "new" if label in ours else "gone", "", "", "", ""))
            continue
        before, after = older.verdict(theirs[label]), report.verdict(ours[label])
        if before != after:
            changes.append(Change(label, "verdict", "", before, after, _direction(before, after)))
        changes += _levels(label, theirs[label], ours[label])
        changes += _tensors(label, theirs[label], ours[label], set(older.levels) & set(report.levels))
    return Against(source, sorted(changes, key=_rank))


def _rank(change: Change) -> tuple[bool, int, bool, bool, float]:
    """A verdict that became worse first, then all else that did.

    Of the tensors those with another verdict first, in the order of computation; of the others the largest ratio.
    """
    other = change.before.split(",")[0] != change.after.split(",")[0]
    size = 0.0 if change.kind == "tensor" and other else -change.ratio
    return change.direction != "worse", KINDS.index(change.kind), change.direction != "better", not other, size


def _require_same(report: Report, older: Report, source: str) -> None:
    fields = {
        "model": (report.about.model, older.about.model),
        "weights (their content hash)": (report.about.content_hash, older.about.content_hash),
        "mask ratio": (report.about.mask_ratio, older.about.mask_ratio),
        "oracle": (report.oracle, older.oracle),
        **{f"setting {name}": (report.config.get(name), older.config.get(name)) for name in report.config},
        **{f"input {name}": (value, older.digests.get(name)) for name, value in report.digests.items()},
    }
    for name, (now, then) in fields.items():
        if now != then:
            raise Problem(
                f"{source} is of another run: its {name} is {str(then)[:60]}, this one's {str(now)[:60]}; "
                "compare with a report of the same model, weights and inputs."
            )


def _direction(before: str, after: str) -> str:
    return "worse" if SEVERITY.index(after) > SEVERITY.index(before) else "better"


def _levels(label: str, before: Judgement, after: Judgement) -> Iterator[Change]:
    """Levels whose tensors, at the median, moved by more than the noise of one of them."""
    old = {finding.name: finding for finding in before.findings}
    for level in LEVELS:
        shared = [finding for finding in after.findings if finding.level == level and finding.name in old]
        measured = [finding for finding in shared if finding.limit and old[finding.name].limit]
        ratios = [_ratio(old[finding.name], finding) for finding in measured]
        ratio = float(np.median(ratios)) if ratios else 1.0
        size = int(np.median([finding.size for finding in measured])) if measured else 1
        if not 1 / _noise(size) <= ratio <= _noise(size):
            way = "worse" if ratio > 1 else "better"
            median = [float(np.median([item.error for item in (old[f.name] for f in measured)]))]
            median.append(float(np.median([finding.error for finding in measured])))
            before_text, after_text = (f"median E {short(value)} u" for value in median)
            yield Change(label, "level", level, before_text, after_text, way, ratio)


def _tensors(label: str, before: Judgement, after: Judgement, levels: set[str]) -> Iterator[Change]:
    old = {finding.name: finding for finding in before.findings if finding.level in levels}
    new = {finding.name: finding for finding in after.findings if finding.level in levels}
    for name in dict.fromkeys((*new, *old)):
        if name not in old or name not in new:
            yield Change(label, "new" if name in new else "gone", name, "", "", "")
            continue
        was, now = old[name], new[name]
        ratio = _ratio(was, now) if was.limit and now.limit else 1.0
        if _differ(was.verdict, now.verdict):
            yield Change(label, "tensor", name, _said(was), _said(now), _direction(was.verdict, now.verdict), ratio)
        elif not 1 / _noise(now.size) <= ratio <= _noise(now.size):
            yield Change(label, "tensor", name, _said(was), _said(now), "worse" if ratio > 1 else "better", ratio)


def _differ(before: str, after: str) -> bool:
    """Whether a verdict changed; from exact to roundoff is no more than luck."""
    lucky = {"exact", "roundoff"}
    return before != after and not {before, after} <= lucky


def _ratio(before: Finding, after: Finding) -> float:
    """Of two errors; below one unit of roundoff an error is luck."""
    return max(after.error, 1.0) / max(before.error, 1.0)


def _noise(size: int) -> float:
    """The ratio up to which two errors of a tensor of so many elements are the same."""
    return kappa(size, RATIO)


def _said(finding: Finding) -> str:
    return (
        f"{finding.verdict}, E {short(finding.error)} u of {short(finding.limit)}" if finding.limit else finding.verdict
    )
