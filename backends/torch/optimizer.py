"""AdamW in PyTorch: its own. The other four optimizer.py files are written by hand, with this one's meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..optimization import Optimizer, Settings, State, decay_of
from ..runtime import Runtime


class AdamW(Optimizer):
    """torch.optim.AdamW, its fused kernel, with the official decay groups and clipping by the global norm."""

    def __init__(self, runtime: Runtime, model: Any, settings: Settings):
        super().__init__(runtime, model, settings)
        decay, trained = decay_of(model.config, settings), runtime.trained(model)
        groups = [
            {"params": [p for name, p in trained.items() if decay[name] == each], "weight_decay": each}
            for each in sorted(set(decay.values()))
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)
        held = {id(p): group["weight_decay"] for group in self.optimizer.param_groups for p in group["params"]}
        self.decay = {name: held[id(p)] for name, p in trained.items() if id(p) in held}
        self.parameters = [p for name, p in trained.items() if name in self.decay]

    @property
    def lr(self) -> float:
        """The learning rate, as the optimizer's groups hold it."""
        (lr,) = {group["lr"] for group in self.optimizer.param_groups}
        return float(lr)

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = value

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
