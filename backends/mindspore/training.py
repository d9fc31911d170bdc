"""Training in MindSpore. The five training.py files read alike: what they share is in ../training.py."""

from __future__ import annotations

from ..training import Training as Shared


class Training(Shared):
    """A model in training in MindSpore."""
