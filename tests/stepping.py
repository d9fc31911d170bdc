"""One training step of a small model in a framework, and its judgement against the float64 oracle's.

AdamW's first moment after one step with beta1 = 0 is the gradient that it was given, bit for bit: so the gradients are read.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from mutants.models import trained_weights

from polymae.backends.config import Config
from polymae.backends.naming import Arrays
from polymae.backends.numpy.sums import summed_in_chains
from polymae.backends.optimization import Settings
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.backends.spec import Tap, params
from polymae.compare.levels.small import training_config
from polymae.compare.limits.findings import Finding
from polymae.compare.limits.tensors import judge_tensor
from polymae.compare.limits.tolerance import APriori
from polymae.compare.record.inputs import random_inputs
from polymae.compare.trace import Inputs
from polymae.training.steps import take

CONFIGS: dict[str, Config] = {
    name: replace(training_config(model_config(name)), depth=1) for name in ("mae_vit_test_patch8", "vit_test_patch8")
}
CONFIGS["tuned"] = replace(CONFIGS["vit_test_patch8"], depth=2)  # with drop path and soft targets, as in fine-tuning
BATCH = 8
# Parts of a batch, three of them of 3, 3 and 2 images: a compiler compiles every size anew, which takes it seconds.
PARTS = {"mae_vit_test_patch8": 1, "vit_test_patch8": 1, "tuned": 3}


def batch(model: str) -> Inputs:
    """What each step is given."""
    drawn: dict[str, Any] = {"drop_path": 0.5, "soft_targets": True} if model == "tuned" else {}
    return random_inputs(CONFIGS[model], BATCH, **drawn)


def taken(framework: str, model: str, dtype: str = "float32", accumulate: int = 1, scale: float = 1.0) -> Arrays:
    """The loss [] and the gradients of one step by spec name."""
    runtime, config = load_backend(framework), CONFIGS[model]
    subject = runtime.build(config, trained_weights(config), dtype=dtype)
    optimizer = runtime.optimizer(subject, Settings(betas=(0.0, 0.95)))
    found = take(runtime.training(subject, optimizer), batch(model), 1e-3, accumulate, scale)
    return {"loss": np.array(found.loss), "norm": np.array(found.norm), **optimizer.state().m}


@cache
def references(model: str) -> tuple[Arrays, list[Arrays]]:
    """The whole batch's loss and gradients by the oracle, and by its float32 twins."""
    twins = []
    for seed in (1, 2, 3):
        with summed_in_chains(seed):
            twins.append(taken("numpy", model))
    return taken("numpy", model, "float64"), twins


def judged(model: str, actual: Arrays) -> list[Finding]:
    """Every gradient, the loss and the norm, judged as compare does."""
    oracle, twins = references(model)
    config = CONFIGS[model]
    a_priori = APriori(config.depth + getattr(config, "decoder_depth", 0))
    listed = [("loss", Tap("loss", "mean")), ("gradients", Tap("norm", "gradient norm"))]
    listed += [("gradients", Tap(param.name, param.role)) for param in params(config) if param.name in oracle]
    assert {tap.name for _, tap in listed} == actual.keys()
    return [
        judge_tensor(level, tap, actual[tap.name], oracle[tap.name], [twin[tap.name] for twin in twins], a_priori)
        for level, tap in listed
    ]


def wrong(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict not in ("exact", "roundoff")]
