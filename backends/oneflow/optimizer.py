"""AdamW in OneFlow. The optimizer.py files read alike.

OneFlow's own takes 1 - beta and the bias corrections in float32, whatever the parameters are: 4 u off in the moments at
the official betas, 215 u at .999. Its clip_grad_norm_ sums in one chain: 100 u at 100,000 elements.
"""

from __future__ import annotations

from collections.abc import Mapping

import oneflow as flow
from oneflow import Tensor

from ..optimization import HandWritten, clip_scale


class AdamW(HandWritten):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim has it, with clipping by the global norm."""

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
        for name, parameter in self.runtime.trained(self.model).items():
            gradient = scale * gradients[name]
            m = self.m[name] = beta1 * self.m[name] + rest1 * gradient
            v = self.v[name] = beta2 * self.v[name] + rest2 * gradient * gradient
            direction = (m / bias1) / (flow.sqrt(v / bias2) + eps)
            parameter -= lr * (direction + decay[name] * parameter)
        return norm


def global_norm(gradients: list[Tensor]) -> float:
    """The Euclidean norm of all gradients together."""
    squares = flow.stack([(gradient * gradient).sum() for gradient in gradients])
    return float(flow.sqrt(squares.sum()).item())
