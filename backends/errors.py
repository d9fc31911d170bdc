"""The one kind of error a person can act on, and what is said of every other."""

import shlex
from pathlib import Path

REPORT_IT = "This should not happen: please report it"


class Problem(Exception):
    """Something the user can mend. The message says what was received, what was expected and what to do next.

    The command line prints it without a traceback and exits with status 2.
    """


def install_line(what: str) -> str:
    """What to type for a missing package: pip with requirements/<what>.txt, wherever this repository lies."""
    listed = Path(__file__).resolve().parents[1] / "requirements" / f"{what}.txt"
    if listed.is_file():
        return f"pip install -r {shlex.quote(str(listed))}"
    return f'pip install "polymae[{what}]"' if what != "core" else "pip install polymae"  # installed from a wheel
