"""The batch norm before the linear probe's head in training: PyTorch's own, and every framework against the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import run_in
from in_use import needs
from numpy.typing import NDArray

from polymae.backends.averaging import Averaging
from polymae.backends.config import ViTConfig
from polymae.backends.initial import initial_weights
from polymae.backends.optimization import PROBING, Settings
from polymae.backends.presets import model_config
from polymae.backends.runtime import RuntimeProblem, load_backend
from polymae.training.steps import take

MODEL = "img_size=16,patch_size=8,embed_dim=12,depth=1,num_heads=3,num_classes=5,head_norm=True"


def config_of(train_encoder: bool) -> ViTConfig:
    config = model_config(f"{MODEL},train_encoder={train_encoder}")
    assert isinstance(config, ViTConfig)
    return config


def weights_of(config: ViTConfig) -> dict[str, NDArray[np.float32]]:
    weights, rng = initial_weights(config, 1), np.random.default_rng(2)
    weights["head_norm.mean"] = rng.standard_normal(12).astype(np.float32)
    weights["head_norm.var"] = rng.uniform(0.5, 2, 12).astype(np.float32)
    weights["head.weight"] = rng.standard_normal((5, 12)).astype(np.float32)
    return weights


def batch(step: int, size: int = 6) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(step)
    imgs = rng.standard_normal((size, 3, 16, 16)).astype(np.float32)
    return {"imgs": imgs, "labels": rng.integers(5, size=size)}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_it_is_the_batch_norm_of_pytorch_in_training(accumulate: int) -> None:
    """Losses, gradients and running statistics of torch.nn.BatchNorm1d, which goes by each part, as upstream's does."""
    torch = needs("torch")
    config, runtime = config_of(False), load_backend("numpy")
    weights = weights_of(config)
    model = runtime.build(config, weights, dtype="float64")
    optimizer = runtime.optimizer(model, Settings(betas=(0.0, 0.95)))  # the first moment is the gradient
    training = runtime.training(model, optimizer)
    norm = torch.nn.BatchNorm1d(12, affine=False, eps=1e-6).double()
    norm.running_mean.copy_(torch.from_numpy(weights["head_norm.mean"]))
    norm.running_var.copy_(torch.from_numpy(weights["head_norm.var"]))
    for step in range(2):
        head = [torch.tensor(runtime.weights(model)[f"head.{n}"], requires_grad=True) for n in ("weight", "bias")]
        given, losses = batch(step), []
        for part in range(accumulate):
            of = slice(part * 6 // accumulate, (part + 1) * 6 // accumulate)
            features = torch.from_numpy(model.encode(given["imgs"][of].astype(np.float64)))
            logits = torch.nn.functional.linear(norm(features), *head)
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(given["labels"][of])) / accumulate
            loss.backward()
            losses.append(float(loss))
        assert take(training, given, 1e-2, accumulate).loss == pytest.approx(sum(losses), rel=1e-13)
        moments = optimizer.state().m
        np.testing.assert_allclose(moments["head.weight"], head[0].grad.numpy(), rtol=1e-10)
        np.testing.assert_allclose(moments["head.bias"], head[1].grad.numpy(), rtol=1e-10)
    after = runtime.weights(model)
    np.testing.assert_allclose(after["head_norm.mean"], norm.running_mean.numpy(), rtol=1e-13)
    np.testing.assert_allclose(after["head_norm.var"], norm.running_var.numpy(), rtol=1e-13)
    encoder = [name for name in weights if not name.startswith("head")]
    assert len(encoder) > 10
    assert all(np.array_equal(after[name], weights[name]) for name in encoder)


def test_the_gradient_goes_through_the_batch_s_statistics() -> None:
    """Of an encoder that is trained under a batch norm, by central differences of the loss."""
    config, runtime = config_of(True), load_backend("numpy")
    weights = {name: array.astype(np.float64) for name, array in weights_of(config).items()}
    model = runtime.build(config, weights, dtype="float64")
    optimizer = runtime.optimizer(model, Settings(betas=(0.0, 0.95)))
    training = runtime.training(model, optimizer)
    take(training, batch(0), 0.0)
    found = optimizer.state().m

    def loss_at(name: str, step: float) -> float:
        moved = {**weights, name: weights[name].copy()}
        moved[name].flat[3] += step
        runtime.load_weights(model, moved)
        return training.accumulate(batch(0))

    for name in ("blocks.0.norm2.weight", "blocks.0.mlp.fc1.weight", "patch_embed.proj.weight", "head.weight"):
        slope = (loss_at(name, 1e-5) - loss_at(name, -1e-5)) / 2e-5
        assert found[name].flat[3] == pytest.approx(slope, rel=1e-4), name


def test_what_is_not_finite_changes_nothing() -> None:
    config, runtime = config_of(False), load_backend("numpy")
    model = runtime.build(config, weights_of(config))
    average = runtime.average(model, Averaging(0.5))
    training = runtime.training(model, runtime.optimizer(model, PROBING), average=average)
    before = runtime.weights(model)
    training.accumulate(batch(0))
    training.discard()
    training.accumulate(batch(0))
    training._held = [np.full_like(vector, np.inf) for vector in training._held or []]
    assert not np.isfinite(training.update(0.1))
    assert all(np.array_equal(array, before[name]) for name, array in runtime.weights(model).items())
    assert average.updates == 0
    take(training, batch(0), 0.1)
    assert not np.array_equal(runtime.weights(model)["head_norm.var"], before["head_norm.var"])
    assert average.updates == 1


def test_a_part_of_one_image_is_refused() -> None:
    config, runtime = config_of(False), load_backend("numpy")
    model = runtime.build(config, weights_of(config))
    training = runtime.training(model, runtime.optimizer(model, PROBING))
    with pytest.raises(RuntimeProblem, match="a part of one image. Give a larger batch_size"):
        take(training, batch(0), 0.1, accumulate=6)


SCRIPT = """
import sys
sys.path[:0] = ["{here}", "{here}/.."]
import numpy as np
from test_probe_training import batch, config_of, weights_of
from polymae.backends.averaging import Averaging
from polymae.backends.optimization import PROBING
from polymae.backends.runtime import load_backend
from polymae.training.steps import take
runtime = load_backend("{framework}")
runtime.setup()
found = {{}}
for train_encoder, steps in ((False, 3), (True, 1)):
    for compiled in {compiled}:
        config = config_of(train_encoder)
        model = runtime.build(config, weights_of(config), dtype="{dtype}")
        average = runtime.average(model, Averaging(0.5))
        optimizer = runtime.optimizer(model, PROBING)
        training = runtime.training(model, optimizer, compiled=compiled, average=average)
        losses = [take(training, batch(step), 0.1, 2).loss for step in range(steps)]
        own = f"{{train_encoder}}/{{compiled}}"
        found[f"{{own}}/loss"] = np.array(losses)
        weights = runtime.weights(model)
        for name in average.names:
            found[f"{{own}}/change/{{name}}"] = weights[name] - weights_of(config)[name].astype(np.float64)
            found[f"{{own}}/average/{{name}}"] = average.state().weights[name]
        with average.swapped():
            inside = runtime.run(model, batch(9)).taps["logits"]
        found[f"{{own}}/evaluated"] = np.stack([inside, runtime.run(model, batch(9)).taps["logits"]])
np.savez("{path}", **found)
"""


def taken(framework: str, path: Path, dtype: str, compiled: tuple[bool, ...]) -> dict[str, NDArray[Any]]:
    here = Path(__file__).parent
    run_in(framework, SCRIPT.format(framework=framework, path=path, dtype=dtype, compiled=compiled, here=here))
    with np.load(path) as found:
        return dict(found)


def test_every_framework_trains_the_same_probe(framework: str, tmp_path: Path) -> None:
    """Eager and, where the framework compiles its steps, compiled; gradients that are 0 but for roundoff left out."""
    compiled = (False, True) if framework in ("megengine", "mindspore") else (False,)
    oracle = taken("numpy", tmp_path / "oracle.npz", "float64", (False,))
    found = taken(framework, tmp_path / "found.npz", "float32", compiled)
    assert len(found) == len(oracle) * len(compiled)
    for name, actual in found.items():
        expected = oracle[_eager(name)]
        if name.startswith("True") and name.endswith(("qkv.bias", "fc_norm.weight", "fc_norm.bias")):
            continue  # whose gradient is but roundoff or eps: a batch norm takes out shift and scale
        error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        assert error <= (5e-4 if "change/" in name else 2e-5), (name, error)


def _eager(name: str) -> str:
    """What the oracle, which compiles nothing, calls it."""
    train_encoder, _, rest = name.split("/", 2)
    return f"{train_encoder}/False/{rest}"
