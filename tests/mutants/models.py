"""The models in which faults are planted: small, with weights as after training, so that no fault is hidden.

Fresh weights hide many: biases of 0 cannot be missed, scales of 1 cannot be forgotten.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polymae.backends.config import Config, ViTConfig
from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.backends.spec import Param, params
from polymae.compare.record.inputs import random_inputs
from polymae.compare.trace import Inputs
from polymae.convert.writing import write_checkpoint

from . import FAULTS

# Every fault in the first of these that fits: that of its family where it needs one, the official model else.
MODELS = (
    "mae_vit_test_patch8",
    "flyegle_mae_vit_test_patch8",
    "libai_mae_vit_test_patch8",
    "img_size=16,patch_size=8,embed_dim=48,depth=2,num_heads=3,num_classes=10,head_norm=True",
    "img_size=16,patch_size=8,embed_dim=48,depth=2,num_heads=3,num_classes=10",
)
TUNED = MODELS[-1]  # its run has drop path and soft targets, as in fine-tuning


OF_ONE_PASS = ("forward", "loss", "gradients")  # the levels of faults that depend on the size of the model


@cache
def model_of_fault(name: str) -> str:
    """The first of MODELS in which a fault makes a difference."""
    models = [TUNED] if FAULTS[name].tuned else MODELS
    return next(model for model in models if FAULTS[name].fits(model_config(model)))


def planted_in(model: str, framework: str) -> list[str]:
    """The names of the faults that are planted in this model, in this framework.

    In a model that is not one of MODELS all that fit and show in one pass of it: its weights, and what is trained, are as
    there.
    """
    if model in MODELS:
        return [name for name in FAULTS if framework in FAULTS[name].frameworks and model_of_fault(name) == model]
    config = model_config(model)
    faults = (fault for fault in FAULTS.values() if fault.level in OF_ONE_PASS and framework in fault.frameworks)
    return [fault.name for fault in faults if fault.fits(config)]


def trained_weights(config: Config, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights by spec name as training leaves them: every bias and token is not zero, every scale is not one."""
    rng = np.random.Generator(np.random.Philox(seed))
    fresh = initial_weights(config, seed)
    return {param.name: _trained(rng, param, fresh[param.name]) for param in params(config)}


def _trained(rng: np.random.Generator, param: Param, fresh: NDArray[np.float32]) -> NDArray[np.float32]:
    normal = rng.standard_normal(param.shape, np.float32)
    if param.role in ("norm.weight", "norm.var"):
        return rng.uniform(0.25, 2, param.shape).astype(np.float32)
    if param.role == "position":
        return fresh + np.float32(0.1) * normal
    if param.role.endswith("weight"):
        return normal / np.float32(math.sqrt(math.prod(param.shape[1:])))
    return np.float32(0.2) * normal


def write_subject(folder: Path, model: str) -> tuple[Path, Path]:
    """The weights and inputs of one of MODELS as files, for Run.weights and Run.inputs."""
    config = model_config(model)
    weights, inputs = folder / "weights.pth", folder / "inputs.npz"
    write_checkpoint("torch", weights, config, trained_weights(config))
    tuned = model == TUNED or (model not in MODELS and isinstance(config, ViTConfig))
    np.savez(inputs, **contrasting_inputs(config, tuned))
    return weights, inputs


def contrasting_inputs(config: Config, tuned: bool = False) -> Inputs:
    """Two random images; the second has little contrast, as a clear sky has, which the eps of a variance shows in.

    tuned: four images with drop path and soft targets, for a classifier; one has each of the draws in the last block.
    """
    inputs = random_inputs(config, 4, 6, drop_path=0.5, soft_targets=True) if tuned else random_inputs(config)
    inputs["imgs"][1:] *= np.float32(1 / 32)
    return inputs
