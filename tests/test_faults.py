"""Every planted porting fault is caught in every framework, and the first wrong tensor is named."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from polymae.backends.errors import Problem
from polymae.backends.presets import model_config
from polymae.compare.faults import FAULTS, plant
from polymae.compare.inputs import random_inputs
from polymae.compare.kernels import parse_noise
from polymae.compare.record import Run
from polymae.compare.report import About, Report
from polymae.compare.trace import Trace
from polymae.compare.verdict import Comparison, judge_traces
from polymae.compare.worker import Outcome

MODEL = "mae_vit_test_patch8"
CONFIG = model_config(MODEL)
NOISE = "softmax=10.56"
# One process records all the runs it is given: importing a framework takes longer than the runs.
RECORD = """
import json, sys
from pathlib import Path
from polymae.compare.record import Run, record
for fields in json.load(sys.stdin):
    record(Run(**{k: Path(v) if k in ("out", "inputs") else v for k, v in fields.items()}))
"""


def record_all(runs: list[Run]) -> None:
    text = json.dumps([asdict(run) for run in runs], default=str)
    done = subprocess.run([sys.executable, "-c", RECORD], input=text, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The oracle's run, recorded beside two twins and a noisy run."""
    folder = tmp_path_factory.mktemp("faults")
    np.savez(folder / "inputs.npz", **random_inputs(model_config(MODEL)))
    run = Run("numpy", folder / "oracle.npz", folder / "inputs.npz", model=MODEL, dtype="float64")
    twins = [replace(run, dtype="float32", twin=seed, out=folder / f"twin{seed}.npz") for seed in (1, 2)]
    record_all([run, *twins, replace(run, kernel_noise=NOISE, out=folder / "noisy.npz")])
    return run


@pytest.fixture(scope="module")
def judged(oracle: Run) -> Callable[[str], Report]:
    """A function that records a framework with each of the faults, and judges it; once for each framework."""
    reports: dict[str, Report] = {}
    folder = oracle.out.parent

    def run(framework: str) -> Report:
        if framework not in reports:
            runs = {
                fault: replace(
                    oracle, framework=framework, dtype="float32", fault=fault, out=folder / f"{framework}{i}.npz"
                )
                for i, fault in enumerate([None, *FAULTS])
            }
            record_all(list(runs.values()))
            twins = [Trace(folder / f"twin{seed}.npz") for seed in (1, 2)]
            noisy = Trace(folder / "noisy.npz")
            comparison = Comparison(levels=("weights", "inputs", "forward", "loss"), reference=None)
            outcomes = [Outcome(str(fault), run.out) for fault, run in runs.items()]
            about = About(MODEL, "", "", "", 0.75)
            reports[framework] = judge_traces(
                about, Trace(oracle.out), twins, outcomes, comparison,
                lambda noise: noisy if noise == parse_noise(NOISE) else None,
            )  # fmt: skip
        return reports[framework]

    return run


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_caught_where_it_is(framework: str, fault: str, judged: Callable[[str], Report]) -> None:
    report = judged(framework)
    judgement = next(j for j in report.judgements if j.label == fault)
    assert judgement.verdict == "fault"
    first = judgement.first_wrong
    assert first is not None
    assert first.name == FAULTS[fault].located_at
    assert first.ratio > 2, "caught with too little margin"
    assert first.name in report.reason(judgement)


def test_without_a_fault_there_is_none(framework: str, judged: Callable[[str], Report]) -> None:
    judgement = next(j for j in judged(framework).judgements if j.label == "None")
    assert judgement.verdict in ("roundoff", "explained")


def test_faults_of_the_weights_are_named_at_that_level_too(framework: str, judged: Callable[[str], Report]) -> None:
    judgement = next(j for j in judged(framework).judgements if j.label == "q and k swapped")
    wrong = {
        finding.name for finding in judgement.findings if finding.level == "weights" and finding.verdict == "fault"
    }
    assert wrong == {"weights/blocks.1.attn.qkv.weight"}  # the biases start at zero: swapped, they are the same


def test_an_unknown_fault_offers_the_nearest() -> None:
    with pytest.raises(Problem, match="tanh gelu"), plant("tanh glu", "numpy", CONFIG):
        pass


def test_an_edit_that_no_longer_fits_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stale = replace(FAULTS["tanh gelu"], edits={"all": ("no such line", "")})
    monkeypatch.setitem(FAULTS, "tanh gelu", stale)
    with pytest.raises(Problem, match="up to date"), plant("tanh gelu", "numpy", CONFIG):
        pass
