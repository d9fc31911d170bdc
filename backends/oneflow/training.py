"""Training in OneFlow. The five training.py files read alike: what they share is in ../training.py."""

from __future__ import annotations

from ..training import Training as Shared


class Training(Shared):
    """A model in training in OneFlow, always eager."""

    REASON = "OneFlow 0.9 ignores autocast on the CPU, without an error; on a GPU it was not tried."
