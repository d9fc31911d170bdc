"""A kernel that is known to be inaccurate explains its own error, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from mutants.recording import Mutant, record_mutant
from runs import MODEL, Edited, inputs, recorded, report, verdicts

from polymae.backends.config import Config
from polymae.compare import OF_ONE_RUN, offline, verdict
from polymae.compare.judge import localise

SOFTMAX = 10.0  # roundoffs: the error of a kernel that this test makes known
NEW = {"framework": "torch", "version": "9.9", "device": "cpu"}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernels(environment: dict[str, Any], config: Config | None = None) -> dict[str, float]:
        return {"softmax": SOFTMAX} if all(environment.get(key) == value for key, value in NEW.items()) else {}

    for module in (verdict, localise):
        monkeypatch.setattr(module, "known_kernels", kernels)


def softmax(folder: Path, size: float, fault: str | None = None, **environment: str) -> Path:
    """A trace of the new framework, run with noise of this many roundoffs behind every softmax."""
    path = folder / f"run{size}{fault}.npz"
    levels = (*OF_ONE_RUN, "gradients")
    record_mutant(
        Mutant("numpy", path, inputs(), model=MODEL, levels=levels, kernel_noise=f"softmax={size}", fault=fault)
    )
    renamed = Edited(path, framework="torch", environment=NEW | environment, kernel_noise=None)
    return renamed.save(folder / f"softmax{size}{fault}{''.join(environment.values())}.npz")


def noisy() -> Path:
    return recorded("noisy", dtype="float64", kernel_noise=f"softmax={SOFTMAX}")


def test_a_known_kernel_explains_its_own_error(known: None, tmp_path: Path) -> None:
    found = report(noisy(), softmax(tmp_path, SOFTMAX))
    assert verdicts(found) == {"torch": "explained"}
    assert found.exit_status == 0
    (judgement,) = found.judgements
    explained = [finding for finding in judgement.findings if finding.verdict == "explained"]
    # The kernel itself, and the product that first receives its error.
    assert "softmax" in {finding.operation for finding in explained} <= {"softmax", "linear"}
    assert all(finding.introduced <= finding.introduced_limit for finding in explained)
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


def test_the_noisy_run_is_recorded_where_the_weights_are_known(known: None, tmp_path: Path) -> None:
    assert verdicts(report(softmax(tmp_path, SOFTMAX))) == {"torch": "explained"}


def test_it_explains_nothing_without_the_noisy_run(
    known: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "weights_of", lambda *_: None)
    path = softmax(tmp_path, SOFTMAX)
    found = report(path)
    assert found.exit_status == 1
    assert any("--kernel-noise softmax=" in notice for notice in found.judgements[0].notices)
    other = recorded("noisy gelu", dtype="float64", kernel_noise=f"gelu={SOFTMAX}")
    assert report(other, path).exit_status == 1


def test_a_fault_elsewhere_is_not_explained_away(known: None, tmp_path: Path) -> None:
    found = report(noisy(), softmax(tmp_path, SOFTMAX, "tanh gelu"))
    (judgement,) = found.judgements
    kinds = {finding.name: finding.verdict for finding in judgement.findings}
    assert kinds["blocks.0.attn.softmax"] == "explained"
    assert (judgement.first_wrong and judgement.first_wrong.name) == "blocks.0.mlp.gelu"
    assert found.exit_status == 1
