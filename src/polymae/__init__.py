"""Masked autoencoders in PyTorch, MegEngine, MindSpore, OneFlow and NumPy from one spec, proven equal.

`load` builds a model of any framework; `convert`, `compare` and `hub` are the packages that rewrite checkpoints, judge ports and
name models; `Trainer`, `pipeline`, `ViTMAEForPreTraining` and `ViTForImageClassification` are interfaces that people know. They
are imported when first asked for, so that this package stays instant.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import compare, convert, hub
    from .files.errors import Problem
    from .files.version import __version__
    from .hub import load
    from .interfaces import Trainer, ViTForImageClassification, ViTMAEForPreTraining, pipeline

__all__ = [
    "Problem", "Trainer", "ViTForImageClassification", "ViTMAEForPreTraining", "__version__", "compare", "convert", "hub", "load",
    "pipeline",
]  # fmt: skip

# The package's folders lie at the top of the repository. Here are links to them, and in a wheel the folders themselves; a zip of
# the repository and a checkout on Windows have lost the links.
if not (Path(__file__).parent / "backends").is_dir():
    __path__.append(str(Path(__file__).resolve().parents[2]))

from .files.lazy import lazily

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Problem": ".files.errors", "__version__": ".files.version", "compare": ".compare", "convert": ".convert", "hub": ".hub",
        "load": ".hub", "Trainer": ".interfaces", "ViTForImageClassification": ".interfaces",
        "ViTMAEForPreTraining": ".interfaces", "pipeline": ".interfaces",
    },
)  # fmt: skip
