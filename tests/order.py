"""The longest files of tests start first: the other processes would wait for one that starts last."""

from __future__ import annotations

from pathlib import Path

import pytest

# Those of more than half a minute of processor time, the longest first (`make test` prints the slowest tests).
LONGEST = (
    "project/test_pythons.py",
    "compare/test_faults.py",
    "compare/test_preflight.py",
    "compare/test_parity.py",
    "project/test_docs.py",
    "backends/test_training.py",
    "training/test_killed_runs.py",
    "training/test_finetune.py",
    "training/test_pretrain.py",
    "backends/test_training_mindspore.py",
)
TESTS = Path(__file__).parent


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files in front of the others; all stay in their order otherwise."""
    place = {TESTS / path: number for number, path in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))
