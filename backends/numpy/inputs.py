"""What NumPy's model is called with, looked at: arrays, where the other frameworks' take tensors."""

from __future__ import annotations

from typing import Any

from ..config import Config
from ..inputs import check_pooling, check_shapes

__all__ = ["check_inputs", "check_pooling"]


def check_inputs(imgs: Any, noise: Any, config: Config) -> None:
    """As that of backends/inputs.py."""
    check_shapes(getattr(imgs, "shape", imgs), getattr(noise, "shape", noise), getattr(imgs, "dtype", None), config)
