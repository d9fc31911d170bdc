"""The interfaces that users of mindformers and transformers know, each a thin layer over hub and training.

`Trainer`, `pipeline`, `ViTMAEForPreTraining` and `ViTForImageClassification`, in every framework; `polymae run CONFIG.yaml`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..files.lazy import lazily

if TYPE_CHECKING:
    from .models import ViTForImageClassification, ViTMAEForPreTraining
    from .pipelines import pipeline
    from .trainer import Trainer

__all__ = ["Trainer", "ViTForImageClassification", "ViTMAEForPreTraining", "pipeline"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Trainer": ".trainer", "ViTForImageClassification": ".models", "ViTMAEForPreTraining": ".models",
        "pipeline": ".pipelines",
    },
)  # fmt: skip
