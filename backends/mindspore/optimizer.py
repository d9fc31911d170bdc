"""AdamW in MindSpore. The optimizer.py files read alike.

nn.AdamWeightDecay has no bias correction, and mindspore.experimental's computes 1 - beta in float32, which puts the
moments 4 u off at the official betas and 215 u at .999. A Python number is rounded to float32 even beside float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from mindspore import Tensor, ops

from ..optimization import HandWritten, clip_scale
from .workarounds import constant


class AdamW(HandWritten):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim has it, with clipping by the global norm."""

    def step(self, gradients: Mapping[str, Tensor], lr: float) -> float:
        """Change the model's parameters by gradients given by spec name; their global norm before clipping."""
        self.lr = lr
        self.steps += 1
        beta1, beta2 = self.settings.betas
        rest1, rest2 = 1 - beta1, 1 - beta2
        bias1, bias2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        eps = self.settings.eps
        norm = global_norm([gradients[name] for name in self.decay])
        scale = clip_scale(norm, self.settings)
        number = partial(constant, like=self.model.cls_token)
        lr, scale, eps, beta1, rest1, bias1 = map(number, (lr, scale, eps, beta1, rest1, bias1))
        beta2, rest2, bias2 = map(number, (beta2, rest2, bias2))
        decay = {name: number(value) for name, value in self.decay.items()}
        for name, parameter in self.runtime.trained(self.model).items():
            gradient = scale * gradients[name]
            m = self.m[name] = beta1 * self.m[name] + rest1 * gradient
            v = self.v[name] = beta2 * self.v[name] + rest2 * gradient * gradient
            direction = (m / bias1) / (ops.sqrt(v / bias2) + eps)
            ops.assign_sub(parameter, lr * (direction + decay[name] * parameter))
        return norm


def global_norm(gradients: list[Tensor]) -> float:
    """The Euclidean norm of all gradients together."""
    squares = ops.stack([(gradient * gradient).sum() for gradient in gradients])
    return float(ops.sqrt(squares.sum()).asnumpy())
