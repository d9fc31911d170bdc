"""The one kind of error a person can act on, and the message for every other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

REPORT_IT = "This should not happen: please report it"
# The arguments of hub.load and open_checkpoint, by the options of the commands.
_IN_PYTHON = {"--prefix": "prefix=", "--from": "dialect=", "-m": "the model's name"}
_commands = 0  # that run in this process
# The kinds of problems that a program can treat each in its own way (docs/conversion.md).
Code = Literal[
    "no-such-file", "cannot-read", "cannot-write", "busy", "download",
    "truncated", "checksum", "damaged", "incomplete", "too-large", "runs-code", "unsupported", "not-a-checkpoint",
    "ambiguous", "unknown-model", "does-not-fit", "not-finite", "not-expressible", "bad-note", "bad-argument",
    "other",
]  # fmt: skip


class Problem(Exception):
    """Something the user can mend. The message gives the received value, the expected one and the next step.

    The command line prints it without a traceback and exits with status 2. `code` is the same for the same kind of
    problem in every version, whatever the words of the message are.
    """

    code: Code = "other"

    def __init__(self, *args: object, code: Code | None = None):
        super().__init__(*args)
        if code is not None:
            self.code = code


def facts(problem: BaseException, message: str) -> dict[str, object]:
    """A problem as JSON: {"code", "message", "problems"}, the last a list of every difference."""
    return {
        "code": problem.code if isinstance(problem, Problem) else "other",
        "message": message,
        "problems": list(getattr(problem, "problems", ())),
    }


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
