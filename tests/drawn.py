"""How many examples the tests draw that draw them: some in `make test`, the same everywhere; many more in `make test-long`.

An example that was once found to fail stays as a test of its own, since neither would find it again for sure.
"""

from __future__ import annotations

from frameworks import frameworks_under_test
from hypothesis import HealthCheck, settings

USUAL = 100  # what a profile counts for one
TIMES = 30  # as many in `make test-long`


def register() -> None:
    """The two profiles, `usual` and `long` (--hypothesis-profile), whatever Hypothesis makes of the variable CI."""
    settings.register_profile(
        "usual", settings.get_profile("default"), max_examples=USUAL, derandomize=True, database=None, deadline=None,
        print_blob=True, suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    settings.register_profile("long", settings.get_profile("usual"), max_examples=TIMES * USUAL, derandomize=False)
    settings.load_profile("usual")


def count(usual: int) -> int:
    """How many to draw where `usual` are drawn in `make test`."""
    return usual * settings.default.max_examples // USUAL


def examples(usual: int) -> settings:
    """The same as a decorator of a Hypothesis test."""
    return settings(max_examples=count(usual))


def few() -> tuple[str, ...]:
    """NumPy and PyTorch of the frameworks under test, for what all share; in `make test-long` all (mark the test `drawn`)."""
    tested = frameworks_under_test()
    return tested if count(1) > 1 else tuple(name for name in tested if name in ("numpy", "torch")) or tested
