"""What the spec says a tap is made of, checked against the NumPy model, and the backward pass that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from polymae.backends.config import Config, MAEConfig
from polymae.backends.gradient_taps import backward_taps, gradient_taps
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.backends.spec import loss_taps, params, taps
from polymae.compare.judge.local_error_forward import forward_expected
from polymae.compare.record.inputs import random_inputs

Arrays = dict[str, NDArray[Any]]

SIZE = "img_size=16,patch_size=8,embed_dim=24,depth=2,num_heads=2"
MAE = f"{SIZE},decoder_embed_dim=12,decoder_depth=2,decoder_num_heads=2"
MODELS = [
    MAE,
    f"{MAE},head=conv,norm_pix_loss=True,loss_over=all",
    f"{MAE},head=conv,decoder_norm=False,masking=raster",
    *[f"{SIZE},num_classes=5,pooling={pooling}" for pooling in ("gap", "cls", "mean")],
    f"{SIZE},num_classes=5,head_norm=True",
    f"{MAE},in_chans=1,img_size=(32,8)",  # its patches are a view of the images
]


def weights_of(config: Config) -> Arrays:
    rng = np.random.default_rng(3)
    return {name: array + 0.1 * rng.standard_normal(array.shape) for name, array in initial_weights(config).items()}


def run_of(config: Config, tuned: bool = False) -> tuple[Any, Arrays]:
    """A float64 model, and its inputs and taps as a trace names them. tuned: with drop path and soft targets."""
    runtime = load_backend("numpy")
    model = runtime.build(config, weights_of(config), dtype="float64")
    inputs = random_inputs(config, 3, drop_path=0.5, soft_targets=True) if tuned else random_inputs(config, 3)
    inputs = {n: array.astype(np.float64) if array.dtype == np.float32 else array for n, array in inputs.items()}
    return model, {**{f"input/{n}": a for n, a in inputs.items()}, **runtime.run(model, inputs, 0.5).taps}


def expected_of(own: Mapping[str, NDArray[Any]], model: Any) -> Arrays:
    seen: Arrays = {}
    forward_expected(own, model, 0.5, lambda name, value: seen.update({name: np.array(value)}))
    return seen


def changed(before: Arrays, after: Arrays) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name])}


def other(name: str, array: NDArray[Any], config: Config) -> NDArray[Any]:
    """Another tensor of the same kind."""
    if name in ("mask", "input/noise"):
        return 1 - array
    if name == "ids_restore":
        return np.roll(array, 1, axis=1)
    if name == "input/labels":
        return (array + 1) % config.num_classes
    return array + 0.5 * np.random.default_rng(0).standard_normal(array.shape)


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_a_tap_is_made_of_what_the_spec_says(model: str, tuned: bool) -> None:
    """Another tensor in its place changes those that take it, and no other; so does another parameter."""
    config = model_config(model)
    if tuned and isinstance(config, MAEConfig):
        return
    listed = [*taps(config), *loss_taps(config)]
    oracle, own = run_of(config, tuned)
    before = expected_of(own, oracle)
    assert list(before) == [tap.name for tap in listed]
    assert all(np.array_equal(before[name], own[name]) for name in before)
    for name, array in own.items():
        after = expected_of({**own, name: other(name, array, config)}, oracle)
        assert changed(before, after) == {tap.name for tap in listed if name in tap.of}, name
    for param in params(config):
        weights = weights_of(config)
        weights[param.name] = weights[param.name] + np.random.default_rng(0).random(param.shape)
        after = expected_of(own, load_backend("numpy").build(config, weights, dtype="float64"))
        users = {tap.name for tap in listed if param.module in (tap.by or (tap.name,))}
        assert changed(before, after) == users, param.name
        assert users


def test_the_backward_pass_of_a_small_model() -> None:
    config = model_config(f"{SIZE.replace('depth=2', 'depth=1')},num_classes=5,head_norm=True")
    assert [(tap.name, tap.operation) for tap in gradient_taps(config)] == [
        ("logits", "cross entropy"),
        ("head_norm", "linear"),
        ("latent", "batch norm"),
        ("blocks.0", "layer norm"),
        ("blocks.0.mlp.gelu", "linear"),
        ("blocks.0.mlp.fc1", "gelu"),
        ("blocks.0.norm2", "linear"),
        ("blocks.0.residual", "layer norm"),
        ("blocks.0.attn.softmax", "linear"),
        ("blocks.0.attn.qkv", "softmax"),
        ("blocks.0.norm1", "linear"),
        ("tokens", "layer norm"),
    ]
    listed = [tap.name for tap in backward_taps(config)]
    for behind, before in (
        ("dy/blocks.0.residual", "grad/blocks.0.attn.proj.bias"),  # of a copy
        ("dy/blocks.0", "grad/blocks.0.mlp.fc2.weight"),
        ("dy/blocks.0.attn.qkv", "grad/blocks.0.attn.qkv.weight"),
        ("dy/tokens", "grad/patch_embed.proj.weight"),
        ("dy/tokens", "grad/pos_embed"),
        ("dy/logits", "grad/head.weight"),
    ):
        after = [name for name in listed[listed.index(behind) + 1 :] if name.startswith("dy/")]
        end = listed.index(after[0]) if after else len(listed)
        assert listed.index(behind) < listed.index(before) < end, before


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_has_its_place_in_the_backward_pass(model: str) -> None:
    config = model_config(model)
    names = [tap.name for tap in backward_taps(config)]
    assert len(set(names)) == len(names)
    assert {name for name in names if name.startswith("grad/")} == {f"grad/{param.name}" for param in params(config)}
