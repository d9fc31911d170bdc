"""The one kind of error a person can act on, and what is said of every other."""

from collections.abc import Iterator
from contextlib import contextmanager

REPORT_IT = "This should not happen: please report it"
# What the options of the commands are called where hub.load and open_checkpoint take them.
_IN_PYTHON = {"--prefix": "prefix=", "--from": "dialect=", "-m": "the model's name"}
_commands = 0  # that run in this process


class Problem(Exception):
    """Something the user can mend. The message says what was received, what was expected and what to do next.

    The command line prints it without a traceback and exits with status 2.
    """


@contextmanager
def command() -> Iterator[None]:
    """While it lasts, advice is for somebody who types a command."""
    global _commands
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1


def option(name: str) -> str:
    """An option as the person who reads a message gives it: of a command, or of a function."""
    return name if _commands else _IN_PYTHON[name]
