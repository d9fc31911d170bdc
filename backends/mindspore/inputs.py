"""What a model is called with, looked at where MindSpore compiles it too: there it is looked at while compiling."""

from __future__ import annotations

from mindspore import Tensor, ops

from .. import inputs
from ..config import Config

check_pooling = ops.constexpr(inputs.check_pooling)
_check_shapes = ops.constexpr(inputs.check_shapes)
_check_drop_path = ops.constexpr(inputs.check_drop_path_shape)
_check_targets = ops.constexpr(inputs.check_targets_shape)
_refuse_array = ops.constexpr(inputs.refuse_array)


def check_inputs(imgs: Tensor, noise: Tensor | None, config: Config) -> None:
    """As that of backends/inputs.py."""
    if not isinstance(imgs, Tensor):
        _refuse_array("imgs", imgs)
    if not isinstance(noise, Tensor):
        _refuse_array("noise", noise)
    _check_shapes(getattr(imgs, "shape", imgs), getattr(noise, "shape", noise), getattr(imgs, "dtype", None), config)


def check_drop_path(drop_path: Tensor | None, imgs: Tensor, config: Config) -> None:
    """As that of backends/inputs.py."""
    if drop_path is not None:
        _check_drop_path(drop_path.shape, imgs.shape[0], config)


def check_targets(targets: Tensor, logits: Tensor) -> None:
    """As that of backends/inputs.py."""
    _check_targets(targets.shape, logits.shape)
