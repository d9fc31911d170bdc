"""Models as each framework's users handle theirs: names, copies, files, precision, training and evaluation."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_use import CONFIG, VIT, Array, Model, images, needs, noise

from polymae.backends.config import Config, ViTConfig
from polymae.backends.initial import initial_weights
from polymae.backends.naming import native_params
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.backends.spec import params
from polymae.hub import load

CONFIGS = {"autoencoder": CONFIG, "classifier": VIT}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> Config:
    return CONFIGS[request.param]


def outputs(model: Model) -> list[Array]:
    """All that a model gives for two images: every call below gives the same bits."""
    if isinstance(model.model.config, ViTConfig):
        return [model.runtime.to_numpy(model.model(model.tensor(images()))), model.encode(images())]
    return [*model(images(), noise()), model.encode(images(), "gap")]


def assert_equal(found: list[Array], expected: list[Array]) -> None:
    assert len(found) == len(expected) > 1
    for mine, theirs in zip(found, expected):
        np.testing.assert_array_equal(mine, theirs)


def state(framework: str, model: Any) -> dict[str, Any]:
    """Parameters by the name that the framework saves them under."""
    if framework == "mindspore":
        return {parameter.name: parameter for parameter in model.get_parameters()}
    return dict(model.named_parameters()) if framework == "numpy" else model.state_dict()


def other(framework: str, config: Config) -> Model:
    """A model whose weights are all zero."""
    model = Model(framework, config)
    weights = model.runtime.weights(model.model)
    model.runtime.load_weights(model.model, {name: np.zeros_like(array) for name, array in weights.items()})
    return model


def holding(model: Model, another: Any) -> Model:
    """The same around another model object."""
    held = copy.copy(model)
    held.model = another
    return held


def test_parameters_bear_the_names_of_the_dialect(framework: str, config: Config) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in state(framework, Model(framework, config).model).items()}
    assert found == {param.name: param.shape for param in native_params(framework, config)}
    if framework in ("torch", "oneflow"):
        assert set(found) == {param.name for param in params(config)}  # the official names


def test_a_copy_has_weights_of_its_own(framework: str, config: Config) -> None:
    model = Model(framework, config)
    before, copied = outputs(model), holding(model, copy.deepcopy(model.model))
    assert_equal(outputs(copied), before)
    weights = model.runtime.weights(model.model)
    model.runtime.load_weights(copied.model, {name: 0 * array for name, array in weights.items()})
    assert not np.array_equal(outputs(copied)[1], before[1])
    assert_equal(outputs(model), before)


def test_training_mode_changes_no_output(framework: str, config: Config) -> None:
    model = Model(framework, config)
    before = outputs(model)
    if framework == "numpy":  # it has no modes
        assert not hasattr(model.model, "training")
        return
    block = model.model.blocks[0]
    for training in (True, False):
        (model.model.set_train if framework == "mindspore" else model.model.train)(training)
        assert model.model.training is block.training is training
        assert_equal(outputs(model), before)


def test_a_pickled_model_computes_the_same(framework: str, config: Config) -> None:
    model = Model(framework, config)
    if framework == "mindspore":
        nn = needs("mindspore").nn
        with pytest.raises(TypeError) as own:  # MindSpore's layers are not pickled
            pickle.dumps(nn.Dense(2, 3))
        with pytest.raises(TypeError, match=str(own.value)):
            pickle.dumps(model.model)
        return
    assert_equal(outputs(holding(model, pickle.loads(pickle.dumps(model.model)))), outputs(model))


def test_torch_files(config: Config, tmp_path: Path) -> None:
    torch, model = needs("torch"), Model("torch", config)
    torch.save(model.model, tmp_path / "whole.pth")
    whole = torch.load(tmp_path / "whole.pth", weights_only=False)
    assert_equal(outputs(holding(model, whole)), outputs(model))
    torch.save(model.model.state_dict(), tmp_path / "state.pth")
    state_dict = torch.load(tmp_path / "state.pth", weights_only=True)
    again = other("torch", config)
    assert not again.model.load_state_dict(state_dict, strict=True).missing_keys
    assert_equal(outputs(again), outputs(model))
    state_dict.pop("norm.weight" if config is CONFIG else "fc_norm.weight")
    with pytest.raises(RuntimeError, match="Missing key"):
        again.model.load_state_dict(state_dict, strict=True)


def test_torch_precision_and_devices(config: Config) -> None:
    torch, model = needs("torch"), Model("torch", config)
    single = outputs(model)
    assert_equal(outputs(holding(model, copy.deepcopy(model.model).to(torch.float64).to(torch.float32))), single)
    double = holding(model, copy.deepcopy(model.model).double())
    for mine, theirs in zip(outputs(double), single):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    # A device without numbers: whatever were made on another one would be refused. Noise is drawn there too.
    nowhere = copy.deepcopy(model.model).to("meta")
    imgs = torch.empty(5, 3, 32, 32, device="meta")
    found = nowhere(imgs)
    assert (found[1].shape if config is CONFIG else found.shape) == ((5, 16, 192) if config is CONFIG else (5, 10))
    assert nowhere.encode(imgs).shape == (5, 48)
    assert nowhere.encode(imgs).device.type == "meta"


def test_only_what_is_trained_asks_for_gradients(framework: str, config: Config) -> None:
    model = Model(framework, config).model
    if framework in ("numpy", "megengine"):  # whose parameters do not say so: the spec does
        with pytest.raises(AttributeError, match="requires_grad"):
            _ = model.cls_token.requires_grad
        return
    found = {param.name for param, own in zip(native_params(framework, config), params(config)) if own.trainable}
    assert {name for name, tensor in named(framework, model) if tensor.requires_grad} == found
    assert ("pos_embed" in found) == (config is VIT)


def named(framework: str, model: Any) -> Any:
    return model.parameters_and_names() if framework == "mindspore" else model.named_parameters()


def test_megengine_files(config: Config, tmp_path: Path) -> None:
    mge, model = needs("megengine"), Model("megengine", config)
    mge.save(model.model, str(tmp_path / "whole.pkl"))
    assert_equal(outputs(holding(model, mge.load(str(tmp_path / "whole.pkl")))), outputs(model))
    mge.save(model.model.state_dict(), str(tmp_path / "state.pkl"))
    again = other("megengine", config)
    again.model.load_state_dict(mge.load(str(tmp_path / "state.pkl")), strict=True)
    assert_equal(outputs(again), outputs(model))


def test_mindspore_files(config: Config, tmp_path: Path) -> None:
    ms, model = needs("mindspore"), Model("mindspore", config)
    for ending in ("ckpt", "safetensors"):
        file = str(tmp_path / f"model.{ending}")
        ms.save_checkpoint(model.model, file, format=ending)
        again = other("mindspore", config)
        loaded = ms.load_checkpoint(file, format=ending)
        assert ms.load_param_into_net(again.model, loaded, strict_load=True) == ([], [])
        assert_equal(outputs(again), outputs(model))


def test_oneflow_files(config: Config, tmp_path: Path) -> None:
    flow, model = needs("oneflow"), Model("oneflow", config)
    flow.save(model.model, str(tmp_path / "whole"))
    assert_equal(outputs(holding(model, flow.load(str(tmp_path / "whole")))), outputs(model))
    flow.save(model.model.state_dict(), str(tmp_path / "state"))
    again = other("oneflow", config)
    again.model.load_state_dict(flow.load(str(tmp_path / "state")), strict=True)
    assert_equal(outputs(again), outputs(model))


def test_initial_weights_are_those_of_a_seed(framework: str) -> None:
    runtime = load_backend(framework)
    for seed in (0, 5):
        found = runtime.weights(load("mae_vit_test_patch8", framework, seed=seed))
        wanted = initial_weights(model_config("mae_vit_test_patch8"), seed)
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
