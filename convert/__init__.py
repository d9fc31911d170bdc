"""Checkpoints from any framework to any other, without the frameworks.

`open_checkpoint(path)` opens a file; `prepare(path, Wish(...))` also finds its model and makes of its weights what is requested;
`convert` writes that. `content_hash` is the same for the same weights in every format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..files.lazy import lazily

if TYPE_CHECKING:
    from .checkpoint import Checkpoint, Loaded, content_hash, open_checkpoint
    from .conversion import Prepared, Wish, convert, prepare
    from .tensors import CheckpointProblem
    from .writing import write_checkpoint

__all__ = [
    "Checkpoint", "CheckpointProblem", "Loaded", "Prepared", "Wish", "content_hash", "convert", "open_checkpoint", "prepare",
    "write_checkpoint",
]  # fmt: skip

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Checkpoint": ".checkpoint", "CheckpointProblem": ".tensors", "Loaded": ".checkpoint", "Prepared": ".conversion",
        "Wish": ".conversion", "content_hash": ".checkpoint", "convert": ".conversion", "open_checkpoint": ".checkpoint",
        "prepare": ".conversion", "write_checkpoint": ".writing",
    },
)  # fmt: skip
