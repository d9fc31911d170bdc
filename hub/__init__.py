"""Named models in any framework, with published weights or your own: `load` and `list_models`."""

from __future__ import annotations

from .entries import list_models
from .loading import load

__all__ = ["list_models", "load"]
