"""The one kind of error a person can act on, and what is said of every other."""

REPORT_IT = "This should not happen: please report it"


class Problem(Exception):
    """Something the user can mend. The message says what was received, what was expected and what to do next.

    The command line prints it without a traceback and exits with status 2.
    """
