"""Checkpoints from any framework to any other, without the frameworks.

`open_checkpoint(path)` opens a file; `prepare(path, Wish(...))` also finds its model and makes of its weights what is requested;
`convert` writes that. `content_hash` is the same for the same weights in every format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import Checkpoint, Loaded, content_hash, open_checkpoint
    from .conversion import Prepared, Wish, convert, prepare
    from .tensors import CheckpointProblem
    from .writing import write_checkpoint

__all__ = [
    "Checkpoint", "CheckpointProblem", "Loaded", "Prepared", "Wish", "content_hash", "convert", "open_checkpoint", "prepare",
    "write_checkpoint",
]  # fmt: skip

# The public names' modules; they are imported when first asked for, so that this package stays instant.
_MODULES = {
    "Checkpoint": ".checkpoint",
    "CheckpointProblem": ".tensors",
    "Loaded": ".checkpoint",
    "content_hash": ".checkpoint",
    "open_checkpoint": ".checkpoint",
    "write_checkpoint": ".writing",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES.get(name, ".conversion"), __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
