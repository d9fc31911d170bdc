"""A run that is killed at any moment is gone on with, and becomes the run that was not killed, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import drawn
import pytest
from children import comes, heard, run
from guard import in_child
from tiny_run import assert_same_run, command, lines, tiny_data, tiny_recipe
from tiny_tuning import command as tuning
from tiny_tuning import labelled
from untested import require

from polymae import files, training
from polymae.training import checkpoints
from polymae.training.classifying import FineTuning
from polymae.training.pretrain import Request, resumed, run_request

SETTINGS = ("save_every_steps=3", "keep_last=1")
OURS = tuple(str(Path(package.__file__).parent) for package in (training, files))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("images"))


def begin_or_go_on(data: Path, out: Path) -> None:
    if checkpoints.steps_of(out):
        run_request(resumed(out))
    else:
        run_request(Request("numpy", data, out, tiny_recipe(*SETTINGS)))


class Lines:
    """For sys.settrace: counts the lines of the loop and of writing that run; kills the process before one of them."""

    def __init__(self, last: int = 0):
        self.count, self.last = 0, last

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Lines | None:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        self.count += event == "line"
        if event == "line" and self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return self


@pytest.mark.drawn
def test_killed_at_any_line(data: Path, tmp_path: Path) -> None:
    whole, counting = tmp_path / "whole", Lines()
    sys.settrace(counting)
    begin_or_go_on(data, whole)
    sys.settrace(None)
    rng, killed = random.Random(0), 0
    for number in range(drawn.count(12)):
        out = tmp_path / str(number)

        def until(last: int, out: Path = out) -> None:
            sys.settrace(Lines(last))
            begin_or_go_on(data, out)

        for _ in range(3):  # and what goes on with it is killed as well
            killed += "SIGKILL" in in_child(partial(until, rng.randrange(1, counting.count)))
            there = checkpoints.steps_of(out)
            assert not there or checkpoints.load(out / "checkpoints" / str(there[-1]), tiny_recipe().config)
        begin_or_go_on(data, out)
        assert_same_run(whole, out)
        assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
        assert not [path.name for path in (out / "checkpoints").iterdir() if path.name.startswith(".")]
    assert killed > drawn.count(12)


@pytest.mark.drawn
@pytest.mark.parametrize("task", ["pretrain", "finetune"])
@pytest.mark.parametrize("framework", drawn.few())
def test_killed_at_any_moment(framework: str, task: str, data: Path, tmp_path: Path) -> None:
    """The same at points in time of a framework's process, a fine-tuning's with all that is drawn and an average, too.

    test_preflight.py kills one of every framework.
    """
    if task == "finetune":
        data = labelled(tmp_path / "labelled")

    def begun(out: Path) -> list[str]:
        if task == "finetune":
            return tuning(FineTuning, framework, data, out, "--set", *SETTINGS)
        return command(framework, data, out, *SETTINGS)

    whole = tmp_path / "whole"
    began = time.perf_counter()
    run(begun(whole), check=True)
    seconds = time.perf_counter() - began
    rng = random.Random(framework)
    for number in range(drawn.count(1)):
        out = tmp_path / str(number)
        process = subprocess.Popen(begun(out), stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(rng.uniform(0.3, 1.0) * seconds)  # most of it is the framework's import
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        again = begun(out)
        if checkpoints.steps_of(out):
            again = [*again[:4], "--resume", str(out), "--threads", "1"]
        run(again, check=True)
        assert_same_run(whole, out)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves(number: signal.Signals, status: int, data: Path, tmp_path: Path) -> None:
    stopped_by(number, status, "numpy", data, tmp_path / "run")


def test_every_framework_saves_at_a_signal(framework: str, data: Path, tmp_path: Path) -> None:
    """Some frameworks set handlers of their own when they are imported."""
    require(framework)
    stopped_by(signal.SIGTERM, 75, framework, data, tmp_path / "run")


def stopped_by(number: signal.Signals, status: int, framework: str, data: Path, out: Path) -> None:
    process = subprocess.Popen(
        command(framework, data, out, "epochs=100000", "compiled=false"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert comes(lambda: (out / "steps.jsonl").is_file() and (out / "steps.jsonl").read_text().count("\n") >= 3)
    process.send_signal(number)
    said, _ = heard(process)
    assert process.returncode == status
    done = checkpoints.steps_of(out)[-1]
    assert 3 <= done == lines(out)[-1]["step"] < 4 * 100_000
    assert f"{number.name}: saved after step {done}" in said
    assert f"--resume {out}" in said
