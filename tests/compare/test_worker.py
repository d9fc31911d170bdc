"""Workers that crash, hang or lie are one row of the report; Ctrl-C ends them all."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from children import LONG, comes, gone, heard
from runs import MODEL, inputs

from polymae.backends.presets import model_config
from polymae.compare import OF_ONE_RUN
from polymae.compare.options import Comparison, Run
from polymae.compare.record import child as worker
from polymae.compare.record.child import record_in_process
from polymae.compare.record.inputs import random_inputs
from polymae.compare.record.patience import Patience
from polymae.compare.run import compare
from polymae.compare.trace import Trace


def interpreter(folder: Path, script: str) -> str:
    """A program that is taken for a Python interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def wait_for(path: Path) -> None:
    """Wait until something was written to a file."""
    assert comes(lambda: path.exists() and path.read_text().endswith("\n")), f"{path} never came"


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
        ("echo '\"no such thing.\"'", ["no such thing."]),
        ("echo '\"KeyError: 7\\\\nThis should not happen\"'", ["KeyError: 7 This should not happen"]),
        ("echo '\"\"'", ["said that it wrote a trace, and there is none"]),
        ("printf '\\377\\376' >&2; exit 1", ["exit status 1"]),
        ("head -c 5000000 /dev/urandom >&2; echo >&2; echo the end >&2; exit 1", ["the end (exit status 1)"]),
        ("head -c 5000000 /dev/zero | tr '\\0' x >&2; exit 1", ["xxx... (exit status 1)"]),
        ("sleep 100000 & exit 3", ["no message (exit status 3)"]),
    ],
)
def test_how_a_worker_ended_is_told(tmp_path: Path, run: Run, script: str, reasons: list[str]) -> None:
    outcome = record_in_process(run, interpreter(tmp_path, script))
    assert (outcome.label, outcome.trace) == ("torch", None)
    assert all(reason in outcome.reason for reason in reasons), outcome.reason
    assert outcome.reason.isprintable()
    assert len(outcome.reason) < 600


SLOW = """
import time
began = time.monotonic()
while time.monotonic() - began < 5:
    until = time.process_time() + 0.03
    while time.process_time() < until:
        pass
    time.sleep(0.27)
"""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is given up on that does nothing for two seconds."""
    monkeypatch.setattr(worker, "Patience", partial(Patience, silence=2, window=0.5))


def test_a_hanging_worker_is_ended_with_its_children(tmp_path: Path, run: Run, short: None) -> None:
    python = interpreter(tmp_path, f"sleep 100000 & echo $! >{tmp_path}/child; wait")
    outcome = record_in_process(run, python)
    assert outcome.trace is None
    assert outcome.reason == "it did nothing for 2 s; the process was ended"
    assert gone(int((tmp_path / "child").read_text()))


def test_a_worker_that_gets_on_slowly_is_not_ended(tmp_path: Path, run: Run, short: None) -> None:
    """It computes a tenth of the time at most, as on a busy machine, for longer than a worker may do nothing."""
    (tmp_path / "slow.py").write_text(SLOW)
    python = interpreter(tmp_path, f'{sys.executable} {tmp_path}/slow.py || exit 5; exec {sys.executable} "$@"')
    outcome = record_in_process(replace(run, framework="numpy"), python)
    assert outcome.trace, outcome.reason


@pytest.mark.parametrize("work", ["while :; do :; done", "exec sleep 100000"], ids=["busy", "idle"])
def test_a_time_limit_that_is_given_is_exact(tmp_path: Path, run: Run, work: str) -> None:
    began = time.monotonic()
    outcome = record_in_process(run, interpreter(tmp_path, work), time_limit=1.5)
    assert time.monotonic() - began >= 1.5
    assert outcome.reason == "no result within 1.5 s; the process was ended"


def test_what_a_killed_worker_left_is_removed(tmp_path: Path, run: Run, short: None) -> None:
    begun = f"touch {tmp_path}/.trace.npz.polymae-new {tmp_path}/.trace.npz.polymae-lock"
    for script in (f"{begun}; exec sleep 100000", f"{begun}; kill -KILL $$"):
        assert record_in_process(run, interpreter(tmp_path, script)).trace is None
        assert [file.name for file in tmp_path.iterdir()] == ["python"]


def test_garbage_beside_a_good_trace(tmp_path: Path, run: Run) -> None:
    noise = "head -c 3000000 /dev/urandom"
    python = interpreter(tmp_path, f'{noise}; {noise} >&2; exec {sys.executable} "$@"')
    outcome = record_in_process(replace(run, framework="numpy"), python)
    assert outcome.trace, outcome.reason
    assert "loss" in Trace(run.out)


SMALL = """
import resource, sys
import polymae.compare.record.record  # what it needs is loaded
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 100_000_000,) * 2)
import runpy
runpy.run_module(sys.argv[2], run_name="__main__")
"""


def test_a_worker_without_enough_memory(tmp_path: Path, run: Run) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    python = interpreter(tmp_path, f'exec {sys.executable} {tmp_path}/small.py "$@"')
    np.savez(tmp_path / "in.npz", **random_inputs(model_config("mae_vit_base_patch16"), 1))
    run = replace(run, framework="numpy", inputs=tmp_path / "in.npz", model="mae_vit_base_patch16")
    outcome = record_in_process(run, python)
    assert outcome.trace is None
    assert "out of memory; use a smaller model or batch." in outcome.reason
    assert not run.out.exists()


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
    python = interpreter(tmp_path, f"echo $$ >{tmp_path}/worker; exec sleep 100000")
    found = []
    thread = threading.Thread(target=lambda: found.append(record_in_process(run, python, stop=stop)))
    thread.start()
    wait_for(tmp_path / "worker")
    stop.set()
    thread.join(LONG)
    assert "stopped" in found[0].reason
    assert gone(int((tmp_path / "worker").read_text()))


def test_a_good_worker(tmp_path: Path) -> None:
    run = Run(
        "numpy",
        tmp_path / "t.npz",
        inputs(),
        model=MODEL,
        levels=(*OF_ONE_RUN, "gradients"),
        norm_pix_loss=True,
        seed=4,
    )
    outcome = record_in_process(run)
    assert (outcome.trace, outcome.reason) == (run.out, "")
    trace = Trace(run.out)
    assert (trace.manifest["seed"], trace.levels[-1]) == (4, "gradients")
    assert trace["loss"] == trace["norm_pix.loss"]


def test_a_failing_framework_is_one_row(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scripts = {
        "torch": ("kill -SEGV $$", "SIGSEGV"),
        "megengine": ('printf "PK\\003\\004half" >megengine.npz; echo "\\"\\""', "not a whole trace"),
        "mindspore": ("exit 0", "wrote no trace"),
    }
    for name in scripts:
        (tmp_path / name).mkdir()
    pythons = {name: interpreter(tmp_path / name, script) for name, (script, _) in scripts.items()}
    pythons["oneflow"] = str(tmp_path / "none")
    names = (*scripts, "numpy", "oneflow")
    report = compare(Comparison(names, model=MODEL, pythons=pythons, levels=("forward", "loss")))
    rows = {judgement.label: judgement for judgement in report.judgements}
    assert tuple(rows) == names
    assert rows["numpy"].verdict == "roundoff"
    for name, reason in [*((name, reason) for name, (_, reason) in scripts.items()), ("oneflow", "does not start")]:
        assert rows[name].verdict == "not comparable"
        assert reason in report.reason(rows[name])
    assert report.exit_status == 2
    assert "FAILED       torch" in capfd.readouterr().err


def test_ctrl_c_ends_every_worker(tmp_path: Path) -> None:
    workers, temporary = tmp_path / "worker", tmp_path / "tmp"
    temporary.mkdir()
    python = interpreter(tmp_path, f"sleep 100000 & echo $$ $! >{workers}; wait")
    command = [sys.executable, "-m", "polymae", "compare", "-m", MODEL, "--frameworks", "torch,numpy"]
    process = subprocess.Popen(
        [*command, "--python", f"torch={python}"],
        env=os.environ | {"TMPDIR": str(temporary)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait_for(workers)
    assert list(temporary.iterdir())
    process.send_signal(signal.SIGINT)
    out, said = heard(process)  # which does not outlast the hanging worker
    assert process.returncode == 130
    assert not out
    assert "stopped" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert all(gone(int(number)) for number in workers.read_text().split())
    assert not list(temporary.iterdir())
