"""Which frameworks are under test."""

from __future__ import annotations

import os

import pytest

from polymae.backends import FRAMEWORKS


def frameworks_under_test() -> tuple[str, ...]:
    """Those that POLYMAE_FRAMEWORKS lists ("torch,oneflow"), else all; in CI always all, so that it cannot pass by
    testing less."""
    listed = os.environ.get("POLYMAE_FRAMEWORKS")
    if os.environ.get("CI") or listed is None:
        return FRAMEWORKS
    names = tuple(dict.fromkeys(name.strip() for name in listed.split(",") if name.strip()))
    unknown = [name for name in names if name not in FRAMEWORKS]
    if unknown or not names:
        raise pytest.UsageError(
            f"POLYMAE_FRAMEWORKS={listed!r}: it must list some of {', '.join(FRAMEWORKS)}, separated by commas."
        )
    return names
