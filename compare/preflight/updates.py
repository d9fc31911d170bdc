"""The optimizer's behaviour, seen from outside: parameters and moments after updates whose gradients are given or known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.naming import Arrays
from ...backends.optimization import State, trainable
from ...backends.runtime import Runtime
from ...backends.spec import params
from ...training.recipe import Recipe
from ...training.steps import take
from ..limits.metrics import U
from . import law

ROUNDINGS = 64.0  # of float32, that an element of a right update has at most: its formula has about a dozen
TYPICAL = 1e-3  # a gradient where no clipping asks for another
_SMALLEST = 1e-36  # squares below it leave the range of float32

Bounds = dict[str, tuple[float, float]]  # by parameter: least and largest of its elements


def observed_settings(runtime: Runtime, recipe: Recipe, device: str) -> dict[str, Any]:
    """Least and largest element of every parameter and its moments, after updates from weights and gradients of one value.

    decay: 1 - weights after a step at rate 1 from weights 1 and gradients 0. first, second: weights and moments, over the
    gradient and its square, after steps at rate 1 from weights 0 and gradients that no clipping reaches. clip: the first
    moments over the gradient, from gradients of ten times the norm that is clipped, or nothing. eps: weights after one step
    at rate 1 whose gradient is eps. loaded: weights after a second step at rate 1 from the moments of a first, which are loaded,
    and weights 0. gradient: that of first and second.
    """
    config = recipe.config
    ones, zeros = ({p.name: np.full(p.shape, value, np.float32) for p in params(config)} for value in (1, 0))
    model = runtime.build(config, ones, device)
    trained = {p.name: p.shape for p in trainable(config)}
    elements = sum(math.prod(shape) for shape in trained.values())
    most = recipe.optimizer.clip_grad

    def filled(value: float) -> Arrays:
        return {name: np.full(shape, value, np.float32) for name, shape in trained.items()}

    def stepped(optimizer: Any, gradient: float) -> tuple[Arrays, Any]:
        optimizer.step(optimizer.tensors(filled(gradient)), 1.0)
        return runtime.weights(model), optimizer.state()

    def fresh(weights: Arrays) -> Any:
        runtime.load_weights(model, weights)
        return runtime.optimizer(model, recipe.settings)

    observed: dict[str, Any] = {}
    after, _ = stepped(fresh(ones), 0.0)
    observed["decay"] = _bounds({name: 1 - array.astype(np.float64) for name, array in after.items()})
    gradient = observed["gradient"] = TYPICAL if most is None else 0.5 * most / math.sqrt(elements)
    optimizer = fresh(zeros)
    for name in ("first", "second"):
        after, state = stepped(optimizer, gradient)
        observed[name] = {
            "weights": _bounds(after), "m": _bounds(state.m, gradient), "v": _bounds(state.v, gradient**2),
        }  # fmt: skip
    optimizer = fresh(zeros)
    beta1, beta2 = recipe.optimizer.betas
    optimizer.load_state(State(1, filled((1 - beta1) * gradient), filled((1 - beta2) * gradient**2)))
    observed["loaded"] = _bounds(stepped(optimizer, gradient)[0])
    if most is not None:
        large = 10 * most / math.sqrt(elements)
        observed["clip"] = _bounds(stepped(fresh(zeros), large)[1].m, large)
    observed["eps"] = _bounds(stepped(fresh(zeros), recipe.optimizer.eps)[0])
    return observed


def _bounds(arrays: Any, unit: float = 1.0) -> Bounds:
    return {
        name: (float(array.min()) / unit, float(array.max()) / unit) for name, array in arrays.items() if array.size
    }


def first_update(
    runtime: Runtime, model: Any, inputs: Arrays, gradients: Arrays, recipe: Recipe, options: dict[str, Any]
) -> dict[str, Any]:
    """A real step at the highest rate, with the recipe's settings, against the law: how far its parts are off.

    gradients: of the same step, before clipping. options: of Training. Gives the relative errors of the norm and of all first
    moments together; and of second moments and weights the element that is furthest, in units of its roundoff.
    """
    before = runtime.weights(model)
    optimizer = runtime.optimizer(model, recipe.settings)
    training = runtime.training(model, optimizer, **options)
    lr = law.peak_rate(recipe)
    norm = take(training, inputs, lr, min(recipe.batch.parts, len(inputs["imgs"]))).norm
    after, state = runtime.weights(model), optimizer.state()
    exact = math.sqrt(sum(float(np.sum(array.astype(np.float64) ** 2)) for array in gradients.values()))
    scale, rest = law.clipped(exact, recipe), 1 - recipe.optimizer.betas[0]
    off = size = 0.0
    worst = {"v": (0.0, ""), "weights": (0.0, "")}
    for param in params(model.config):
        name, weight = param.name, before[param.name].astype(np.float64)
        if name not in gradients:
            changed = not np.array_equal(before[name], after[name])
            worst["weights"] = max(worst["weights"], (math.inf if changed else 0.0, name))
            continue
        m, expected = state.m[name].astype(np.float64), rest * scale * gradients[name].astype(np.float64)
        off, size = off + float(np.sum((m - expected) ** 2)), size + float(np.sum(expected**2))
        # From the first moment on, so that two runs of kernels that are not deterministic do not matter.
        decay = recipe.optimizer.weight_decay if law.decays(name, len(param.shape), recipe) else 0.0
        _, v, step = law.first_update(m / rest, weight, decay, lr, recipe)
        worst["v"] = max(worst["v"], (_furthest(state.v[name], v, ROUNDINGS * U * v + _SMALLEST), name))
        room = 2 * U * np.abs(weight + step) + ROUNDINGS * U * lr * (1 + decay * np.abs(weight))
        worst["weights"] = max(worst["weights"], (_furthest(after[name], weight + step, room), name))
    return {
        "norm": abs(norm - exact) / exact, "m": math.sqrt(off / size), "v": worst["v"], "weights": worst["weights"],
        "lr": lr, "clipped_to": scale, "gradient_norm": exact,
    }  # fmt: skip


def _furthest(actual: NDArray[Any], expected: NDArray[Any], room: NDArray[Any]) -> float:
    ratio = np.abs(actual.astype(np.float64) - expected) / room
    return float(np.where(np.isnan(ratio), np.inf, ratio).max(initial=0.0))
