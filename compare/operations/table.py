"""The table of inaccurate kernels, docs/benchmarks/operations.md, as the command that measured them writes it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ...backends.operations import OPERATIONS, PRODUCTS
from ..judge.kernels import holds
from ..profile import NOTABLE
from ..record.environment import processor
from .measure import LEAST, Measured
from .profile import Profile
from .rows import SAME, VERSION, Judged

WIDTH = 124  # of a paragraph
LEGEND = (
    "E = ||x - o|| / (u ||o||), u = 2^-24, of an operation's output or of its gradients (backward), on the inputs where it is "
    f"largest. A kernel is listed where E is above {LEAST:g} u and above {NOTABLE:g} times that of the accurate kernels on the "
    "same inputs (others: the better of PyTorch's and NumPy's float32). The oracle o is NumPy's float64, and PyTorch's for what "
    "NumPy lacks. Bias is the part of E that one factor would mend. Sums of products are not listed: their order is free, and "
    "limits allow for it. Typical is the E that is not exceeded on three of four inputs: that explains an error, and the largest "
    f"is told beside a fault. Where nothing stands under depends on, E is the same, within {SAME:g} times, with all kernels."
)

Row = dict[str, Any]


def markdown(profile: Profile, judgement: Judged, command: str) -> str:
    """The whole page. command: which wrote it."""
    return "\n".join(
        [*_head(profile, command), *_notable(profile, judgement), *_wrong(judgement), *_kernels(profile), ""]
    )


def depends_on(row: Row) -> str:
    """The causes of an error, in words: nothing where it is the version alone."""
    depends = row["depends_on"]
    if depends == VERSION:
        return ""
    return "; ".join(f"{library}: {', '.join(kernels)}" for library, kernels in depends.items())


def _head(profile: Profile, command: str) -> Iterator[str]:
    frameworks = [
        f"{name} {environment['version']}{_ran(environment.get('kernels', {}))}"
        for name, environment in profile.environments.items()
    ]
    yield from (
        "# Inaccurate kernels",
        "",
        *textwrap.wrap(f"Written by `{command}` on {processor()}, one thread: {', '.join(frameworks)}.", WIDTH),
        "",
        *textwrap.wrap(LEGEND, WIDTH),
    )


def _ran(kernels: dict[str, str]) -> str:
    return f" ({', '.join(f'{library} {kernel}' for library, kernel in kernels.items() if kernel)})" if kernels else ""


def _notable(profile: Profile, judgement: Judged) -> Iterator[str]:
    for framework in profile.frameworks:
        rows = [row for row in judgement.notable if row["framework"] == framework]
        if framework == "numpy":
            continue
        yield from ("", f"## {framework} {profile.environments[framework]['version']}", "")
        absent = ", ".join(f"{name} ({why})" for name, why in profile.absent[framework].items())
        if absent:
            yield from (*textwrap.wrap(f"Not there: {absent}.", WIDTH), "")
        if not rows:
            yield "None."
            continue
        yield "| operation | E | typical | others | bias | inputs | depends on | E in float64 |"
        yield "|---|---|---|---|---|---|---|---|"
        for row in rows:
            double = row.get("float64")
            cells = [
                row["operation"],
                *(f"{row[key]:g}" for key in ("error", "typical", "others", "bias")),
                row["inputs"],
            ]
            yield f"| {' | '.join([*cells, depends_on(row), '' if double is None else f'{double:.2g}'])} |"
        accepted = [row for row in rows if "accepted" in row]
        if accepted:
            yield ""
        for row in accepted:
            yield f"- {row['operation']}: {row['accepted']}"


def _wrong(judgement: Judged) -> Iterator[str]:
    if judgement.wrong:
        yield from (
            "",
            "## Wrong, and not remembered",
            "",
            "| framework | operation | inputs | why |",
            "|---|---|---|---|",
        )
    for row in judgement.wrong:
        operation = row["operation"] + (f" (gradient of {row['of']})" if "of" in row else "")
        yield f"| {row['framework']} {row['version']} | {operation} | {row['inputs']} | {row['why']} |"


def _kernels(profile: Profile) -> Iterator[str]:
    """The changes by other kernels: the range of E of every product, and of which operations the bits are others."""
    frameworks = [name for name in profile.frameworks if name != "numpy"]
    if not profile.settings:
        return
    tried = textwrap.wrap(f"Measured under: {'; '.join(_variables(profile))}.", WIDTH)
    yield from ("", "## Under other kernels", "", *tried, "")
    if products := [name for name in OPERATIONS if name in PRODUCTS and name in profile.operations]:
        yield from ("Sums of products, E of the output, from the best kernels to the worst (as it is):", "")
        yield f"| operation | {' | '.join(frameworks)} |"
        yield f"|---|{'---|' * len(frameworks)}"
        for operation in products:
            yield f"| {operation} | {' | '.join(_range(profile, framework, operation) for framework in frameworks)} |"
        yield ""
    yield from (
        f"Other operations whose bits change; bold: E is above {LEAST:g} u and changes more than {SAME:g} times:",
        "",
    )
    yield "| framework | library | operations |"
    yield "|---|---|---|"
    for framework in frameworks:
        for library in dict.fromkeys(setting.library for setting in profile.settings):
            names = [one.name for one in profile.settings if one.library == library]
            names = [name for name in names if (framework, name) in profile.measured]
            if names:
                yield f"| {framework} | {library} | {', '.join(_changed(profile, framework, names)) or 'none'} |"
    for (framework, setting), why in profile.failed.items():
        yield f"| {framework} | {setting} | could not be measured: {why} |"


def _variables(profile: Profile) -> list[str]:
    return [" ".join(f"{name}={value}" for name, value in one.variables.items()) for one in profile.settings]


def _range(profile: Profile, framework: str, operation: str) -> str:
    sizes: dict[str, float] = {}
    for (one, setting), listed in profile.measured.items():
        errors = [m.error for m in listed if m.operation == operation and not m.problem]
        if one == framework and errors:
            sizes[setting] = max(errors)
    if not sizes:
        return "-"
    return f"{min(sizes.values()):.2g} to {max(sizes.values()):.2g} ({sizes['']:.2g})"


def _changed(profile: Profile, framework: str, settings: Sequence[str]) -> list[str]:
    """Operations, but products, whose bits differ between these settings and the kernels that are taken by themselves."""
    groups = [_by_place(profile.measured[framework, name]) for name in ("", *settings)]
    changed: dict[str, bool] = {}
    for place, one in groups[0].items():
        name = place[0]
        rows = [group[place] for group in groups if place in group and not group[place].problem]
        if name.removesuffix(" backward") in PRODUCTS or len({other.digest for other in rows}) < 2:
            continue
        errors = [other.error for other in rows]
        much = max(errors) > max(LEAST, SAME * min(errors))
        changed[name] = changed.get(name, False) or (much and not one.problem)
    return [f"**{name}**" if much else name for name, much in changed.items()]


def _by_place(listed: Sequence[Measured]) -> dict[tuple[str, str, str], Measured]:
    return {(one.operation, one.argument, one.inputs): one for one in listed}


def matrix(profile: Profile, judgement: Judged) -> tuple[list[str], list[list[str]]]:
    """For the terminal: the frameworks, and for each operation its largest error in each, with a star where notable."""
    frameworks = [name for name in profile.frameworks if name != "numpy"]
    by_place: dict[tuple[str, str], list[Row]] = {}
    for row in judgement.rows:
        by_place.setdefault((row["framework"], row["operation"]), []).append(row)
    wrong = {(row["framework"], row["operation"]) for row in judgement.wrong}
    table = []
    for operation in dict.fromkeys(row["operation"] for row in (*judgement.rows, *judgement.wrong)):
        cells = [operation]
        for framework in frameworks:
            rows = by_place.get((framework, operation), [])
            ran = profile.environments[framework].get("kernels", {})
            here = next((row for row in rows if holds(row["depends_on"], ran)), rows[0] if rows else None)
            cell = "-" if here is None else f"{here['error']:g}{' *' if here['notable'] else ''}"
            cells.append(f"{cell}{' wrong' if (framework, operation) in wrong else ''}".removeprefix("- "))
        table.append(cells)
    return frameworks, table
