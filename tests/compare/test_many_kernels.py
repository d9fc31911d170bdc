"""The verdict on a right run depends neither on the kernels of the machine that ran it, nor on those of the one that judges."""

from __future__ import annotations

import runpy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutants.models import trained_weights
from repository import ROOT
from runs import FOLDER, MODEL

from polymae.backends.presets import model_config
from polymae.compare.limits.findings import Judgement
from polymae.compare.offline import compare_traces
from polymae.compare.options import Comparison, Run
from polymae.compare.record.child import record_batch
from polymae.compare.record.inputs import random_inputs
from polymae.convert.writing import write_checkpoint

SETTINGS = runpy.run_path(str(ROOT / "benchmarks" / "kernel_settings.py"))
LEVELS = ("weights", "forward", "loss", "gradients")
# Sums of 512 and 2,048 terms, as in base/16's decoder, over which kernels differ most.
WIDE = "img_size=32,patch_size=8,embed_dim=64,depth=1,num_heads=4,decoder_embed_dim=512,decoder_depth=1,decoder_num_heads=16"
JUDGING = "Prescott, SSE4.1"  # the setting of the machine that judges


@cache
def subject(model: str) -> tuple[Path, Path]:
    """Weights, as after training, and inputs of a model."""
    config, number = model_config(model), len(model)
    weights, inputs = FOLDER / f"kernels{number}.pth", FOLDER / f"kernels{number}.npz"
    write_checkpoint("torch", weights, config, trained_weights(config))
    np.savez(inputs, **random_inputs(config))
    return weights, inputs


@cache
def recorded(setting: str, *runs: tuple[tuple[str, Any], ...]) -> dict[str, list[Path]]:
    """By model: runs of both models in one framework, recorded in one process that takes the kernels of a setting.

    runs: fields of Run and their values.
    """
    whole: dict[str, list[Run]] = {}
    for model in (MODEL, WIDE):
        weights, inputs = subject(model)
        for fields in map(dict, runs):
            name = "-".join(map(str, (len(model), setting, *fields.values()))).replace(" ", "")
            common = {"framework": "numpy", "model": model, "levels": LEVELS, "weights": weights, "inputs": inputs}
            run = Run(out=FOLDER / f"kernels-{name}.npz", **{**common, **fields})
            whole.setdefault(model, []).append(run)
    listed = [run for model in whole.values() for run in model]
    with SETTINGS["under"](setting):
        for run, outcome in zip(listed, record_batch(listed)):
            assert outcome.trace, (run, outcome.reason)
    return {model: [run.out for run in runs] for model, runs in whole.items()}


def references(model: str) -> list[Path]:
    """Oracle and twins of the machine that judges."""
    return recorded(JUDGING, (("dtype", "float64"),), *((("twin", seed),) for seed in (1, 2, 3)))[model]


def judged(model: str, framework: str, setting: str) -> Judgement:
    (candidate,) = recorded(setting, (("framework", framework),))[model]
    comparison = Comparison(levels=LEVELS, reference=None, weights=subject(model)[0])
    (judgement,) = compare_traces([*references(model), candidate], comparison).judgements
    return judgement


def different(framework: str) -> list[str]:
    """Settings under which a framework takes kernels of its own: the oldest, the newest, and one between."""
    chosen = ("as the libraries choose", "Haswell, AVX2", "Prescott, SSE4.1")
    return list({SETTINGS["read_by"](framework, setting): setting for setting in chosen}.values())


@pytest.mark.parametrize("model", [MODEL, WIDE], ids=["small", "wide"])
def test_a_right_run_is_right_under_every_kernel(model: str, framework: str) -> None:
    products = set()
    for setting in different(framework):
        judgement = judged(model, framework, setting)
        wrong = judgement.first_wrong
        assert judgement.verdict in ("roundoff", "explained"), (setting, judgement.problem, wrong)
        products.add(judgement.environment["kernels"]["product"])
        explained = {finding.operation for finding in judgement.findings if finding.verdict == "explained"}
        assert framework == "mindspore" or not explained
        # A kernel explains its own error and what comes of it, and no sum that is only taken in another order.
        introduced = [f for f in judgement.findings if f.verdict == "explained" and f.introduced > f.introduced_limit]
        assert not introduced
        if explained:
            assert "softmax kernel" in judgement.explained_by
    # The settings do change the kernels, or this shows nothing. (MKL has one set of kernels for AMD's CPUs.)
    assert len(products) > 1 or framework in ("megengine", "torch")


def test_limits_from_a_blas_would_call_a_right_run_wrong() -> None:
    """As they were: twins that sum as the judging machine's BLAS does, and a kernel that sums in one chain."""
    oracle, *chains = references(WIDE)
    (blocks,) = recorded(JUDGING, (("framework", "numpy"),))[WIDE]
    comparison = Comparison(levels=LEVELS, reference=None, weights=subject(WIDE)[0])

    def verdict(twins: list[Path], candidate: Path) -> str:
        found = FOLDER / "renamed"
        found.mkdir(exist_ok=True)
        paths = [renamed(path, found / f"twin{i}.npz", twin=i) for i, path in enumerate(twins)]
        candidate = renamed(candidate, found / "candidate.npz", twin=None)
        (judgement,) = compare_traces([oracle, *paths, candidate], comparison).judgements
        return judgement.verdict

    assert verdict([blocks], chains[0]) == "fault"
    assert verdict(chains[1:], chains[0]) == "roundoff"
    assert verdict(chains, blocks) == "roundoff"


def renamed(path: Path, target: Path, twin: int | None) -> Path:
    """A trace as that of a twin, or of no twin."""
    from runs import Edited

    return Edited(path, twin=twin, framework="numpy" if twin is not None else "torch").save(target)
