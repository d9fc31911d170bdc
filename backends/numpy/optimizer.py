"""AdamW in NumPy, as a textbook has it: in float64 the oracle. The optimizer.py files read alike."""

from __future__ import annotations

import numpy as np

from ..optimization import HandWritten
from .sums import Array


class AdamW(HandWritten):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim has it, with clipping by the global norm."""

    def update(self, gradients: list[Array], lr: float, scale: float) -> None:
        """Change the model's parameters by scale times the packed gradients."""
        self.lr = lr
        self.steps += 1
        beta1, beta2 = self.settings.betas
        bias1, bias2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        self.move(gradients, lr, scale, bias1, bias2)

    def move(self, gradients: list[Array], lr: float, scale: float, bias1: float, bias2: float) -> None:
        """Move parameters and moments, where the numbers are those of this step; they may be tensors []."""
        beta1, beta2 = self.settings.betas
        rest1, rest2 = 1 - beta1, 1 - beta2
        eps = self.settings.eps
        parameters = self.parameters()
        for i, decay in enumerate(self.groups):
            parameter, gradient = parameters[i], scale * gradients[i]
            m = self.m[i] = beta1 * self.m[i] + rest1 * gradient
            v = self.v[i] = beta2 * self.v[i] + rest2 * gradient * gradient
            direction = (m / bias1) / (np.sqrt(v / bias2) + eps)
            parameters[i] = parameter - lr * (direction + decay * parameter)
        self.put(parameters)

    def norm(self, gradients: list[Array]) -> float:
        """The Euclidean norm of all packed gradients together."""
        squares = np.stack([(gradient * gradient).sum() for gradient in gradients])
        return float(np.sqrt(squares.sum()))

    def pack(self, tensors: list[Array]) -> Array:
        """Tensors, end to end, as one vector [n]."""
        return np.concatenate([tensor.reshape(-1) for tensor in tensors])

    def unpack(self, vector: Array, like: list[Array]) -> list[Array]:
        """The inverse of pack: a vector [n] cut into tensors of the shapes of `like`."""
        pieces = np.split(vector, np.cumsum([tensor.size for tensor in like])[:-1])
        return [piece.reshape(tensor.shape) for piece, tensor in zip(pieces, like)]

    def assign(self, parameters: list[Array], values: list[Array]) -> None:
        """Give parameters of the model new values, tensor by tensor."""
        for parameter, value in zip(parameters, values):
            np.copyto(parameter, value)
