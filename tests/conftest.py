"""Which frameworks are under test: a missing one fails, it never skips."""

from __future__ import annotations

import os
import signal

import drawn
import pytest
from frameworks import frameworks_under_test
from order import longest_first
from untested import Untested

from polymae.backends.installing import installed
from polymae.backends.interpreters import FOLDER

# Helpers with fixtures that several files share.
pytest_plugins = ["checkpoints", "server", "downloads", "registered", "warm"]
drawn.register()
# Images of Python often set this, with which each of the hundreds of processes that tests start compiles its framework again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ[FOLDER] = os.devnull  # no environment that `polymae env` made on this machine
# A shell that runs the tests in the background has them ignore Ctrl-C, which the processes that tests stop would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Untested())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)


@pytest.fixture(params=frameworks_under_test())
def framework(request: pytest.FixtureRequest) -> str:
    """Every framework under test in turn."""
    name: str = request.param
    if not installed(name):
        pytest.fail(
            f"{name} is not installed, and a missing framework is a failure. `make setup` installs it; "
            "to test fewer on this machine, list them: POLYMAE_FRAMEWORKS=numpy,torch make test"
        )
    return name
