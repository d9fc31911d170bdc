"""A kernel that is known to be inaccurate explains its own error, and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from polymae.compare import verdict
from polymae.compare.metrics import U
from polymae.compare.record import Run
from polymae.compare.trace import Trace
from polymae.compare.worker import record_in_process
from runs import MODEL, Edited, inputs, plain, recorded, report, verdicts

SOFTMAX = 10.0  # roundoffs: the error of a kernel that this test makes known
NEW = {"framework": "torch", "version": "9.9", "device": "cpu"}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernels(environment: dict[str, Any]) -> dict[str, float]:
        return {"softmax": SOFTMAX} if all(environment.get(key) == value for key, value in NEW.items()) else {}

    monkeypatch.setattr(verdict, "known_kernels", kernels)


def softmax(folder: Path, size: float, source: Path | None = None, **environment: str) -> Path:
    """A trace of the new framework with noise of this many roundoffs in every softmax."""
    rng, trace = np.random.default_rng(7), Trace(source or plain())
    names = [name for name in trace.names if name.endswith(".softmax")]
    spoilt = {name: trace[name] * (1 + size * U * rng.standard_normal(trace[name].shape)) for name in names}
    edited = Edited(source or plain(), spoilt, framework="torch", environment=NEW | environment)
    return edited.save(folder / f"softmax{size}{''.join(environment.values())}.npz")


def noisy() -> Path:
    return recorded("noisy", dtype="float64", kernel_noise=f"softmax={SOFTMAX}")


def test_a_known_kernel_explains_its_own_error(known: None, tmp_path: Path) -> None:
    found = report(noisy(), softmax(tmp_path, SOFTMAX))
    assert verdicts(found) == {"torch": "explained"}
    assert found.exit_status == 0
    (judgement,) = found.judgements
    explained = [finding for finding in judgement.findings if finding.verdict == "explained"]
    assert {finding.operation for finding in explained} == {"softmax"}
    assert all(finding.error <= finding.limit for finding in explained)
    assert "softmax kernel (10 u) of torch 9.9" in found.reason(judgement)


@pytest.mark.parametrize(
    ("size", "environment"), [(10 * SOFTMAX, {}), (SOFTMAX, {"version": "9.8"}), (SOFTMAX, {"device": "H200"})]
)
def test_it_explains_no_more(known: None, tmp_path: Path, size: float, environment: dict[str, str]) -> None:
    found = report(noisy(), softmax(tmp_path, size, **environment))
    assert verdicts(found) == {"torch": "fault"}
    assert found.exit_status == 1
    assert found.judgements[0].first_wrong is not None
    assert found.judgements[0].first_wrong.name == "blocks.0.attn.softmax"


def test_it_explains_nothing_without_the_noisy_run(known: None, tmp_path: Path) -> None:
    path = softmax(tmp_path, SOFTMAX)
    assert report(path).exit_status == 1
    other = recorded("noisy gelu", dtype="float64", kernel_noise=f"gelu={SOFTMAX}")
    assert report(other, path).exit_status == 1


def test_a_fault_elsewhere_is_not_explained_away(known: None, tmp_path: Path) -> None:
    run = Run("numpy", tmp_path / "tanh.npz", inputs(), model=MODEL, gradients=True, fault="tanh gelu")
    outcome = record_in_process(run)
    assert outcome.trace is not None
    found = report(noisy(), softmax(tmp_path, SOFTMAX, outcome.trace))
    (judgement,) = found.judgements
    kinds = {finding.name: finding.verdict for finding in judgement.findings}
    assert kinds["blocks.0.attn.softmax"] == "explained"
    assert (judgement.first_wrong and judgement.first_wrong.name) == "blocks.0.mlp.gelu"
    assert found.exit_status == 1
