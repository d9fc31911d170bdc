"""The loss scale of float16: one rule for every framework, that of torch.amp.GradScaler.

The loss, and so every gradient, is larger by the scale until the update divides by it: small gradients do not vanish.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files.errors import Problem


@dataclass(frozen=True)
class Scaling:
    """The numbers of the rule.

    The scale begins at `initial`, is multiplied by `growth` after `interval` finite steps in a row, and by `backoff` after a step
    whose gradients overflowed, which is skipped. Raises Problem where growth is below 1, backoff not between 0 and 1, or
    initial or interval not above 0.
    """

    initial: float = 65536.0
    growth: float = 2.0
    backoff: float = 0.5
    interval: int = 2000

    def __post_init__(self) -> None:
        if not (_positive(self.initial) and self.growth >= 1 and 0 < self.backoff < 1 and self.interval >= 1):
            raise Problem(
                f"No loss scale follows from {self}: initial and interval must be above 0, growth at least 1, backoff between "
                "0 and 1. Leave them out for those of torch.amp.GradScaler."
            )


class LossScale:
    """The scale of a run, a float32 number, and the finite steps since it last changed.

    scaling: None leaves the scale at 1 whatever overflows: for float32 and bfloat16, whose range is wide enough.
    """

    def __init__(self, scaling: Scaling | None = None):
        self.scaling = scaling
        self.scale = _float32(scaling.initial) if scaling else 1.0
        self.finite = 0

    @classmethod
    def of(cls, precision: str) -> LossScale:
        """The loss scale that training in a precision needs."""
        return cls(Scaling() if precision == "float16" else None)

    def update(self, finite: bool) -> None:
        """What a step tells: whether its gradients were finite. Where they were not, it was skipped.

        Raises Problem where nothing is left of the scale: no step was finite for long.
        """
        if self.scaling is None:
            return
        self.finite = self.finite + 1 if finite else 0
        if not finite:
            shrunk = _float32(self.scale * self.scaling.backoff)
            if not shrunk:
                raise Problem(
                    f"The gradients overflow at a loss scale of {self.scale:g}, too: they are not finite, whatever the scale. "
                    "Go on from an earlier checkpoint with a lower learning rate, or train in bfloat16 or float32."
                )
            self.scale = shrunk
        elif self.finite == self.scaling.interval:
            grown = _float32(self.scale * self.scaling.growth)
            self.scale = grown if math.isfinite(grown) else self.scale
            self.finite = 0

    def state_dict(self) -> dict[str, float | int]:
        """What a checkpoint holds: the scale and the finite steps since it last changed."""
        return {"scale": self.scale, "finite": self.finite}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises Problem for what is none, and changes nothing then."""
        scale, finite = state.get("scale"), state.get("finite")
        if not _positive(scale) or not isinstance(finite, int) or isinstance(finite, bool) or finite < 0:
            raise Problem(
                f"A loss scale's state has a scale above 0 and a number of finite steps, not {dict(state)!r}. "
                "Resume from another checkpoint."
            )
        self.scale, self.finite = float(scale), finite  # type: ignore[arg-type]


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _float32(value: float) -> float:
    """A number as float32 has it, in which GradScaler keeps its scale; too large a one is infinite."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))
