"""The NumPy oracle against torch in float64: its forward pass to 1e-13, its hand-derived gradients to 1e-12."""

import numpy as np
import pytest

from polymae.backends.config import Config, MAEConfig
from polymae.backends.gradient_taps import gradient_taps
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.backends.spec import loss_taps, params, taps
from polymae.compare.record.inputs import random_inputs

SMALL = "embed_dim=48,depth=2,num_heads=3,decoder_embed_dim=32,decoder_depth=2,decoder_num_heads=4"
MODELS = [
    f"img_size=(32,48),patch_size=8,in_chans=1,{SMALL}",  # not square, one channel
    f"img_size=56,patch_size=14,norm_pix_loss=True,{SMALL.replace('48', '80').replace('num_heads=3', 'num_heads=1')}",
    "vit_test_patch8",
    "img_size=(16,32),patch_size=8,embed_dim=24,depth=2,num_heads=2,num_classes=7,pooling=cls",
    "img_size=16,patch_size=8,embed_dim=24,depth=1,num_heads=2,num_classes=7,head_norm=True",
    "img_size=16,patch_size=8,embed_dim=24,depth=1,num_heads=2,num_classes=7,pooling=cls,head_norm=True",
]  # fmt: skip


def _distance(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-300))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mask_ratio", [0.75, 0.5])
def test_forward_and_gradients_equal_autograd(model: str, mask_ratio: float) -> None:
    config = model_config(model)
    rng = np.random.default_rng(5)
    inputs: dict[str, np.ndarray] = {"imgs": rng.standard_normal((3, config.in_chans, *config.img_size))}
    if isinstance(config, MAEConfig):
        inputs["noise"] = rng.random((3, config.num_patches))
    else:
        inputs["labels"] = np.array([1, 0, 5])
    _assert_those_of_autograd(config, inputs, mask_ratio)


@pytest.mark.parametrize("model", [model for model in MODELS if not isinstance(model_config(model), MAEConfig)])
def test_with_drop_path_and_soft_targets(model: str) -> None:
    """Also with targets whose sum is not 1: softmax is weighed by it in the gradient."""
    config = model_config(model)
    inputs: dict[str, np.ndarray] = random_inputs(config, 5, drop_path=0.5, soft_targets=True)
    inputs["drop_path"][:, 0, 1] = [2, 0, 2, 2, 0]  # in the first block, too
    inputs["targets"][0] *= 3
    assert (inputs["drop_path"] == 0).any()
    _assert_those_of_autograd(config, inputs, 0.75)


def _assert_those_of_autograd(config: Config, inputs: dict[str, np.ndarray], mask_ratio: float) -> None:
    rng = np.random.default_rng(6)
    # Noise on all of them: zero biases and unit scales would hide a missing term.
    weights = {
        name: (array + 0.05 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in initial_weights(config, 1).items()
    }
    found = {}
    for framework in ("numpy", "torch"):
        runtime = load_backend(framework)
        runtime.setup()
        found[framework] = runtime.run(runtime.build(config, weights, dtype="float64"), inputs, mask_ratio, True)
    (actual, actual_gradients, actual_dy), (expected, expected_gradients, expected_dy) = found["numpy"], found["torch"]
    assert list(actual) == list(expected) == [tap.name for tap in (*taps(config), *loss_taps(config))]
    assert set(actual_gradients) == set(expected_gradients) == {param.name for param in params(config)}
    for name, array in expected.items():
        assert _distance(actual[name], array) < 1e-13, name
    for name, array in expected_gradients.items():
        assert actual_gradients[name].dtype == np.float64
        assert _distance(actual_gradients[name], array) < 1e-12, name
    assert list(actual_dy) == list(expected_dy) == [tap.name for tap in gradient_taps(config)]
    for name, array in expected_dy.items():
        assert _distance(actual_dy[name], array) < 1e-12, f"dy/{name}"


def test_a_wrong_term_in_the_backward_pass_is_seen() -> None:
    """The bound of the test above is not idle: leaving the variance's share out of LayerNorm's gradient breaks it."""
    from polymae.backends.numpy.backward import _layer_norm
    from polymae.backends.numpy.layers import LayerNorm

    rng = np.random.default_rng(0)
    layer = LayerNorm(8, eps=1e-6)
    layer.weight, x, dy = rng.standard_normal(8), rng.standard_normal((3, 8)), rng.standard_normal((3, 8))
    step = 1e-6

    def value(x: np.ndarray) -> float:
        return float((layer(x) * dy).sum())

    numeric = np.array([
        [(value(x + step * e) - value(x - step * e)) / (2 * step) for e in np.eye(24)[8 * i : 8 * i + 8].reshape(8, 3, 8)]
        for i in range(3)
    ])  # fmt: skip
    right = _layer_norm(layer, x, dy, {}, "norm")
    _, rstd = layer.normalised(x)
    weighted = dy * layer.weight
    wrong = rstd * (weighted - weighted.mean(axis=-1, keepdims=True))
    assert _distance(right, numeric) < 1e-8
    assert _distance(wrong, numeric) > 1e-2


def test_twins_differ_from_the_plain_run_and_from_each_other() -> None:
    from polymae.backends.numpy.sums import summed_in_chains

    runtime = load_backend("numpy")
    config = model_config("mae_vit_test_patch8")
    rng = np.random.default_rng(0)
    inputs = {"imgs": rng.standard_normal((2, 3, 32, 32)), "noise": rng.random((2, 16))}
    preds = []
    for seed in (None, 1, 2, 1):
        model = runtime.build(config)
        if seed is None:
            preds.append(runtime.run(model, inputs)[0]["pred"])
            continue
        with summed_in_chains(seed):
            preds.append(runtime.run(model, inputs)[0]["pred"])
    plain, first, second, again = preds
    assert not np.array_equal(plain, first)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, again)
    assert _distance(first, plain) < 1e-5
