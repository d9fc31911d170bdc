"""AdamW, LARS and the average of weights in MegEngine. The optimizer.py files read alike.

MegEngine's own computes 1 - beta in float32, which puts the moments 4 u off at the official betas and 215 u at .999.
"""

from __future__ import annotations

import megengine.functional as F
import numpy as np
from megengine import Tensor

from ..averaging import Average
from ..optimization import HandWritten
from ..packing import Packing


class Packed(Packing):
    """Packing in MegEngine."""

    def norm(self, vectors: list[Tensor]) -> float:
        """The Euclidean norm of all vectors together."""
        squares = F.stack([(vector * vector).sum() for vector in vectors])
        return float(F.sqrt(squares.sum()).numpy())

    def pack(self, tensors: list[Tensor]) -> Tensor:
        """Tensors, end to end, as one vector [n]: a copy."""
        return F.concat([tensor.reshape(-1) for tensor in tensors])

    def unpack(self, vector: Tensor, like: list[Tensor]) -> list[Tensor]:
        """The inverse of pack: a vector [n] cut into tensors of the shapes of `like`."""
        ends = np.cumsum([np.prod(tensor.shape, dtype=int) for tensor in like])
        pieces = F.split(vector, [int(end) for end in ends[:-1]])
        return [piece.reshape(tensor.shape) for piece, tensor in zip(pieces, like)]

    def assign(self, parameters: list[Tensor], values: list[Tensor]) -> None:
        """Give parameters of the model new values, tensor by tensor."""
        for parameter, value in zip(parameters, values):
            parameter._reset(value)


class AdamW(Packed, HandWritten):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) as torch.optim has it, with clipping by the global norm."""

    def update(self, gradients: list[Tensor], lr: float, scale: float) -> None:
        """Change the model's parameters by scale times the packed gradients."""
        self.lr = lr
        self.steps += 1
        beta1, beta2 = self.settings.betas
        bias1, bias2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        self.move(gradients, lr, scale, bias1, bias2)

    def move(self, gradients: list[Tensor], lr: float, scale: float, *numbers: float) -> None:
        """Move parameters and moments, where the numbers are those of this step; they may be tensors []."""
        bias1, bias2 = numbers
        beta1, beta2 = self.settings.betas
        rest1, rest2 = 1 - beta1, 1 - beta2
        eps = self.settings.eps
        parameters = self.parameters()
        for i, group in enumerate(self.groups):
            parameter, gradient = parameters[i], scale * gradients[i]
            m = self.m[i] = beta1 * self.m[i] + rest1 * gradient
            v = self.v[i] = beta2 * self.v[i] + rest2 * gradient * gradient
            direction = (m / bias1) / (F.sqrt(v / bias2) + eps)
            parameters[i] = parameter - lr * group.rate * (direction + group.decay * parameter)
        self.put(parameters)


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
                size, length = F.sqrt((parameter * parameter).sum()), F.sqrt((direction * direction).sum())
                there = F.sign(size) * F.sign(length)  # 1, or 0 where a norm is, and the ratio is 1
                ratio = (1 - there) + there * trust * size / (length + (1 - there))
                direction = ratio * direction
            m = self.m[i] = momentum * self.m[i] + direction
            parameters[i] = parameter - lr * group.rate * m
        self.put(parameters)


class EMA(Packed, Average):
    """The exponential moving average of weights in MegEngine."""

    def move(self, own: Tensor, decay: float) -> None:
        """Make the vector [n] decay times itself and 1 - decay times `own`, the model's."""
        rest = 1 - decay
        self.vector = decay * self.vector + rest * own
