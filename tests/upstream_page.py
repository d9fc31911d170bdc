"""docs/upstream.md as data: its tables, the lines of their right columns, and the flags and settings with their rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from repository import ROOT

from polymae.training.reading import KINDS
from polymae.training.recipe import leaves

PAGE = "docs/upstream.md"
TEXT = (ROOT / PAGE).read_text()
PENDING = "not built yet"


class Table(NamedTuple):
    """A table of the page: the number of its first line, its head, and its rows, each a list of cells."""

    line: int
    head: list[str]
    rows: list[list[str]]


def tables(text: str) -> Iterator[Table]:
    table: Table | None = None
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else None
        if cells is None:
            table = None
        elif table is None:
            table = Table(number, cells, [])
            yield table
        elif not set(cells[0]) <= {"-"} or not cells[0]:
            table.rows.append(cells)


def words_in(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


TABLES = list(tables(TEXT))
PAIRS = [(row[0], row[1]) for table in TABLES if table.head == ["there", "here"] for row in table.rows]
LINES = [line for _, here in PAIRS if re.match("`(polymae|convert_weights) ", here) for line in words_in(here)]
FLAGS = {table.head[1]: table for table in TABLES if table.head[0] == "flag"}
SETTINGS = [row for table in TABLES if table.head[0].startswith("setting of") for row in table.rows]


def known(task: str) -> set[str]:
    return {name.rpartition(".")[2] for name, _ in leaves(KINDS[task])}


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


def settings_of(words: list[str]) -> list[str]:
    """What follows --set."""
    found: list[str] = []
    for word in words[words.index("--set") + 1 :] if "--set" in words else ():
        if word.startswith("--"):
            break
        found.append(word)
    return found
