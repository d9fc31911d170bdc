"""What a person sees of a download, on stderr: a bar in a terminal, else a line at its start and at its end."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def amount(size: float) -> str:
    """Bytes as a person reads them: "449.0 MB"."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


class Display:
    """Shows one download. A context manager: whatever happens, the terminal is as before."""

    def __init__(self, name: str, host: str) -> None:
        self.name, self.host, self.begun = name, host, False
        self.bar = _bar(name)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, text: str) -> None:
        """One line, above the bar."""
        if self.bar:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def begin(self, start: int, total: int | None) -> None:
        """Bytes come now, from `start` on, of `total` (None: unknown)."""
        of = f", {amount(total)}" if total is not None else ""
        going_on = f", resuming at {100 * start // total} %" if start and total else ""
        if going_on or not self.begun:
            self.say(f"downloading {self.name}{of}, from {self.host}{going_on} ...")
        if self.bar:
            # Anew: its speed is not that of an earlier connection, or of the time between two.
            self.bar.reset(self.bar.task_ids[0], completed=start, visible=True)
            self.bar.update(self.bar.task_ids[0], total=total)
            self.bar.start()
        self.begun = True

    def wait(self, text: str) -> None:
        """One line, and nothing that moves, until bytes come again."""
        if self.bar:
            self.bar.update(self.bar.task_ids[0], visible=False)
        self.say(text)

    def at(self, length: int) -> None:
        """So many bytes are there."""
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=length)

    def end(self, length: int) -> None:
        """All of it is there, and right."""
        if self.bar:
            self.bar.stop()
        if self.begun:
            self.say(f"downloaded {self.name}, {amount(length)}")


def _bar(name: str) -> Progress | None:
    """A bar that is not yet shown; None where stderr is no terminal, or Rich is not installed."""
    if not sys.stderr.isatty():
        return None
    with suppress(ImportError):
        from rich import progress
        from rich.console import Console
        from rich.markup import escape

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        bar.add_task(escape(name), total=None, visible=False)
        return bar
    return None
