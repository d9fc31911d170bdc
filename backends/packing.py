"""Tensors of a model as few large vectors, so that an operation on all of them is few operations.

docs/decisions/packed-gradients.md has the reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Packing(ABC):
    """How a framework makes one vector of many tensors, and many of one; each backend's optimizer.py has its own."""

    @abstractmethod
    def norm(self, vectors: list[Any]) -> float:
        """The Euclidean norm of all vectors together."""

    @abstractmethod
    def pack(self, tensors: list[Any]) -> Any:
        """Tensors, end to end, as one vector [n]: a copy."""

    @abstractmethod
    def unpack(self, vector: Any, like: list[Any]) -> list[Any]:
        """The inverse of pack: a vector [n] cut into tensors of the shapes of `like`."""

    @abstractmethod
    def assign(self, parameters: list[Any], values: list[Any]) -> None:
        """Give parameters of the model new values, tensor by tensor."""
