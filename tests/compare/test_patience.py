"""A process that does nothing is given up on, one that is slow is not, however little of the machine it gets."""

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from children import gone

from polymae.compare.record import patience
from polymae.compare.record.patience import COMPUTING, SILENCE, GivenUp, Patience, processor_time, run_patiently

YEAR = 365 * 86400


class Clock:
    """Time that passes where somebody waits, and a process that works for a share of it (above 1: on several cores)."""

    def __init__(self, share: Callable[[float], float]):
        self.share, self.now, self.worked = share, 0.0, 0.0

    def given_up(self, limit: float | None = None, at_most: float = YEAR) -> tuple[float, str]:
        """After how many seconds, and why; it is looked at twice a second, as a worker is, for `at_most` seconds."""
        watch = Patience(1, limit, worked=lambda session: self.worked, clock=lambda: self.now)
        while self.now < at_most:
            if why := watch.over():
                return self.now, why
            self.pass_by(0.5)
        return self.now, ""

    def pass_by(self, seconds: float) -> None:
        self.worked += self.share(self.now) * seconds
        self.now += seconds


@pytest.mark.parametrize("share", [0.0, 0.009])  # threads that look now and then whether there is work
def test_what_does_nothing_is_given_up_on(share: float) -> None:
    after, why = Clock(lambda now: share).given_up()
    assert SILENCE <= after <= SILENCE + 10
    assert why == "it did nothing for 300 s"


def test_what_falls_silent_is_given_up_on() -> None:
    after, why = Clock(lambda now: float(now < 1000)).given_up()
    assert 1000 + SILENCE <= after <= 1000 + SILENCE + 10
    assert why == "it did nothing for 300 s"


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_what_gets_little_of_the_machine_gets_more_time(share: float) -> None:
    after, why = Clock(lambda now: share).given_up()
    assert after >= COMPUTING / max(share, 0.1)
    assert after <= 10 * COMPUTING + 10  # nothing goes on for ever
    assert why == "no result after 3600 s of computing"


def test_many_cores_shorten_nothing() -> None:
    assert Clock(lambda now: 1.0).given_up() == Clock(lambda now: 16.0).given_up()


def test_what_waits_now_and_then_is_not_given_up_on() -> None:
    """A disk or a network that is slow: work comes again before the silence was too long."""
    share = lambda now: float(now % 290 < 5)  # noqa: E731
    assert Clock(share).given_up(at_most=20_000)[1] == ""


def test_a_machine_that_slept_is_no_silence() -> None:
    clock = Clock(lambda now: 0.0)
    watch = Patience(1, worked=lambda session: clock.worked, clock=lambda: clock.now)
    for _ in range(20):
        clock.pass_by(YEAR)
        assert watch.over() == ""


@pytest.mark.parametrize("share", [0.0, 1.0, 16.0])
def test_a_limit_that_is_given_is_exact(share: float) -> None:
    for limit in (7, 10_000):
        assert Clock(lambda now: share).given_up(limit) == (limit, f"no result within {limit} s")


WORKS = "import time\nwhile time.process_time() < 0.5: pass\nprint(time.process_time(), flush=True)\ninput()"
TOGETHER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKS!r}])"


@pytest.mark.parametrize("code", [WORKS, TOGETHER], ids=["itself", "a child"])
def test_the_processor_time_of_a_session(code: str) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        used = float(process.stdout.readline())
        assert processor_time(process.pid) >= used - 0.03  # in hundredths, of the system's and of its own
        assert processor_time(-process.pid) == 0.0
        process.stdin.write("\n")


def test_a_command_that_ends_is_as_with_subprocess() -> None:
    done = run_patiently([sys.executable, "-c", "import sys; print(1); sys.exit('two')"], text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "1\n", "two\n")


def test_a_command_that_hangs_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    short = lambda session, limit: Patience(session, limit, silence=1, window=0.5)  # noqa: E731
    monkeypatch.setattr(patience, "Patience", short)
    script = f"sleep 100000 & echo $! >{tmp_path}/child; wait"
    with pytest.raises(GivenUp, match="it did nothing for 1 s"):
        run_patiently(["sh", "-c", script])
    assert gone(int((tmp_path / "child").read_text()))
    with pytest.raises(GivenUp, match=r"no result within 0\.5 s"):
        run_patiently(["sh", "-c", "while :; do :; done"], time_limit=0.5)


def test_a_command_is_stopped_from_another_thread() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(GivenUp, match="stopped"):
        run_patiently(["sleep", "100000"], stop=stop)
