"""AdamW in NumPy, as a textbook has it: in float64 the oracle. The optimizer.py files read alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..naming import native
from ..optimization import Settings, State, clip_scale, decay_of, trainable
from .sums import Array


def trained(model: Any) -> dict[str, Array]:
    """The model's parameters that training changes, by spec name."""
    parameters = dict(model.named_parameters())
    return {param.name: parameters[native("numpy", param).name] for param in trainable(model.config)}


class AdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim has it, with clipping by the global norm."""

    def __init__(self, model: Any, settings: Settings):
        self.model = model
        self.settings = settings
        self.lr = 0.0
        self.steps = 0
        self.decay = decay_of(model.config, settings)
        self.m = {name: np.zeros_like(parameter) for name, parameter in trained(model).items()}
        self.v = {name: np.zeros_like(parameter) for name, parameter in trained(model).items()}

    def step(self, gradients: Mapping[str, Array], lr: float) -> float:
        """Change the model's parameters by gradients given by spec name; their global norm before clipping."""
        self.lr = lr
        self.steps += 1
        beta1, beta2 = self.settings.betas
        rest1, rest2 = 1 - beta1, 1 - beta2
        bias1, bias2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        eps, decay = self.settings.eps, self.decay
        norm = global_norm([gradients[name] for name in decay])
        scale = clip_scale(norm, self.settings)
        for name, parameter in trained(self.model).items():
            gradient = scale * gradients[name]
            m = self.m[name] = beta1 * self.m[name] + rest1 * gradient
            v = self.v[name] = beta2 * self.v[name] + rest2 * gradient * gradient
            direction = (m / bias1) / (np.sqrt(v / bias2) + eps)
            parameter -= lr * (direction + decay[name] * parameter)
        return norm

    def tensors(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        """Arrays by spec name, in the layout and precision of the parameters."""
        parameters = trained(self.model)
        return {name: np.array(arrays[name], p.dtype).reshape(p.shape) for name, p in parameters.items()}

    def state(self) -> State:
        """A copy of the steps taken and the moments."""
        return State(self.steps, self._arrays(self.m), self._arrays(self.v))

    def load_state(self, state: State) -> None:
        """Go on from a state."""
        self.steps = state.step
        self.m = self.tensors(state.m)
        self.v = self.tensors(state.v)

    def _arrays(self, tensors: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        shapes = {param.name: param.shape for param in trainable(self.model.config)}
        return {name: np.array(tensor).reshape(shapes[name]) for name, tensor in tensors.items()}


def global_norm(gradients: list[Array]) -> float:
    """The Euclidean norm of all gradients together."""
    squares = np.stack([(gradient * gradient).sum() for gradient in gradients])
    return float(np.sqrt(squares.sum()))
