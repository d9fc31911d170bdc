"""What only OneFlow's training has: layer norms with a gradient of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from in_use import needs
from stepping import BATCH, CONFIGS, judged, taken, wrong

from polymae.backends.optimization import Settings
from polymae.backends.runtime import load_backend
from polymae.compare.record.inputs import random_inputs

MODEL = "mae_vit_test_patch8"


def test_norms_are_replaced_only_while_gradients_are_computed() -> None:
    flow = needs("oneflow")
    runtime = load_backend("oneflow")
    runtime.setup(threads=1)
    model = runtime.build(CONFIGS[MODEL])
    training = runtime.training(model, runtime.optimizer(model, Settings()))
    inputs = runtime.tensors(model, random_inputs(CONFIGS[MODEL], BATCH))
    layers = [layer for layer in model.modules() if isinstance(layer, flow.nn.LayerNorm)]
    assert list(training.fused) == layers
    _, gradients = training.gradients(inputs, 1.0)
    assert all(np.isfinite(vector.numpy()).all() for vector in gradients)
    with pytest.raises(KeyError):
        training.gradients({"imgs": inputs["imgs"]}, 1.0)
    assert not any("forward" in vars(layer) for layer in layers)


@pytest.mark.parametrize("mistake", ["mean of the gradient left out", "scale's gradient of the input"])
def test_a_wrong_gradient_of_the_norm_is_seen(monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    needs("oneflow")
    from polymae.backends.oneflow import fused

    assert not wrong(judged(MODEL, taken("oneflow", MODEL)))
    right = fused._LayerNorm.backward

    def mistaken(ctx: Any, dy: Any) -> tuple[Any, ...]:
        dx, dweight, dbias, *others = right(ctx, dy)
        x, scale, weight, _ = ctx.saved_tensors
        if mistake.startswith("mean"):
            return dx + scale * (dy * weight).mean(dim=1, keepdim=True), dweight, dbias, *others
        return dx, dweight + (dy * x).mean(dim=0), dbias, *others

    monkeypatch.setattr(fused._LayerNorm, "backward", staticmethod(mistaken))
    assert max(finding.ratio for finding in wrong(judged(MODEL, taken("oneflow", MODEL)))) > 100
