"""The power of a comparison as a table: in the terminal, and as Markdown for docs/power.md."""

from __future__ import annotations

from collections.abc import Sequence

from polymae.compare.report.format import short
from polymae.compare.report.power import ENOUGH, EXACT
from polymae.compare.report.terminal import terminal_printer

from . import FAULTS
from .power import Power, Row

COLUMNS = ("fault", "where it is", "level", "smallest seen")


def print_power(found: Power) -> None:
    """Print every fault's margin in each framework, and what is wrong with the comparison, where anything is."""
    out = terminal_printer()
    frameworks = _frameworks(found)
    title = f"margin (error over limit) of each planted fault at its best level; at least {ENOUGH:g} is needed"
    rows = [
        [name, *(_cell(row) for row in _by_framework(rows, frameworks)), *_rest(rows)]
        for name, rows in _by_name(found).items()
    ]
    out.table(title, (COLUMNS[0], *frameworks, *COLUMNS[1:]), rows)
    for sentence in complaints(found):
        out.words("", sentence)
    out.words("", summary(found))


def markdown(found: Power) -> str:
    """The same as a page of documentation."""
    frameworks = _frameworks(found)
    columns = ("fault", "what the porter did", *frameworks, *COLUMNS[1:])
    models = {model for _, model, _ in found.correct}
    recorded = f"`{models.pop()}`" if len(models) == 1 else "a small model"
    lines = [
        "# What a comparison would notice",
        "",
        'Written by `make power ARGS="--markdown docs/power.md"`. Every fault is planted in every framework\'s own',
        f"code, recorded on {recorded}, and judged as anybody's run is. The number is its margin: its error over the",
        "limit, at the level where that is largest, end to end or of its operation alone. *exact*: what has to be equal and",
        f"is not, or a margin above {EXACT:.0e}. *notice*: no number of the run is wrong, the exit status is 0, and the report",
        "tells of it in a notice under the verdict, because it may spoil other runs. The last column is the smallest part of",
        "the fault (or of its size, where it has one) that would still be noticed in the worst framework, if the error is",
        "proportional to it; any: there is no limit below which it would pass.",
        "",
        summary(found),
        "",
        f"| {' | '.join(columns)} |",
        f"|{'|'.join('---' for _ in columns)}|",
    ]
    for name, rows in _by_name(found).items():
        cells = [name, FAULTS[name].about, *(_cell(row) for row in _by_framework(rows, frameworks)), *_rest(rows)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {sentence}" for sentence in complaints(found))]
    return "\n".join(lines).rstrip() + "\n"


def summary(found: Power) -> str:
    """One sentence with the counts."""
    caught = sum(row.passed for row in found.rows)
    right = len(found.correct) - len(found.false_alarms)
    told = sum(row.notice for row in found.rows)
    notices = f" ({told} of them by a notice alone)" if told else ""
    return (
        f"{caught} of {len(found.rows)} planted faults ({len(_by_name(found))} kinds) were noticed by at least "
        f"{ENOUGH:g} times their limit and at the right place{notices}; {right} of {len(found.correct)} correct runs "
        "were found correct."
    )


def complaints(found: Power) -> list[str]:
    """A sentence for every fault that was missed, noticed narrowly or at the wrong place, and for every false alarm."""
    said = []
    for row in found.rows:
        if row.problem and not row.margins:
            said.append(f"{row.framework}, {row.name}: not judged: {row.problem}")
        elif row.margin < ENOUGH:
            said.append(f"{row.framework}, {row.name}: margin {row.margin:.3g}, which is below {ENOUGH:g}")
        elif row.located_at != row.expected:
            said.append(f"{row.framework}, {row.name}: found at {row.located_at}, planted at {row.expected}")
    for framework, model, judgement in found.false_alarms:
        first = judgement.first_wrong
        where = f" at {first.name} ({first.ratio:.3g} of its limit)" if first else f": {judgement.problem}"
        said.append(f"{framework}, correct run of {model}: {judgement.verdict}{where}")
    return said


def _frameworks(found: Power) -> list[str]:
    return list(dict.fromkeys(row.framework for row in found.rows))


def _by_name(found: Power) -> dict[str, list[Row]]:
    named: dict[str, list[Row]] = {}
    for row in found.rows:
        named.setdefault(row.name, []).append(row)
    return named


def _by_framework(rows: Sequence[Row], frameworks: Sequence[str]) -> list[Row | None]:
    return [next((row for row in rows if row.framework == framework), None) for framework in frameworks]


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"  # it cannot be planted there
    if row.located_at != row.expected:
        return "misplaced" if row.located_at else "missed"
    if row.notice:
        return "notice"
    return "exact" if row.margin >= EXACT else short(row.margin)


def _rest(rows: Sequence[Row]) -> list[str]:
    worst = min(rows, key=lambda row: row.margin)
    smallest = max((row.smallest for row in rows if row.smallest is not None), default=None)
    if smallest is None:
        seen = "any"
    else:
        seen = f"{smallest:.1e}" if worst.size is not None else f"{smallest:.1e} of it"
    return [worst.expected, worst.level or "-", seen]
