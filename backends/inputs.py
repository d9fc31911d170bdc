"""What a model is given when it is called: images, noise, a pooling. Only shapes and dtypes are looked at, of any framework."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..files.errors import Problem
from .config import Config

POOLINGS = ("cls", "gap", "tokens")


class InputError(Problem, ValueError):
    """What a model cannot be called with; the message says what it takes."""


def check_inputs(imgs: Any, noise: Any, config: Config) -> None:
    """Raise InputError where imgs is not [N, C, height, width] in floating point, as configured, or noise neither None nor
    [N, L], and where one is a NumPy array: for models of the other frameworks."""
    refuse_array("imgs", imgs)
    refuse_array("noise", noise)
    check_arrays(imgs, noise, config)


def check_arrays(imgs: Any, noise: Any, config: Config) -> None:
    """The same for NumPy's model, which takes arrays."""
    check_shapes(getattr(imgs, "shape", imgs), getattr(noise, "shape", noise), getattr(imgs, "dtype", None), config)


def refuse_array(name: str, given: Any) -> None:
    """Raise InputError for an array of NumPy's, which only NumPy's model takes."""
    if isinstance(given, np.ndarray):
        raise InputError(
            f"{name} is a NumPy array; the model takes tensors of its framework: torch.from_numpy({name}), "
            f"megengine.Tensor({name}), mindspore.Tensor({name}) or oneflow.from_numpy({name})."
        )


def check_shapes(imgs: Any, noise: Any, dtype: Any, config: Config) -> None:
    """The same of their shapes and of the images' dtype; what has no shape is given as it is, and a side that is not yet
    known as None."""
    if "int" in str(dtype).lower() or "bool" in str(dtype).lower():  # some frameworks would compute with them
        raise InputError(
            f"imgs is {dtype}; the model takes floating point: pixels from 0 to 1, less the mean and divided by the deviation "
            "that it was trained with (ImageNet's: .485, .456, .406 and .229, .224, .225)."
        )
    expected = (config.in_chans, *config.img_size)
    if not hasattr(imgs, "__len__") or len(imgs) != 4 or not _same(imgs[1:2], expected[:1]):
        raise InputError(_not_images(imgs, expected))
    if imgs[0] == 0:  # MegEngine would end the process
        raise InputError(f"imgs is {_listed(imgs)}, a batch without an image; the model takes one at least.")
    if not _same(imgs[2:], expected[1:]):
        raise InputError(_another_size(tuple(imgs[2:]), config))
    if noise is None:
        return
    if not hasattr(noise, "__len__"):
        raise InputError(
            f"The second argument is the noise [N, L], not {noise!r}; a mask ratio is given by its name: "
            f"model(imgs, mask_ratio={noise!r})."
        )
    if not _same(noise, (imgs[0], config.num_patches)):
        raise InputError(
            f"noise is {_listed(noise)}; it must be {_listed((imgs[0], config.num_patches))}: a number for each patch of "
            "each image, or None to draw them."
        )


def check_pooling(pooling: Any) -> None:
    """Raise InputError for what encode does not know."""
    if pooling is not None and pooling not in POOLINGS:
        raise InputError(
            f"pooling is {pooling!r}; it must be 'cls' (the class token), 'gap' (the mean of the patch tokens) or "
            "'tokens' (all of them, as None)."
        )


def check_drop_path(drop_path: Any, imgs: Any, config: Config) -> None:
    """Raise InputError where drop_path is neither None nor [N, depth, 2]."""
    if drop_path is not None:
        check_drop_path_shape(getattr(drop_path, "shape", drop_path), imgs.shape[0], config)


def check_drop_path_shape(shape: Any, images: int, config: Config) -> None:
    """The same of its shape; what has no shape is given as it is."""
    expected = (images, config.depth, 2)
    if not hasattr(shape, "__len__") or not _same(shape, expected):
        raise InputError(
            f"drop_path is {_listed(shape) if hasattr(shape, '__len__') else repr(shape)}; it must be {_listed(expected)}: "
            "for each image and block the factors of attention and MLP, 0 or 1/keep, as data/batches.py draws them."
        )


def check_targets(targets: Any, logits: Any) -> None:
    """Raise InputError where targets is neither labels [N] nor soft targets [N, classes] of these logits [N, classes]."""
    check_targets_shape(getattr(targets, "shape", targets), logits.shape)


def check_targets_shape(shape: Any, logits: Any) -> None:
    """The same of their shapes; what has no shape is given as it is."""
    if not hasattr(shape, "__len__") or not (_same(shape, logits) or _same(shape, logits[:1])):
        raise InputError(
            f"targets are {_listed(shape) if hasattr(shape, '__len__') else repr(shape)}; for logits {_listed(logits)} they "
            f"must be labels {_listed(logits[:1])} or soft targets {_listed(logits)}."
        )


def _same(shape: Any, expected: tuple[Any, ...]) -> bool:
    return len(shape) == len(expected) and all(a == b or a is None or b is None for a, b in zip(shape, expected))


def _not_images(imgs: Any, expected: tuple[int, ...]) -> str:
    takes = f"the model takes [N, {', '.join(map(str, expected))}]: N images, channels first, height, width."
    if not hasattr(imgs, "__len__"):
        return f"imgs is a {type(imgs).__name__}, not a tensor; {takes}"
    if tuple(imgs) == expected:
        return f"imgs is {_listed(imgs)}; {takes} A batch of one image is imgs[None]."
    return f"imgs is {_listed(imgs)}; {takes}"


def _another_size(size: tuple[int, ...], config: Config) -> str:
    fits = all(side and side % config.patch_size == 0 for side in size)
    load = f", or load the model with image_size={size[0] if size[0] == size[1] else size}"
    return (
        f"Input image size ({size[0]}*{size[1]}) doesn't match model ({config.img_size[0]}*{config.img_size[1]}). "
        f"Resize or crop the images{load if fits else ''}."
    )


def _listed(shape: Any) -> str:
    return f"[{', '.join(str(side) for side in shape)}]"
