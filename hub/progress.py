"""The progress of a download, on stderr: a bar in a terminal, else a line at its start and at its end."""

from __future__ import annotations

import sys


def amount(size: float) -> str:
    """Bytes as a person reads them: "449.0 MB"."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


class Display:
    """Shows one download. A context manager: at its end the terminal is as before."""

    def __init__(self, name: str, host: str) -> None:
        self.name, self.host, self.begun, self.bar = name, host, False, None
        if sys.stderr.isatty():
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
            self.bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task(escape(name), total=None, visible=False)

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
            self.bar.reset(self.task, completed=start, visible=True)
            self.bar.update(self.task, total=total)
            self.bar.start()
        self.begun = True

    def wait(self, text: str) -> None:
        """One line, and nothing that moves, until bytes come again."""
        if self.bar:
            self.bar.update(self.task, visible=False)
        self.say(text)

    def at(self, length: int) -> None:
        """So many bytes have come."""
        if self.bar:
            self.bar.update(self.task, completed=length)

    def end(self, length: int) -> None:
        """All of it has come, and is right."""
        if self.bar:
            self.bar.stop()
        if self.begun:
            self.say(f"downloaded {self.name}, {amount(length)}")
