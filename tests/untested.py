"""What was not tested, and how to get it: told at the very end of a run, and a failure in continuous integration."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from frameworks import frameworks_under_test

from polymae.backends import FRAMEWORKS


def skip(why: str, remedy: str) -> NoReturn:
    """Skip the test that runs. remedy: what to do so that it is not."""
    pytest.skip(f"{why}: {remedy}")


def skipped_where(condition: bool, why: str, remedy: str) -> pytest.MarkDecorator:
    """Marks tests that are skipped where a condition holds."""
    return pytest.mark.skipif(condition, reason=f"{why}: {remedy}")


def require(framework: str) -> None:
    """Skip the test that runs where a framework is not under test."""
    if framework not in frameworks_under_test():
        skip(f"POLYMAE_FRAMEWORKS does not list {framework}", "`make test` without that variable tests all of them")


def _reasons(reports: list[Any]) -> Counter[str]:
    """How many tests, or files of them, were skipped for each reason."""
    return Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)


def _told(reasons: Counter[str]) -> Iterator[str]:
    for reason, count in reasons.items():
        yield f"{count} {'test' if count == 1 else 'tests'} not run: {reason}"
    left_out = [name for name in FRAMEWORKS if name not in frameworks_under_test()]
    if left_out:
        yield f"nothing run with {', '.join(left_out)}: POLYMAE_FRAMEWORKS does not list them: `make test` without that variable"


class Untested:
    """A plugin of pytest: the lines are the last ones of a run, and fail it where CI is set."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        yield  # here the terminal says how many passed
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:  # a process of pytest-xdist's: the first one tells
            return
        if any(
            report.nodeid.startswith("tests/project/test_pythons.py::") for report in terminal.stats.get("passed", [])
        ):
            import pythons  # which needs what is here

            terminal.write_line(pythons.told())
        lines = list(_told(_reasons(terminal.stats.get("skipped", []))))
        for line in lines:
            terminal.write_line(line, yellow=True)
        if lines and os.environ.get("CI"):
            terminal.write_line("CI is set, and where it is, what is not run is a failure.", red=True)
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
