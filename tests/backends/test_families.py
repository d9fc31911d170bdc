"""The numerics of FlyEgle/MAE-pytorch and LiBai: facts about them, checked by a few lines of NumPy of their own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import examples
from frameworks import frameworks_under_test
from hypothesis import given
from hypothesis import strategies as st
from in_use import needs
from numpy.typing import NDArray
from scipy.special import erf

from polymae.backends.config import Config, MAEConfig
from polymae.backends.initial import initial_weights, sinusoid_table
from polymae.backends.presets import model_config
from polymae.backends.runtime import Recorded, load_backend
from polymae.backends.spec import encoder_params, loss_taps, params, taps
from polymae.compare import LEVELS
from polymae.compare.options import Comparison
from polymae.compare.report.report import Report
from polymae.compare.run import compare
from polymae.compare.trace import Trace

FLYEGLE = "flyegle_mae_vit_test_patch8"
LIBAI = "libai_mae_vit_test_patch8"
SMALL = "patch_size=4,embed_dim=24,depth=1,num_heads=2,decoder_embed_dim=12,decoder_depth=1,decoder_num_heads=2"
MIXED = f"img_size=(8,12),in_chans=2,{SMALL},head=conv,masking=raster,norm_pix_loss=True,block_norm_eps=1e-4"
MEAN = "img_size=16,patch_size=8,embed_dim=22,depth=2,num_heads=2,num_classes=7,pooling=mean,norm_eps=1e-5,positions=1d"
GRADIENT_FLAGS = ("torch", "mindspore", "oneflow")  # whose parameters say whether they are trained
Array = NDArray[Any]


def inputs_of(config: Config) -> dict[str, Array]:
    rng = np.random.default_rng(5)
    imgs = rng.standard_normal((3, config.in_chans, *config.img_size))
    if isinstance(config, MAEConfig):
        return {"imgs": imgs, "noise": rng.random((3, config.num_patches))}
    return {"imgs": imgs, "labels": np.array([1, 0, 2])}


def weights_of(config: Config) -> dict[str, Array]:
    """Initial weights with noise on all of them: zero biases and unit scales would hide a missing term."""
    rng = np.random.default_rng(6)
    return {
        name: (array + 0.05 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in initial_weights(config, 1).items()
    }


def ran(framework: str, config: Config, mask_ratio: float = 0.75) -> Recorded:
    runtime = load_backend(framework)
    runtime.setup()
    return runtime.run(runtime.build(config, weights_of(config), dtype="float64"), inputs_of(config), mask_ratio, True)


def distance(actual: Array, expected: Array) -> float:
    return float(np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-300))


def same_as_torch(config: Config, mask_ratio: float = 0.75) -> None:
    """Forward to 1e-13 and hand-derived gradients to 1e-12, the bounds of test_oracle.py."""
    (actual, actual_gradients, _), (expected, gradients, _) = (
        ran("numpy", config, mask_ratio),
        ran("torch", config, mask_ratio),
    )
    assert list(actual) == list(expected) == [tap.name for tap in (*taps(config), *loss_taps(config))]
    assert set(actual_gradients) == set(gradients) == {param.name for param in params(config)}
    for name, array in expected.items():
        assert distance(actual[name], array) < 1e-13, name
    for name, array in gradients.items():
        assert distance(actual_gradients[name], array) < 1e-12, name
        assert np.linalg.norm(array) > 0, f"{name} has no gradient"


@pytest.mark.parametrize("mask_ratio", [0.75, 0.5])
@pytest.mark.parametrize("model", [FLYEGLE, LIBAI, MIXED, MEAN, "flyegle_vit_test_patch8", "libai_vit_test_patch8"])
def test_the_oracle_equals_autograd(model: str, mask_ratio: float) -> None:
    same_as_torch(model_config(model), mask_ratio)


@examples(15)
@given(
    block_norm_eps=st.sampled_from([None, 1e-5, 1e-3]), positions=st.sampled_from(["1d", "2d"]),
    decoder_norm=st.booleans(), head=st.sampled_from(["linear", "conv"]), masking=st.sampled_from(["shuffled", "raster"]),
    loss_over=st.sampled_from(["removed", "all"]), norm_pix_loss=st.booleans(), train_positions=st.booleans(),
)  # fmt: skip
def test_every_mixture_of_autoencoders_equals_autograd(**mixed: Any) -> None:
    same_as_torch(model_config(f"img_size=(8,12),in_chans=2,{SMALL}", **mixed))


REQUIRES_GRAD = """
import json, sys
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
framework, *models = sys.argv[1:]
runtime = load_backend(framework)
def trained(model):
    norm = [model.head_norm.mean, model.head_norm.var] if hasattr(model, "head_norm") else []
    return [parameter.requires_grad for parameter in (model.cls_token, model.pos_embed, *norm)]
print(json.dumps([trained(runtime.build(model_config(model))) for model in models]))
"""


@pytest.mark.parametrize("framework", [name for name in frameworks_under_test() if name in GRADIENT_FLAGS])
def test_training_changes_the_tables_that_the_spec_says(framework: str) -> None:
    expected = {FLYEGLE: False, LIBAI: True, "vit_test_patch8": True, "flyegle_vit_test_patch8": False}
    for model, trained in expected.items():
        tables = [param.trainable for param in params(model_config(model)) if param.role == "position"]
        assert set(tables) == {trained}
    # In a process of its own, as all frameworks run: some change this one for the tests that follow.
    command = [sys.executable, "-c", REQUIRES_GRAD, framework, *expected, "head_norm=True,depth=1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(said.splitlines()[-1]) == [
        *([True, trained] for trained in expected.values()),
        [True, True, False, False],
    ]


# FlyEgle's facts, from a reading of it: nothing below calls the code that it checks.


def test_the_1d_table_counts_the_class_token_and_interleaves() -> None:
    table = initial_weights(model_config(FLYEGLE))["pos_embed"]
    assert table.shape == (1, 17, 48)
    assert (table[0, 0] == np.tile([0, 1], 24)).all()  # the class token is position 0
    for position, channel in ((1, 0), (1, 1), (16, 0), (16, 7), (5, 47)):  # patch i has position i + 1
        angle = position / 10000 ** (channel // 2 * 2 / 48)
        expected = math.cos(angle) if channel % 2 else math.sin(angle)
        assert table[0, position, channel] == pytest.approx(expected, abs=2e-6)


def test_the_1d_table_is_that_of_float32_steps() -> None:
    """As the weights were trained with it; an exact table differs by a hundred times more than another exp does."""
    torch = needs("torch")
    positions = torch.arange(197).float()[:, None]
    upstream = np.zeros((197, 768), np.float32)
    div = torch.exp(torch.arange(0, 768, 2).float() * -(math.log(10000.0) / 768))
    upstream[:, 0::2], upstream[:, 1::2] = torch.sin(positions * div), torch.cos(positions * div)
    exact = np.arange(197)[:, None] / 10000 ** (np.arange(0, 768, 2) / 768)
    exact_table = np.stack([np.sin(exact), np.cos(exact)], -1).reshape(197, 768).astype(np.float32)
    ours = sinusoid_table(768, 197)[0]
    assert np.mean(ours != upstream) < 0.1
    assert np.mean(exact_table != upstream) > 0.3
    assert distance(ours, upstream) < distance(exact_table, upstream) / 2


@pytest.fixture(scope="module")
def compared(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Report, Path]]:
    """A function that compares the frameworks on a model, once, and gives the report and the folder of the traces."""

    @cache
    def run(model: str) -> tuple[Report, Path]:
        folder = tmp_path_factory.mktemp("compared")
        levels = LEVELS[:-2]  # tests/compare/test_training.py trains the families
        return compare(Comparison(frameworks=frameworks_under_test(), model=model, levels=levels, keep=folder)), folder

    return run


Compared = Callable[[str], tuple[Report, Path]]


@pytest.mark.parametrize("framework", frameworks_under_test())
def test_one_mask_for_the_batch_in_raster_order(framework: str, compared: Compared) -> None:
    found = Trace(compared(FLYEGLE)[1] / f"{framework}.npz")
    kept = sorted(np.argsort(found["input/noise"][0])[:4])  # 16 patches at 0.75
    order = [*kept, *(i for i in range(16) if i not in kept)]
    assert len(found["mask"]) == 2
    for image in range(2):
        assert [order.index(i) for i in range(16)] == list(found["ids_restore"][image])
        assert [float(i not in kept) for i in range(16)] == list(found["mask"][image])
        assert np.array_equal(found["tokens"][image, 1:], found["pos_embed"][image, kept])


@pytest.mark.parametrize("framework", frameworks_under_test())
def test_the_loss_is_the_masked_mean_times_the_masked_fraction(framework: str, compared: Compared) -> None:
    found = Trace(compared(FLYEGLE)[1] / f"{framework}.npz")
    square = (found["pred"].astype(np.float64) - found["target"]) ** 2
    removed = found["mask"].astype(bool)
    assert float(found["loss"]) == pytest.approx(square[removed].mean() * 0.75, rel=1e-6)


def test_the_head_is_a_norm_and_a_transposed_convolution() -> None:
    config = model_config(FLYEGLE)
    w = {name: array.astype(np.float64) for name, array in weights_of(config).items()}
    found = ran("numpy", config).taps
    t = found["decoder_blocks.1"][:, 1:] @ w["decoder_pred.weight"].T + w["decoder_pred.bias"]  # no decoder norm
    t = (t - t.mean(-1, keepdims=True)) / np.sqrt(t.var(-1, keepdims=True) + 1e-12)
    t = t * w["patch_norm.weight"] + w["patch_norm.bias"]
    pixels = np.einsum("nlk,kcij->nlijc", t, w["unconv.weight"]) + w["unconv.bias"]
    assert distance(found["pred"], pixels.reshape(3, 16, 192)) < 1e-13


def test_the_parameters_are_those_of_the_published_files() -> None:
    listed = {p.name: p.size for p in params(model_config("flyegle_mae_vit_base_patch16"))}
    ours = sum(size for name, size in listed.items() if name not in ("pos_embed", "decoder_pos_embed", "mask_token"))
    gray = unused_patch_embed = 512 * 768 + 512
    unused = 512 + unused_patch_embed + 2 * 512 + 2 * 768  # Decoder.cls_token, its patch_embed and norm, and norm
    assert ours + gray + unused == 113_036_035
    config = model_config(FLYEGLE)
    assert isinstance(config, MAEConfig)
    assert not [p.name for p in encoder_params(config) if p.name.startswith(("unconv", "patch_norm", "decoder"))]


def block_by_hand(x: Array, w: Callable[[str], Array], heads: int, eps: float) -> Array:
    """A transformer block in plain NumPy."""

    def norm(x: Array, name: str) -> Array:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return x * w(f"{name}.weight") + w(f"{name}.bias")

    def linear(x: Array, name: str) -> Array:
        return x @ w(f"{name}.weight").T + w(f"{name}.bias")

    N, T, D = x.shape
    q, k, v = np.moveaxis(linear(norm(x, "norm1"), "attn.qkv").reshape(N, T, 3, heads, D // heads), 2, 0)
    scores = np.exp(np.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(D // heads))
    mixed = np.einsum("nhqk,nkhd->nqhd", scores / scores.sum(-1, keepdims=True), v)
    x = x + linear(mixed.reshape(N, T, D), "attn.proj")
    hidden = linear(norm(x, "norm2"), "mlp.fc1")
    return x + linear(hidden * (1 + erf(hidden / math.sqrt(2))) / 2, "mlp.fc2")


def test_libai_has_another_eps_inside_its_blocks() -> None:
    config = model_config(LIBAI)
    weights = weights_of(config)
    found = ran("numpy", config).taps
    x = found["tokens"]
    by_eps = {
        eps: block_by_hand(x, lambda name: weights[f"blocks.0.{name}"].astype(np.float64), 3, eps)
        for eps in (1e-5, 1e-6)
    }
    assert distance(found["blocks.0"], by_eps[1e-5]) < 1e-13
    assert distance(found["blocks.0"], by_eps[1e-6]) > 1e-8
    last = found["blocks.2"]
    normed = (last - last.mean(-1, keepdims=True)) / np.sqrt(last.var(-1, keepdims=True) + 1e-6)
    assert distance(found["latent"], normed * weights["norm.weight"] + weights["norm.bias"]) < 1e-13


@pytest.mark.parametrize("model", [FLYEGLE, LIBAI, MIXED, MEAN])
def test_every_framework_is_within_roundoff(model: str, compared: Compared) -> None:
    report, _ = compared(model)
    assert {j.label for j in report.judgements} == set(frameworks_under_test())
    for judgement in report.judgements:
        assert report.verdict(judgement) in ("roundoff", "explained"), report.reason(judgement)
        if judgement.label != "mindspore":  # only its softmax is known to be inaccurate
            assert report.verdict(judgement) == "roundoff", report.reason(judgement)
    assert report.exit_status == 0
