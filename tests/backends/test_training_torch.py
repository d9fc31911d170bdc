"""What only PyTorch's training has: fused attention, gradients in any layout, torch.compile, autocast."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from in_use import needs
from mutants.models import trained_weights
from stepping import BATCH, CONFIGS, judged, taken, wrong

from polymae.backends.optimization import Settings
from polymae.backends.runtime import load_backend
from polymae.compare.record.inputs import random_inputs

MODEL = "mae_vit_test_patch8"
CONFIG = CONFIGS[MODEL]


def trained(**options: Any) -> tuple[Any, Any, Any]:
    """A model, its training and a batch as tensors."""
    runtime = load_backend("torch")
    model = runtime.build(CONFIG, trained_weights(CONFIG))
    training = runtime.training(model, runtime.optimizer(model, Settings()), **options)
    return model, training, runtime.tensors(model, random_inputs(CONFIG, BATCH))


def test_attention_is_fused_only_while_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = needs("torch")
    model, training, inputs = trained()
    attend, calls = torch.nn.functional.scaled_dot_product_attention, []
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or attend(*a, **k)
    )
    training.gradients(inputs, 1.0)
    assert len(calls) == len(training.fused) == CONFIG.depth + CONFIG.decoder_depth
    with pytest.raises(KeyError):
        training.gradients({"imgs": inputs["imgs"]}, 1.0)
    out: dict[str, Any] = {}
    model(inputs["imgs"], inputs["noise"], 0.75, out)
    assert "blocks.0.attn.softmax" in out
    assert len(calls) == len(training.fused)


def test_a_wrong_attention_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = needs("torch")
    assert not wrong(judged(MODEL, taken("torch", MODEL)))
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v, scale: attend(q, k, v, scale=1.01 * scale)
    )
    found = wrong(judged(MODEL, taken("torch", MODEL)))
    assert max(finding.ratio for finding in found) > 100


def test_gradients_in_any_layout_are_the_same_to_the_optimizer() -> None:
    """PyTorch's fused AdamW reads memory in order: a transposed gradient would go to other weights."""
    torch = needs("torch")
    runtime, rng, after = load_backend("torch"), np.random.default_rng(0), []
    weights = trained_weights(CONFIG)
    gradients = {name: rng.standard_normal(array.shape).astype(np.float32) for name, array in weights.items()}
    for transposed in (False, True):
        model = runtime.build(CONFIG, weights)
        optimizer = runtime.optimizer(model, Settings())
        given = {name: torch.from_numpy(gradients[name]) for name in optimizer.decay}
        if transposed:
            given = {name: tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor for name, tensor in given.items()}
            assert sum(not tensor.is_contiguous() for tensor in given.values()) > 10
        optimizer.step(given, 1e-3)
        after.append(runtime.weights(model))
    assert all(np.array_equal(after[0][name], after[1][name]) for name in weights)


def test_compiled_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that keeps the eager kernels, so that the bits are those of the eager step."""
    torch = needs("torch")
    torch.compiler.reset()
    compilations: list[int] = []

    def counting(graph: Any, inputs: Any) -> Any:
        compilations.append(1)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counting))
    assert not trained()[1].compiled
    _, training, inputs = trained(compiled=True)
    _, eager, _ = trained()
    for _ in range(3):
        (loss, found), (expected, wanted) = training.gradients(inputs, 0.5), eager.gradients(inputs, 0.5)
        assert loss == expected
        assert all(torch.equal(one, other) for one, other in zip(found, wanted))
    assert len(compilations) == 1
    torch.compiler.reset()


def test_compiled_it_takes_any_draw_of_drop_path(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = needs("torch")
    torch.compiler.reset()
    compilations: list[int] = []

    def counting(graph: Any, inputs: Any) -> Any:
        compilations.append(1)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counting))
    runtime, config = load_backend("torch"), CONFIGS["tuned"]
    model = runtime.build(config, trained_weights(config))
    optimizer = runtime.optimizer(model, Settings())
    training, eager = (runtime.training(model, optimizer, compiled=compiled) for compiled in (True, False))
    losses = []
    for seed in range(3):
        inputs = runtime.tensors(model, random_inputs(config, BATCH, seed, drop_path=0.5, soft_targets=True))
        (loss, found), (expected, wanted) = training.gradients(inputs, 0.5), eager.gradients(inputs, 0.5)
        assert loss == expected
        assert all(torch.equal(one, other) for one, other in zip(found, wanted))
        recorded = model.forward_loss(model(inputs["imgs"], {}, inputs["drop_path"]), inputs["targets"], {})
        assert abs(loss - recorded.item()) < 1e-6
        assert abs(loss - model.forward_loss(model(inputs["imgs"]), inputs["targets"], {}).item()) > 1e-3
        losses.append(loss)
    assert len(compilations) == 1
    assert len(set(losses)) == 3
    torch.compiler.reset()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_matrix_products_are_in_the_precision_asked_for(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = needs("torch")
    _, training, inputs = trained(precision=precision)
    attend, seen = torch.nn.functional.scaled_dot_product_attention, set()
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda q, *a, **k: seen.add(q.dtype) or attend(q, *a, **k)
    )
    _, found = training.gradients(inputs, 1.0)
    assert seen == {getattr(torch, precision)}
    assert {gradient.dtype for gradient in found} == {torch.float32}
