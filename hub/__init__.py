"""`load` a named model in any framework, with weights from any checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..backends.presets import ALIASES, NAMED, model_config
from ..backends.runtime import load_backend, require_device
from ..convert.checkpoint import open_checkpoint
from ..convert.choice import model_of

__all__ = ["list_models", "load"]


def list_models() -> list[str]:
    """Every name that `load` takes, the official long names included."""
    return sorted([*NAMED, *ALIASES])


def load(
    name: str,
    framework: str = "torch",
    weights: str | Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Any:
    """A model of one framework (a torch.nn.Module, megengine Module, mindspore Cell, ...), ready to run.

    name: a preset, a JSON file or "img_size=32,patch_size=8,...". weights: a checkpoint of any framework's format,
    converted on the way (None: initial weights). Raises Problem where a name, the file, the framework or the device is
    not to be had; the message says what to do.
    """
    runtime = load_backend(framework)
    require_device(runtime, framework, device)
    if weights is None:
        return runtime.build(model_config(name), None, device, dtype)
    checkpoint = open_checkpoint(weights)
    _, config = model_of(checkpoint, name)
    return runtime.build(config, checkpoint.weights(config), device, dtype)
