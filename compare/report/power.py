"""The measured power that every page shows, power.json: the effects of planted faults on small models, in this version.

To measure it again: `make power ARGS="--remember"`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files.version import __version__

# The margin of unequal tensors that must be equal, and of tensors of another shape. (JSON knows no infinity.)
EXACT = 1e9
ENOUGH = 2.0  # the margin that every fault must have
PLACE = Path(__file__).with_name("power.json")
KEPT = ("name", "framework", "level", "margin", "located_at", "smallest")


def remember(rows: Sequence[Mapping[str, Any]], path: Path = PLACE) -> None:
    """Write the rows of `make power`, in the fields that the page shows.

    Of what few have, it stays where it says something: the size of a fault, that a notice alone told of it, and where
    it was planted if the report named another place.
    """
    kept = []
    for row in rows:
        extra = [name for name in ("size", "notice") if row.get(name)]
        extra += ["expected"] if row["expected"] != row["located_at"] else []
        kept.append({name: _rounded(row[name]) for name in (*KEPT, *extra)})
    lines = ",\n".join(
        json.dumps(row, allow_nan=False) for row in kept
    )  # a line each, so that a diff shows the changes
    path.write_text(f'{{"version": "{__version__}", "faults": [\n{lines}\n]}}\n', encoding="utf-8")


def remembered(path: Path = PLACE) -> dict[str, Any] | None:
    """The version that was measured, and a row for every fault and framework; None where nothing was."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _rounded(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value
