"""Workers that crash, hang or lie are one row of the report; Ctrl-C ends them all."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from polymae.compare.record import Run
from polymae.compare.run import compare
from polymae.compare.trace import Trace
from polymae.compare.verdict import Comparison
from polymae.compare.worker import record_in_process
from runs import MODEL, inputs


def interpreter(folder: Path, script: str) -> str:
    """A program that is taken for a Python interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def gone(process: int) -> bool:
    """Whether a process ends (a zombie that nobody has waited for has)."""
    end = time.monotonic() + 5  # a killed process takes a moment
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def wait_for(path: Path) -> None:
    """Wait until something was written to a file."""
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.02)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("torch", tmp_path / "trace.npz", inputs(), model=MODEL)


@pytest.mark.parametrize(
    ("script", "reasons"),
    [
        ("kill -SEGV $$", ["SIGSEGV"]),
        ("kill -KILL $$", ["SIGKILL", "out of memory?"]),
        ("kill -40 $$", ["signal 40"]),
        ("echo garbage; echo rubbish >&2; exit 0", ["wrote no trace", "rubbish"]),
        ("exit 0", ["wrote no trace", "no message"]),
        ("exit 7", ["no message (exit status 7)"]),
        ("printf 'polymae record: no such thing.\\n\\n' >&2; exit 2", ["no such thing."]),
        ("printf '\\377\\376' >&2; exit 1", ["exit status 1"]),
    ],
)
def test_how_a_worker_ended_is_told(tmp_path: Path, run: Run, script: str, reasons: list[str]) -> None:
    outcome = record_in_process(run, interpreter(tmp_path, script))
    assert (outcome.label, outcome.trace) == ("torch", None)
    assert all(reason in outcome.reason for reason in reasons), outcome.reason
    assert not outcome.reason.startswith("polymae record:")


def test_a_hanging_worker_is_ended_with_its_children(tmp_path: Path, run: Run) -> None:
    python = interpreter(tmp_path, f"sleep 300 & echo $! >{tmp_path}/child; wait")
    started = time.monotonic()
    outcome = record_in_process(run, python, time_limit=1)
    assert 1 <= time.monotonic() - started < 10
    assert outcome.trace is None
    assert "no result within 1 s" in outcome.reason
    assert gone(int((tmp_path / "child").read_text()))


def test_no_interpreter(tmp_path: Path, run: Run) -> None:
    (tmp_path / "text").write_text("hello")
    for python in (tmp_path / "none", tmp_path / "text", tmp_path):
        outcome = record_in_process(run, str(python))
        assert outcome.trace is None
        assert f"the interpreter {python} does not start" in outcome.reason


def test_an_older_trace_does_not_pass_for_this_runs(tmp_path: Path, run: Run) -> None:
    run.out.write_bytes(b"an older trace")
    assert record_in_process(run, interpreter(tmp_path, "exit 0")).trace is None


def test_a_worker_can_be_stopped_from_another_thread(tmp_path: Path, run: Run) -> None:
    stop = threading.Event()
    python = interpreter(tmp_path, f"echo $$ >{tmp_path}/worker; exec sleep 300")
    found = []
    thread = threading.Thread(target=lambda: found.append(record_in_process(run, python, stop=stop)))
    thread.start()
    wait_for(tmp_path / "worker")
    stop.set()
    thread.join(10)
    assert "stopped" in found[0].reason
    assert gone(int((tmp_path / "worker").read_text()))


def test_a_good_worker(tmp_path: Path) -> None:
    run = Run(
        "numpy",
        tmp_path / "t.npz",
        inputs(),
        model=MODEL,
        gradients=True,
        norm_pix_loss=True,
        fault="tanh gelu",
        seed=4,
    )
    outcome = record_in_process(run)
    assert (outcome.trace, outcome.reason) == (run.out, "")
    trace = Trace(run.out)
    assert (trace.manifest["fault"], trace.manifest["seed"], trace.manifest["gradients"]) == ("tanh gelu", 4, True)
    assert trace["loss"] == trace["norm_pix.loss"]


def test_a_failing_framework_is_one_row(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pythons = {"torch": interpreter(tmp_path, "kill -SEGV $$"), "oneflow": str(tmp_path / "none")}
    report = compare(
        Comparison(("torch", "numpy", "oneflow"), model=MODEL, pythons=pythons, levels=("forward", "loss"))
    )
    rows = {judgement.label: judgement for judgement in report.judgements}
    assert list(rows) == ["torch", "numpy", "oneflow"]
    assert (rows["torch"].verdict, rows["oneflow"].verdict) == ("not comparable", "not comparable")
    assert rows["numpy"].verdict == "roundoff"
    assert "SIGSEGV" in report.reason(rows["torch"])
    assert "does not start" in report.reason(rows["oneflow"])
    assert report.exit_status == 2
    assert "FAILED       torch" in capfd.readouterr().err


def test_ctrl_c_ends_every_worker(tmp_path: Path) -> None:
    workers, temporary = tmp_path / "worker", tmp_path / "tmp"
    temporary.mkdir()
    python = interpreter(tmp_path, f"sleep 300 & echo $$ $! >{workers}; wait")
    command = [sys.executable, "-m", "polymae.cli", "compare", "-m", MODEL, "--frameworks", "torch,numpy"]
    process = subprocess.Popen(
        [*command, "--python", f"torch={python}"],
        env=os.environ | {"TMPDIR": str(temporary)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(workers)
    assert list(temporary.iterdir())
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        out, said = process.communicate(timeout=60)
    finally:
        process.kill()  # where it did not end by itself
    assert process.returncode == 130
    assert time.monotonic() - started < 20  # and not the time limit of the hanging worker
    assert not out
    assert "stopped" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert all(gone(int(number)) for number in workers.read_text().split())
    assert not list(temporary.iterdir())
