"""Small models of every framework, and what to call them with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from mutants.models import trained_weights
from numpy.typing import NDArray
from untested import require

from polymae.backends.config import MAEConfig, ViTConfig
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.backends.spec import params

CONFIG = model_config("mae_vit_test_patch8")
VIT = model_config("vit_test_patch8")
assert isinstance(CONFIG, MAEConfig)
assert isinstance(VIT, ViTConfig)
SMALL = replace(CONFIG, depth=1, decoder_depth=1)  # for compilers
POOLINGS = ("cls", "gap", "tokens", None)
Array = NDArray[Any]


def images(batch: int = 2) -> Array:
    return np.random.default_rng(1).standard_normal((batch, 3, 32, 32)).astype(np.float32)


def noise(batch: int = 2) -> Array:
    return np.random.default_rng(2).random((batch, 16)).astype(np.float32)


class Model:
    """A model of a framework that takes and gives arrays."""

    def __init__(self, framework: str, config: Any = CONFIG, dtype: str = "float32"):
        self.runtime = load_backend(framework)
        weights = trained_weights(CONFIG)
        own = trained_weights(config) if config is not CONFIG else weights
        shared = {param.name: weights.get(param.name, own[param.name]) for param in params(config)}
        self.model = self.runtime.build(config, shared, dtype=dtype)

    def tensor(self, array: Array) -> Any:
        return self.runtime.from_numpy(array, self.model)

    def encode(self, imgs: Array, *pooling: str | None) -> Array:
        return self.runtime.to_numpy(self.model.encode(self.tensor(imgs), *pooling))

    def __call__(self, imgs: Array, *arguments: Any, **named: Any) -> list[Array]:
        arguments = tuple(self.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments)
        return [self.runtime.to_numpy(t) for t in self.model(self.tensor(imgs), *arguments, **named)]


def needs(framework: str) -> Any:
    """A framework's own module; skips where it is not under test."""
    require(framework)
    return __import__(framework)


def arrays(found: Any) -> list[Array]:
    """What a model of any framework returned: one tensor or several."""
    several = found if isinstance(found, (tuple, list)) else [found]
    taken = [t.asnumpy() if hasattr(t, "asnumpy") else (t.detach() if hasattr(t, "detach") else t) for t in several]
    return [np.array(t.numpy() if hasattr(t, "numpy") else t) for t in taken]


def assert_same(found: Any, expected: Any) -> None:
    mine, theirs = arrays(found), arrays(expected)
    assert [a.shape for a in mine] == [a.shape for a in theirs]
    for a, b in zip(mine, theirs):
        np.testing.assert_array_equal(a, b)


def called(framework: str, config: Any = SMALL, batch: int = 2) -> tuple[Any, Any, Any]:
    """A model, images and noise of a framework."""
    model = Model(framework, config)
    return model.model, model.tensor(images(batch)), model.tensor(noise(batch))
