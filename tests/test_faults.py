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
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.compare.faults import FAULTS, plant
from polymae.compare.inputs import random_inputs
from polymae.compare.kernels import parse_noise
from polymae.compare.record import Run
from polymae.compare.report import About, Report
from polymae.compare.trace import Trace
from polymae.compare.verdict import Comparison, judge_traces
from polymae.compare.worker import Outcome
from polymae.convert.writing import write_checkpoint

MODEL = "mae_vit_test_patch8"
CONFIG = model_config(MODEL)
# Every fault in one of these: that of its family where it needs one, the official model else.
PROBE = "img_size=16,patch_size=8,embed_dim=48,depth=2,num_heads=3,num_classes=10,head_norm=True"
MODELS = (MODEL, "flyegle_mae_vit_test_patch8", "libai_mae_vit_test_patch8", PROBE)
PLANTED = {fault: next(m for m in MODELS if FAULTS[fault].fits(model_config(m))) for fault in FAULTS}
NOISE = "softmax=10.56"
# One process records all the runs it is given: importing a framework takes longer than the runs.
RECORD = """
import json, sys
from pathlib import Path
from polymae.compare.record import Run, record
for fields in json.load(sys.stdin):
    record(Run(**{k: Path(v) if k in ("out", "inputs", "weights") and v else v for k, v in fields.items()}))
"""


def trained_probe(folder: Path) -> Path:
    """A checkpoint with running statistics: the initial variance, 1, is its own square root."""
    config, rng = model_config(PROBE), np.random.default_rng(7)
    weights = initial_weights(config)
    weights["head_norm.mean"] = rng.standard_normal(48).astype(np.float32)
    weights["head_norm.var"] = rng.uniform(0.1, 2, 48).astype(np.float32)
    write_checkpoint("torch", folder / "probe.pth", config, weights)
    return folder / "probe.pth"


def record_all(runs: list[Run]) -> None:
    text = json.dumps([asdict(run) for run in runs], default=str)
    done = subprocess.run([sys.executable, "-c", RECORD], input=text, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The oracle's run of each model, recorded beside two twins and a noisy run."""
    runs: dict[str, Run] = {}
    for model in MODELS:
        folder = tmp_path_factory.mktemp(model)
        np.savez(folder / "inputs.npz", **random_inputs(model_config(model)))
        weights = trained_probe(folder) if model == PROBE else None
        runs[model] = Run("numpy", folder / "oracle.npz", folder / "inputs.npz", weights, model, dtype="float64")
    others = [
        replace(run, out=run.out.with_name(name), **fields)
        for run in runs.values()
        for name, fields in (
            *((f"twin{seed}.npz", {"dtype": "float32", "twin": seed}) for seed in (1, 2)),
            ("noisy.npz", {"kernel_noise": NOISE}),
        )
    ]
    record_all([*runs.values(), *others])
    return runs


Judged = Callable[[str, str], Report]


@pytest.fixture(scope="module")
def judged(oracles: dict[str, Run]) -> Judged:
    """A function that records a framework with each of a model's faults, and judges it; once for each framework."""
    recorded: set[str] = set()
    reports: dict[tuple[str, str], Report] = {}

    def runs_of(framework: str, model: str) -> dict[str, Run]:
        faults = [None, *(fault for fault, where in PLANTED.items() if where == model)]
        return {
            str(fault): replace(
                oracles[model], framework=framework, dtype="float32", fault=fault,
                out=oracles[model].out.with_name(f"{framework}{i}.npz"),
            )
            for i, fault in enumerate(faults)
        }  # fmt: skip

    def run(framework: str, model: str) -> Report:
        if framework not in recorded:
            record_all([run for each in MODELS for run in runs_of(framework, each).values()])
            recorded.add(framework)
        if (framework, model) not in reports:
            folder = oracles[model].out.parent
            twins = [Trace(folder / f"twin{seed}.npz") for seed in (1, 2)]
            noisy = Trace(folder / "noisy.npz")
            comparison = Comparison(levels=("weights", "inputs", "forward", "loss"), reference=None)
            outcomes = [Outcome(fault, run.out) for fault, run in runs_of(framework, model).items()]
            about = About(model, "", "", "", 0.75)
            reports[framework, model] = judge_traces(
                about, Trace(oracles[model].out), twins, outcomes, comparison,
                lambda noise: noisy if noise == parse_noise(NOISE) else None,
            )  # fmt: skip
        return reports[framework, model]

    return run


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_caught_where_it_is(framework: str, fault: str, judged: Judged) -> None:
    report = judged(framework, PLANTED[fault])
    judgement = next(j for j in report.judgements if j.label == fault)
    assert judgement.verdict == "fault"
    first = judgement.first_wrong
    assert first is not None
    assert first.name == FAULTS[fault].located_at
    assert first.ratio > 2, "caught with too little margin"
    assert first.name in report.reason(judgement)


@pytest.mark.parametrize("model", MODELS)
def test_without_a_fault_there_is_none(framework: str, model: str, judged: Judged) -> None:
    judgement = next(j for j in judged(framework, model).judgements if j.label == "None")
    assert judgement.verdict in ("roundoff", "explained")


def test_faults_of_the_weights_are_named_at_that_level_too(framework: str, judged: Judged) -> None:
    judgement = next(j for j in judged(framework, MODEL).judgements if j.label == "q and k swapped")
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


@pytest.mark.parametrize("model", ["libai_mae_vit_test_patch8", "mae_vit_test_patch8"])
def test_a_fault_that_makes_no_difference_in_a_model_is_refused(model: str) -> None:
    fault = "pixels of a conv head channel first"
    with pytest.raises(Problem, match="head=conv, which this model"), plant(fault, "numpy", model_config(model)):
        pass
