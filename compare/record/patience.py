"""When to give up on a process: one that does nothing hangs; one that computes is only slow, whatever else the machine does.

Real time tells the two apart on an idle machine alone (docs/decisions/patience.md).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SILENCE = 300.0  # seconds without work, one after the other, of a process that waits in vain
COMPUTING = 3600.0  # seconds of work, on one core or more, of a process that does not end
_NOTHING = 0.01  # of a core is no work: threads that look now and then whether there is any need as much
_LEAST = 0.1  # of the time counts as work at least, where there was any: nothing goes on for ever
_WINDOW = 5.0  # seconds between two looks at the processor time, which is counted in hundredths of a second
_POLL = 0.2  # seconds between two looks whether a process has ended


class GivenUp(Exception):
    """A process was ended because it would not have come to an end; the message says why, and no more."""


@dataclass
class Patience:
    """With the processes of one session, from now on.

    session: the number of the process that leads it (subprocess.Popen(start_new_session=True)). limit: seconds of real
    time, which then are all that counts; None: SILENCE and COMPUTING. worked and clock give seconds.
    """

    session: int
    limit: float | None = None
    silence: float = SILENCE
    computing: float = COMPUTING
    window: float = _WINDOW
    worked: Callable[[int], float] = field(default_factory=lambda: processor_time)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._began = self._looked = self.clock()
        self._used = self._silent = self._computed = 0.0

    @property
    def left(self) -> float:
        """Seconds of real time until the next look is due."""
        due = self._looked + self.window if self.limit is None else self._began + self.limit
        return max(0.0, due - self.clock())

    def over(self) -> str:
        """Why the processes are to be ended now; "" as long as they are not."""
        if self.left:
            return ""
        if self.limit is not None:
            return f"no result within {self.limit:g} s"
        now, used = self.clock(), self.worked(self.session)
        # Of a time in which nobody looked, as where the machine slept, nothing is known.
        passed = min(now - self._looked, 2 * self.window)
        worked = max(0.0, used - self._used)  # a child that nobody waited for takes its seconds with it
        if worked < _NOTHING * passed:
            self._silent += passed
        else:
            self._silent = 0.0
            self._computed += min(passed, max(worked, _LEAST * passed))
        self._looked, self._used = now, used
        if self._silent >= self.silence:
            return f"it did nothing for {self.silence:g} s"
        if self._computed >= self.computing:
            return f"no result after {self.computing:g} s of computing"
        return ""


def processor_time(session: int) -> float:
    """Seconds that the processes of a session have used so far, with those of their children that have ended."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it has just ended
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def run_patiently(
    command: Sequence[str | os.PathLike[str]],
    time_limit: float | None = None,
    stop: threading.Event | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """As subprocess.run(command, capture_output=True, **options), in a session of its own, which ends where this is left.

    time_limit: seconds of real time; None: as long as it gets on. stop: set by another thread, it ends the command.
    Raises GivenUp where the command was ended.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        patience = Patience(process.pid, time_limit)
        try:
            while True:
                try:
                    out, errors = process.communicate(timeout=max(0.01, min(_POLL, patience.left)))
                    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)
                except subprocess.TimeoutExpired:
                    if why := "stopped" if stop is not None and stop.is_set() else patience.over():
                        raise GivenUp(why) from None
        except BaseException:
            if process.returncode is None:  # nobody has waited for it, so its number is its own
                os.killpg(process.pid, signal.SIGKILL)
            raise
