"""A small model of somebody's own, in NumPy, with its gradients and ways to spoil it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polymae.compare import Parity, parity

Arrays = Mapping[str, NDArray[Any]]
FORWARD = ("hidden", "normed", "best", "logits", "loss")
GRADIENTS = ("grad/head", "grad/hidden", "grad/shift")
RNG = np.random.default_rng(0)
INPUTS = {
    "x": RNG.standard_normal((8, 64)),
    "shift": RNG.standard_normal(32),
    "hidden": RNG.standard_normal((64, 32)),
    "head": RNG.standard_normal((32, 10)),
    "labels": RNG.integers(0, 10, 8),
}


def model(inputs: Arrays, eps: float = 1e-6) -> dict[str, Any]:
    """A perceptron in the type of its inputs: the norm over the batch takes away the shift, whose gradient is zero."""
    x, shift, hidden, head, labels = (inputs[name] for name in INPUTS)
    z = x @ hidden + shift
    centred = z - z.mean(0)
    scale = 1 / np.sqrt((centred**2).mean(0) + z.dtype.type(eps))
    normed = centred * scale
    logits = np.maximum(normed, 0) @ head
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(shares[rows, labels]).mean()
    d_logits = shares.copy()
    d_logits[rows, labels] -= 1
    d_logits /= z.dtype.type(len(labels))
    d_normed = (d_logits @ head.T) * (normed > 0)
    d_z = scale * (d_normed - d_normed.mean(0) - normed * (d_normed * normed).mean(0))
    return {
        "hidden": z,
        "normed": normed,
        "best": logits.argmax(-1),
        "logits": logits,
        "loss": loss,
        "grad/head": np.maximum(normed, 0).T @ d_logits,
        "grad/hidden": x.T @ d_z,
        "grad/shift": d_z.sum(0),
    }


def edited(name: str, edit: Callable[[Any], Any]) -> Callable[[Arrays], dict[str, Any]]:
    """The model with one tensor that it returns changed."""

    def run(inputs: Arrays) -> dict[str, Any]:
        found = model(inputs)
        return found | {name: edit(found[name])}

    return run


def port(inputs: Arrays) -> dict[str, Any]:
    """The model again: a candidate may not be the reference itself."""
    return model(inputs)


def judged(candidate: Callable[[Arrays], Any] = port, **options: Any) -> Parity:
    return parity(model, candidate, INPUTS, **{"gradients": GRADIENTS} | options)


def with_nan(array: NDArray[Any]) -> NDArray[Any]:
    array.flat[3] = np.nan
    return array


def another_order(inputs: Arrays) -> dict[str, Any]:
    """The model with the terms of its first product in reverse: right, but with other roundings."""
    return model({**inputs, "x": inputs["x"][:, ::-1].copy(), "hidden": inputs["hidden"][::-1].copy()}) | {
        "grad/hidden": model(inputs)["grad/hidden"]
    }


def float64_always(inputs: Arrays) -> dict[str, Any]:
    return model({name: array.astype(float) if array.dtype.kind == "f" else array for name, array in inputs.items()})


PRODUCT = {
    "x": np.random.default_rng(5).standard_normal((8, 16)),
    "w": np.random.default_rng(6).standard_normal((32, 16)),
}


def returning(*edits: Callable[[Any], Any]) -> list[Callable[[Arrays], dict[str, Any]]]:
    """A reference and a port that return y = x w^T [8, 32] of PRODUCT, each with its own change; with one: both with it."""
    two = edits * 2 if len(edits) == 1 else edits
    return [lambda inputs, edit=edit: {"y": edit(inputs["x"] @ inputs["w"].T)} for edit in two]  # type: ignore[misc]


def same(array: Any) -> Any:
    return array
