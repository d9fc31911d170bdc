"""AdamW in MindSpore. The optimizer.py files read alike.

nn.AdamWeightDecay has no bias correction, and mindspore.experimental's computes 1 - beta in float32, which puts the
moments 4 u off at the official betas and 215 u at .999. A Python number is rounded to float32 even beside float64.
"""

from __future__ import annotations

from functools import partial

from mindspore import Tensor, ops

from ..optimization import HandWritten
from .workarounds import constant, divide


class AdamW(HandWritten):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim has it, with clipping by the global norm."""

    def update(self, gradients: list[Tensor], lr: float, scale: float) -> None:
        """Change the model's parameters by scale times the packed gradients."""
        self.lr = lr
        self.steps += 1
        beta1, beta2 = self.settings.betas
        bias1, bias2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        self.move(gradients, lr, scale, bias1, bias2)

    def move(self, gradients: list[Tensor], lr: float, scale: float, bias1: float, bias2: float) -> None:
        """Move parameters and moments, where the numbers are those of this step; they may be tensors []."""
        beta1, beta2 = self.settings.betas
        rest1, rest2 = 1 - beta1, 1 - beta2
        eps = self.settings.eps
        number = partial(constant, like=self.model.cls_token)
        lr, scale, eps, beta1, rest1, bias1 = map(number, (lr, scale, eps, beta1, rest1, bias1))
        beta2, rest2, bias2 = map(number, (beta2, rest2, bias2))
        parameters = self.parameters()
        for i, decay in enumerate(self.groups):
            parameter, gradient = parameters[i], scale * gradients[i]
            m = self.m[i] = beta1 * self.m[i] + rest1 * gradient
            v = self.v[i] = beta2 * self.v[i] + rest2 * gradient * gradient
            direction = divide(divide(m, bias1), ops.sqrt(divide(v, bias2)) + eps)
            parameters[i] = parameter - lr * (direction + number(decay) * parameter)
        self.put(parameters)

    def norm(self, gradients: list[Tensor]) -> float:
        """The Euclidean norm of all packed gradients together."""
        squares = ops.stack([(gradient * gradient).sum() for gradient in gradients])
        return float(ops.sqrt(squares.sum()).asnumpy())

    def pack(self, tensors: list[Tensor]) -> Tensor:
        """Tensors, end to end, as one vector [n]."""
        return ops.cat([tensor.reshape(-1) for tensor in tensors])

    def unpack(self, vector: Tensor, like: list[Tensor]) -> list[Tensor]:
        """The inverse of pack: a vector [n] cut into tensors of the shapes of `like`."""
        pieces = ops.split(vector, [tensor.size for tensor in like])
        return [piece.reshape(tensor.shape) for piece, tensor in zip(pieces, like)]

    def assign(self, parameters: list[Tensor], values: list[Tensor]) -> None:
        """Give parameters of the model new values, tensor by tensor."""
        for parameter, value in zip(parameters, values):
            ops.assign(parameter, value)
