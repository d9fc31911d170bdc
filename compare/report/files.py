"""A report's files: report.html and report.json in a folder, JUnit XML and Markdown on request."""

from __future__ import annotations

import sys
from pathlib import Path

from ...backends.installing import install_line
from ...files.atomic import replacing
from ...files.errors import Problem
from ..trace import require_folder
from .html import missing_libraries, write_page
from .junit import as_junit
from .markdown import as_markdown
from .report import Report


def require_places(out: Path | None, junit: Path | None, markdown: Path | None) -> None:
    """Raise Problem, before the work and not after it, where one of the files could not be written."""
    if out:
        require_folder(out)
    for path in (junit, markdown):
        if path and path.is_dir():
            raise Problem(f"{path} is a folder; give the name of a file in it.")
        if path:
            require_folder(path.parent)


def write_files(report: Report, out: Path | None, junit: Path | None, markdown: Path | None) -> list[Path]:
    """Write the requested files, and return those in `out`.

    Where a library for the page is missing, say so and leave it out, an older one included: JSON has it all.
    """
    if junit:
        _write(junit, as_junit(report))
    if markdown:
        _write(markdown, as_markdown(report))
    if out is None:
        return []
    _write(out / "report.json", report.as_json())
    if absent := missing_libraries():
        (out / "report.html").unlink(missing_ok=True)
        print(f"No report.html: it needs {', '.join(absent)} ({install_line('core')}).", file=sys.stderr)
        return [out / "report.json"]
    write_page(report, out / "report.html")
    return [out / "report.html", out / "report.json"]


def _write(path: Path, text: str) -> None:
    if path.exists() and not path.is_file():  # /dev/stdout is written to, and not replaced
        path.write_text(text, encoding="utf-8")
        return
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def read_report(path: Path) -> Report:
    """An older report.json. Raises Problem for anything else."""
    try:
        return Report.from_json(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise Problem(f"No report {path}; give the report.json that polymae compare --out wrote.") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise Problem(f"Cannot read {path} ({problem}); give a report.json of polymae compare.") from None
