"""The official linear probe's head: a batch norm by running statistics before the linear layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from in_use import needs
from mutants.recording import Mutant, record_mutant
from numpy.typing import NDArray

from polymae.backends.config import ConfigError, ViTConfig
from polymae.backends.initial import initial_weights
from polymae.backends.naming import native_params
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.backends.spec import params, taps
from polymae.compare.judge.local_error import OwnTaps, introduced, oracle_model
from polymae.compare.trace import Trace

MODEL = "img_size=16,patch_size=8,embed_dim=12,depth=1,num_heads=3,num_classes=5,head_norm=True"
POOLINGS = ("gap", "cls", "mean")


def trained(config: ViTConfig) -> dict[str, NDArray[np.float32]]:
    """Weights with the statistics of some training: the initial ones do nothing."""
    weights, rng = initial_weights(config, 1), np.random.default_rng(2)
    weights["head_norm.mean"] = rng.standard_normal(12).astype(np.float32)
    weights["head_norm.var"] = rng.uniform(1e-6, 2, 12).astype(np.float32)
    weights["head.weight"] = rng.standard_normal((5, 12)).astype(np.float32)
    return weights


def config_with(pooling: str) -> ViTConfig:
    config = model_config(f"{MODEL},pooling={pooling}")
    assert isinstance(config, ViTConfig)
    return config


@pytest.mark.parametrize("pooling", POOLINGS)
def test_it_is_the_batch_norm_of_pytorch_in_evaluation(pooling: str) -> None:
    torch = needs("torch")
    config = config_with(pooling)
    weights, rng = trained(config), np.random.default_rng(3)
    # As upstream builds it, without our backend for PyTorch.
    head = torch.nn.Sequential(torch.nn.BatchNorm1d(12, affine=False, eps=1e-6), torch.nn.Linear(12, 5))
    names = {"0.running_mean": "head_norm.mean", "0.running_var": "head_norm.var", "1.weight": "head.weight"}
    state = {name: torch.from_numpy(weights[ours]) for name, ours in (names | {"1.bias": "head.bias"}).items()}
    head.load_state_dict(state | {"0.num_batches_tracked": torch.tensor(9)})
    head.double().eval()
    runtime = load_backend("numpy")
    inputs = {"imgs": rng.standard_normal((3, 3, 16, 16)), "labels": np.array([1, 0, 4])}
    found, gradients, _ = runtime.run(runtime.build(config, weights, dtype="float64"), inputs, gradients=True)
    latent = torch.from_numpy(found["latent"])
    np.testing.assert_allclose(found["head_norm"], head[0](latent).numpy(), rtol=1e-13)
    logits = head(latent)
    np.testing.assert_allclose(found["logits"], logits.detach().numpy(), rtol=1e-12)
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(inputs["labels"])).backward()
    np.testing.assert_allclose(gradients["head.weight"], head[1].weight.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_spec_has_two_frozen_statistics_before_the_head(pooling: str) -> None:
    config = config_with(pooling)
    listed = params(config)
    names = [param.name for param in listed]
    at = names.index("head.weight")
    assert names[at - 2 : at] == ["head_norm.mean", "head_norm.var"]
    statistics = listed[at - 2 : at]
    assert [(p.shape, p.role, p.trainable) for p in statistics] == [
        ((12,), "norm.mean", False),
        ((12,), "norm.var", False),
    ]
    assert [tap.name for tap in taps(config)][-4:] == ["latent", "head_norm", "logits", "loss"]
    weights = initial_weights(config)
    assert not weights["head_norm.mean"].any()
    assert (weights["head_norm.var"] == 1).all()
    without = model_config(f"{MODEL},pooling={pooling}".replace("True", "False"))
    assert [p.name for p in params(without)] == [name for name in names if not name.startswith("head_norm")]


def test_every_framework_calls_them_the_same(framework: str) -> None:
    names = [param.name for param in native_params(framework, config_with("gap"))]
    assert {"head_norm.mean", "head_norm.var"} <= set(names)


def test_it_is_a_setting_of_classifiers() -> None:
    assert model_config("head_norm=true,depth=3") == ViTConfig(head_norm=True, depth=3)
    assert not ViTConfig().head_norm
    with pytest.raises(ConfigError, match="must be True or False"):
        ViTConfig(head_norm=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be bool"):
        model_config("head_norm=1")
    with pytest.raises(ConfigError, match="Unknown model setting 'decoder_depth'"):
        model_config("head_norm=True,decoder_depth=1")


def test_its_own_error_is_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    np.savez(tmp_path / "in.npz", imgs=rng.standard_normal((2, 3, 16, 16)).astype(np.float32), labels=np.array([0, 3]))
    config = config_with("gap")
    weights = initial_weights(config, 0)
    errors = {}
    for fault in (None, "head norm eps ten times larger"):
        record_mutant(Mutant("numpy", tmp_path / "t.npz", tmp_path / "in.npz", model=MODEL, fault=fault))
        errors[fault] = dict(introduced(OwnTaps(Trace(tmp_path / "t.npz")), oracle_model(config, weights)))
    right, wrong = errors.values()
    assert 0 <= right["head_norm"] < 3
    assert wrong["head_norm"] > 20
    assert 0 < wrong["logits"] < 3  # measured from the norm's own output
