"""The licences of published weights: each is shown once, at the first download under it."""

from __future__ import annotations

import json
from contextlib import suppress

from .receipts import home, say, write_json
from .registry import Published

# The meaning of a licence for the person who downloads.
MEANING = {"CC-BY-NC 4.0": "not for commercial use, and its authors are to be named"}


def in_words(licence: str) -> str:
    """A licence's name, with its meaning."""
    return f"{licence} ({MEANING[licence]})" if licence in MEANING else licence


def show_licence(row: Published) -> None:
    """Print the licence of weights, once in each cache."""
    path = home() / "licences-shown.json"
    try:
        shown = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        shown = None
    before = shown if isinstance(shown, list) else []
    if row.licence not in before:
        say(f"Licence of {row.name}: {in_words(row.licence)}. To cite: {row.citation}. This is said once.")
        with suppress(OSError):  # a cache that may only be read
            write_json(path, [*before, row.licence])
