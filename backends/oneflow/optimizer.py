"""AdamW in OneFlow. The optimizer.py files read alike.

OneFlow's own takes 1 - beta and the bias corrections in float32, whatever the parameters are: 4 u off in the moments at
the official betas, 215 u at .999. Its clip_grad_norm_ sums in one chain: 100 u at 100,000 elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import oneflow as flow
from numpy.typing import NDArray
from oneflow import Tensor

from ..naming import native
from ..optimization import Settings, State, clip_scale, decay_of, trainable


def trained(model: Any) -> dict[str, Tensor]:
    """The model's parameters that training changes, by spec name."""
    parameters = dict(model.named_parameters())
    return {param.name: parameters[native("oneflow", param).name] for param in trainable(model.config)}


class AdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim has it, with clipping by the global norm."""

    def __init__(self, model: Any, settings: Settings):
        self.model = model
        self.settings = settings
        self.lr = 0.0
        self.steps = 0
        self.decay = decay_of(model.config, settings)
        self.m = {name: flow.zeros_like(parameter) for name, parameter in trained(model).items()}
        self.v = {name: flow.zeros_like(parameter) for name, parameter in trained(model).items()}

    @flow.no_grad()  # type: ignore[untyped-decorator]
    def step(self, gradients: Mapping[str, Tensor], lr: float) -> float:
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
            direction = (m / bias1) / (flow.sqrt(v / bias2) + eps)
            parameter -= lr * (direction + decay[name] * parameter)
        return norm

    def tensors(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Arrays by spec name, in the layout and precision of the parameters."""
        parameters = trained(self.model)
        return {
            name: flow.tensor(np.array(arrays[name])).to(p.device, p.dtype).reshape(p.shape)
            for name, p in parameters.items()
        }

    def state(self) -> State:
        """A copy of the steps taken and the moments."""
        return State(self.steps, self._arrays(self.m), self._arrays(self.v))

    def load_state(self, state: State) -> None:
        """Go on from a state."""
        self.steps = state.step
        self.m = self.tensors(state.m)
        self.v = self.tensors(state.v)

    def _arrays(self, tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        shapes = {param.name: param.shape for param in trainable(self.model.config)}
        return {name: np.array(tensor.cpu().numpy()).reshape(shapes[name]) for name, tensor in tensors.items()}


def global_norm(gradients: list[Tensor]) -> float:
    """The Euclidean norm of all gradients together."""
    squares = flow.stack([(gradient * gradient).sum() for gradient in gradients])
    return float(flow.sqrt(squares.sum()).item())
