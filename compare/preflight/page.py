"""A preflight on one page: in the terminal, and as HTML in the style of the parity report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ...files.atomic import replacing
from ...files.errors import Problem
from ..report.html import stylesheet
from ..report.terminal import terminal_printer
from ..trace import require_folder
from .result import Preflight, Verdict

PAGE, NUMBERS = "preflight.html", "preflight.json"
MARKS: dict[Verdict, str] = {"passed": "✓", "failed": "✗", "could not run": "?", "measured": "·"}
# The classes that the parity report's style has for verdicts.
_STYLES: dict[Verdict, str] = {"passed": "exact", "failed": "fault", "could not run": "not", "measured": "measured"}


def print_preflight(result: Preflight, written: Sequence[Path] = ()) -> None:
    """Print every check with its reason, and the outcome as the last words."""
    printer = terminal_printer()
    printer.words("", ", ".join(f"{name} {value}" for name, value in result.subject.items()))
    width = max(len(check.name) for check in result.checks)
    for check in result.checks:
        printer.words(f"{MARKS[check.verdict]} {check.name:<{width}}  ", _with_verdict(check.verdict, check.reason))
    printer.words("", f"{result.headline} ({result.seconds:.0f} s)")
    if written:
        printer.words("", "  ".join(map(str, written)), whole=True)


def _with_verdict(verdict: Verdict, reason: str) -> str:
    return reason if verdict in ("passed", "measured") else f"{verdict.upper()}: {reason}"


def require_page(folder: Path) -> None:
    """Raise Problem, before anything is tried, where the page could not be written."""
    require_folder(folder)
    try:
        import_module("jinja2")
    except ImportError:
        raise Problem(f"{PAGE} needs jinja2: pip install jinja2, or leave --out away and take --json.") from None


def write_files(result: Preflight, folder: Path) -> list[Path]:
    """Write preflight.html and preflight.json; returns their paths."""
    from jinja2 import Environment, PackageLoader

    folder.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=PackageLoader(str(__package__), ".")
    )
    page = environment.get_template(PAGE).render(result=result, style=stylesheet(), marks=MARKS, styles=_STYLES)
    written = []
    for name, text in ((PAGE, page), (NUMBERS, json.dumps(result.as_dict(), indent=1) + "\n")):
        with replacing(folder / name) as new:
            new.write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written
