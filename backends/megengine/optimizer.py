"""AdamW in MegEngine. The optimizer.py files read alike.

MegEngine's own computes 1 - beta in float32, which puts the moments 4 u off at the official betas and 215 u at .999.
"""

from __future__ import annotations

from collections.abc import Mapping

import megengine.functional as F
from megengine import Tensor

from ..optimization import HandWritten, clip_scale


class AdamW(HandWritten):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim has it, with clipping by the global norm."""

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
            direction = (m / bias1) / (F.sqrt(v / bias2) + eps)
            parameter -= lr * (direction + decay[name] * parameter)
        return norm


def global_norm(gradients: list[Tensor]) -> float:
    """The Euclidean norm of all gradients together."""
    squares = F.stack([(gradient * gradient).sum() for gradient in gradients])
    return float(F.sqrt(squares.sum()).numpy())
