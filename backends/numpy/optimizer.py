"""AdamW in NumPy, as a textbook has it: in float64 the oracle. The optimizer.py files read alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..optimization import HandWritten, clip_scale
from .sums import Array


class AdamW(HandWritten):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim has it, with clipping by the global norm."""

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
        for name, parameter in self.runtime.trained(self.model).items():
            gradient = scale * gradients[name]
            m = self.m[name] = beta1 * self.m[name] + rest1 * gradient
            v = self.v[name] = beta2 * self.v[name] + rest2 * gradient * gradient
            direction = (m / bias1) / (np.sqrt(v / bias2) + eps)
            parameter -= lr * (direction + decay[name] * parameter)
        return norm


def global_norm(gradients: list[Array]) -> float:
    """The Euclidean norm of all gradients together."""
    squares = np.stack([(gradient * gradient).sum() for gradient in gradients])
    return float(np.sqrt(squares.sum()))
