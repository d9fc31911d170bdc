"""AdamW in PyTorch, its own; LARS and the average of weights.

The other four optimizer.py files have an AdamW written by hand, with this one's meaning, and read alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..averaging import Average
from ..optimization import HandWritten, Optimizer, Settings, State, groups_of
from ..packing import Packing
from ..runtime import Runtime


class Packed(Packing):
    """Packing in PyTorch."""

    def norm(self, vectors: list[Tensor]) -> float:
        """The Euclidean norm of all vectors together."""
        squares = torch.stack([(vector * vector).sum() for vector in vectors])
        return float(torch.sqrt(squares.sum()))

    def pack(self, tensors: list[Tensor]) -> Tensor:
        """Tensors, end to end, as one vector [n]: a copy."""
        return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])

    def unpack(self, vector: Tensor, like: list[Tensor]) -> list[Tensor]:
        """The inverse of pack: a vector [n] cut into tensors of the shapes of `like`."""
        pieces = torch.split(vector, [tensor.numel() for tensor in like])
        return [piece.reshape(tensor.shape) for piece, tensor in zip(pieces, like)]

    @torch.no_grad()
    def assign(self, parameters: list[Tensor], values: list[Tensor]) -> None:
        """Give parameters of the model new values, tensor by tensor."""
        for parameter, value in zip(parameters, values):
            parameter.copy_(value)


class AdamW(Optimizer):
    """torch.optim.AdamW, its fused kernel, with the official decay groups and clipping by the global norm."""

    def __init__(self, runtime: Runtime, model: Any, settings: Settings):
        super().__init__(runtime, model, settings)
        trained = runtime.trained(model)
        groups = [
            {"params": [trained[name] for name in group.names], "weight_decay": group.decay, "lr_scale": group.rate}
            for group in groups_of(model.config, settings)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)
        held = {id(p): group["weight_decay"] for group in self.optimizer.param_groups for p in group["params"]}
        self.decay = {name: held[id(p)] for name, p in trained.items() if id(p) in held}
        self.parameters = [p for name, p in trained.items() if name in self.decay]

    @property
    def lr(self) -> float:
        """The learning rate, as the optimizer's groups hold it that have no scale."""
        (lr,) = {group["lr"] for group in self.optimizer.param_groups if group["lr_scale"] == 1}
        return float(lr)

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = value * group["lr_scale"]

    @property
    def rates(self) -> dict[str, float]:  # type: ignore[override]
        """The learning rate of every parameter that is held, by spec name."""
        rates = {id(p): group["lr"] for group in self.optimizer.param_groups for p in group["params"]}
        return {name: float(rates[id(p)]) for name, p in zip(self.decay, self.parameters)}

    def packed(self, gradients: Mapping[str, Tensor]) -> list[Tensor]:
        """Gradients by spec name, in the parameters' layout: PyTorch's own kernels take lists of tensors."""
        return [gradients[name] for name in self.decay]

    def norm(self, gradients: list[Tensor]) -> float:
        """The Euclidean norm of all packed gradients together."""
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))

    def update(self, gradients: list[Tensor], lr: float, scale: float) -> None:
        """Change the model's parameters by scale times the packed gradients, which are scaled in place."""
        self.lr = lr
        if scale != 1.0:
            torch._foreach_mul_(gradients, scale)
        for parameter, gradient in zip(self.parameters, gradients):
            # The fused kernel reads a gradient's memory as if it lay like the parameter's; autograd.grad may give another layout.
            parameter.grad = gradient.contiguous()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> State:
        """A copy of the steps taken and the moments by spec name; zeros before the first step."""
        held = {name: self.optimizer.state[parameter] for name, parameter in self.runtime.trained(self.model).items()}
        steps = {int(state["step"]) if state else 0 for state in held.values()}
        return State(max(steps), self._moment("exp_avg"), self._moment("exp_avg_sq"))

    def load_state(self, state: State) -> None:
        """Go on from a state: steps taken, and moments by spec name."""
        m, v = self.tensors(state.m), self.tensors(state.v)
        for name, parameter in self.runtime.trained(self.model).items():
            step = torch.tensor(float(state.step), device=parameter.device)  # where the fused kernel reads it
            self.optimizer.state[parameter] = {"step": step, "exp_avg": m[name], "exp_avg_sq": v[name]}

    def _moment(self, name: str) -> dict[str, Any]:
        parameters = self.runtime.trained(self.model)
        return self.arrays(
            {
                parameter: self.optimizer.state[tensor].get(name, torch.zeros_like(tensor))
                for parameter, tensor in parameters.items()
            }
        )


class LARS(Packed, HandWritten):
    """LARS (You, Gitman and Ginsburg 2017) as official util/lars.py has it, with clipping by the global norm."""

    def update(self, gradients: list[Tensor], lr: float, scale: float) -> None:
        """Change the model's parameters by scale times the packed gradients."""
        self.lr = lr
        self.steps += 1
        self.move(gradients, lr, scale)

    def move(self, gradients: list[Tensor], lr: float, scale: float, *numbers: float) -> None:
        """Move parameters and momentum, where the numbers are those of this step; they may be tensors []."""
        momentum, trust = self.settings.momentum, self.settings.trust
        parameters = self.parameters()
        for i, group in enumerate(self.groups):
            parameter, direction = parameters[i], scale * gradients[i]
            if group.adapted:
                direction = direction + group.decay * parameter
                size, length = torch.sqrt((parameter * parameter).sum()), torch.sqrt((direction * direction).sum())
                there = torch.sign(size) * torch.sign(length)  # 1, or 0 where a norm is, and the ratio is 1
                ratio = (1 - there) + there * trust * size / (length + (1 - there))
                direction = ratio * direction
            m = self.m[i] = momentum * self.m[i] + direction
            parameters[i] = parameter - lr * group.rate * m
        self.put(parameters)


class EMA(Packed, Average):
    """The exponential moving average of weights in PyTorch."""

    def move(self, own: Tensor, decay: float) -> None:
        """Make the vector [n] decay times itself and 1 - decay times `own`, the model's."""
        rest = 1 - decay
        self.vector = decay * self.vector + rest * own
