"""AdamW in OneFlow. The optimizer.py files read alike.

OneFlow's own takes 1 - beta and the bias corrections in float32, whatever the parameters are: 4 u off in the moments at
the official betas, 215 u at .999. Its clip_grad_norm_ sums in one chain: 100 u at 100,000 elements.
"""

from __future__ import annotations

import oneflow as flow
from oneflow import Tensor

from ..optimization import HandWritten


class AdamW(HandWritten):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim has it, with clipping by the global norm."""

    def update(self, gradients: list[Tensor], lr: float, scale: float) -> None:
        """Change the model's parameters by scale times the packed gradients."""
        self.lr = lr
        self.steps += 1
        beta1, beta2 = self.settings.betas
        bias1, bias2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        self.move(gradients, lr, scale, bias1, bias2)

    @flow.no_grad()  # type: ignore[untyped-decorator]
    def move(self, gradients: list[Tensor], lr: float, scale: float, bias1: float, bias2: float) -> None:
        """Move parameters and moments, where the numbers are those of this step; they may be tensors []."""
        beta1, beta2 = self.settings.betas
        rest1, rest2 = 1 - beta1, 1 - beta2
        eps = self.settings.eps
        parameters = self.parameters()
        for i, decay in enumerate(self.groups):
            parameter, gradient = parameters[i], scale * gradients[i]
            m = self.m[i] = beta1 * self.m[i] + rest1 * gradient
            v = self.v[i] = beta2 * self.v[i] + rest2 * gradient * gradient
            direction = (m / bias1) / (flow.sqrt(v / bias2) + eps)
            parameters[i] = parameter - lr * (direction + decay * parameter)
        self.put(parameters)

    def norm(self, gradients: list[Tensor]) -> float:
        """The Euclidean norm of all packed gradients together."""
        squares = flow.stack([(gradient * gradient).sum() for gradient in gradients])
        return float(flow.sqrt(squares.sum()).item())

    def pack(self, tensors: list[Tensor]) -> Tensor:
        """Tensors, end to end, as one vector [n]."""
        return flow.cat([tensor.detach().reshape(-1) for tensor in tensors])

    def unpack(self, vector: Tensor, like: list[Tensor]) -> list[Tensor]:
        """The inverse of pack: a vector [n] cut into tensors of the shapes of `like`."""
        pieces = flow.split(vector, [tensor.numel() for tensor in like])
        return [piece.reshape(tensor.shape) for piece, tensor in zip(pieces, like)]

    def assign(self, parameters: list[Tensor], values: list[Tensor]) -> None:
        """Give parameters of the model new values, tensor by tensor."""
        for parameter, value in zip(parameters, values):
            parameter.copy_(value)
