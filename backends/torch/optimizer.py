"""AdamW in PyTorch: its own. The other four optimizer.py files are written by hand, with this one's meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..naming import native
from ..optimization import Settings, State, decay_of, trainable
from .weights import to_numpy


def trained(model: Any) -> dict[str, Tensor]:
    """The model's parameters that training changes, by spec name."""
    parameters = dict(model.named_parameters())
    return {param.name: parameters[native("torch", param).name] for param in trainable(model.config)}


class AdamW:
    """torch.optim.AdamW with the official decay groups and clipping by the global norm."""

    def __init__(self, model: Any, settings: Settings):
        self.model = model
        self.settings = settings
        decay = decay_of(model.config, settings)
        groups = [
            {"params": [p for name, p in trained(model).items() if decay[name] == each], "weight_decay": each}
            for each in sorted(set(decay.values()))
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps)

    @property
    def lr(self) -> float:
        """The learning rate, as the optimizer's groups hold it."""
        (lr,) = {group["lr"] for group in self.optimizer.param_groups}
        return float(lr)

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = value

    @property
    def decay(self) -> dict[str, float]:
        """The weight decay of every parameter, by spec name, as the optimizer's groups hold it."""
        held = {id(p): group["weight_decay"] for group in self.optimizer.param_groups for p in group["params"]}
        return {name: held[id(p)] for name, p in trained(self.model).items() if id(p) in held}

    def step(self, gradients: Mapping[str, Tensor], lr: float) -> float:
        """Change the model's parameters by gradients given by spec name; their global norm before clipping.

        Clipping is done in the given tensors.
        """
        self.lr = lr
        parameters = trained(self.model)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        clip = float("inf") if self.settings.clip is None else self.settings.clip
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)

    def tensors(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Arrays by spec name, in the layout and precision of the parameters."""
        parameters = trained(self.model)
        return {
            name: torch.from_numpy(np.array(arrays[name])).to(p.device, p.dtype).reshape(p.shape)
            for name, p in parameters.items()
        }

    def state(self) -> State:
        """A copy of the steps taken and the moments by spec name; zeros before the first step."""
        held = {name: self.optimizer.state[parameter] for name, parameter in trained(self.model).items()}
        steps = {int(state["step"]) if state else 0 for state in held.values()}
        return State(max(steps), self._arrays("exp_avg"), self._arrays("exp_avg_sq"))

    def load_state(self, state: State) -> None:
        """Go on from a state: steps taken, and moments by spec name."""
        m, v = self.tensors(state.m), self.tensors(state.v)
        for name, parameter in trained(self.model).items():
            step = torch.tensor(float(state.step))
            self.optimizer.state[parameter] = {"step": step, "exp_avg": m[name], "exp_avg_sq": v[name]}

    def _arrays(self, moment: str) -> dict[str, NDArray[Any]]:
        shapes = {param.name: param.shape for param in trainable(self.model.config)}
        held = {name: self.optimizer.state[parameter] for name, parameter in trained(self.model).items()}
        return {
            name: to_numpy(state[moment]).reshape(shapes[name]) if state else np.zeros(shapes[name], np.float32)
            for name, state in held.items()
        }
