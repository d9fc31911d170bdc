"""Going on from a training checkpoint of the official code: its recipe from the options in it, its moments by their order.

Source: facebookresearch/mae main_pretrain.py (options), util/misc.py `load_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..convert.training_state import options_of
from ..files.errors import Problem

# The script's options and the settings that they are here.
_SAME = {
    "model": "model", "mask_ratio": "mask_ratio", "norm_pix_loss": "norm_pix_loss", "seed": "seed", "blr": "optimizer.blr",
    "weight_decay": "optimizer.weight_decay", "lr": "optimizer.lr", "epochs": "schedule.epochs",
    "warmup_epochs": "schedule.warmup_epochs", "min_lr": "schedule.min_lr", "accum_iter": "batch.accumulate",
}  # fmt: skip
_NUMBERS = ("warmup_epochs", "mask_ratio", "blr", "weight_decay", "lr", "min_lr")


def recipe_in(path: Path) -> dict[str, Any]:
    """The recipe of the run that saved a file, as nested settings. Raises Problem where the file does not say it."""
    options = options_of(path)
    missing = [name for name in ("model", "epochs", "batch_size") if name not in options]
    if missing:
        raise Problem(
            f"{path} does not say what it was trained with ({', '.join(missing)} of its args); give --recipe, with --set for "
            "what differs."
        )
    tree: dict[str, Any] = {"about": f"the options in {path.name}"}
    for name, dotted in _SAME.items():
        if name in options:
            value = options[name]
            _put(tree, dotted, float(value) if name in _NUMBERS else value)
    _put(tree, "batch.batch_size", _global_batch(options))
    return tree


def _global_batch(options: Mapping[str, Any]) -> int:
    """Images of a step: of one process, times the parts and the processes."""
    return int(options["batch_size"]) * int(options.get("accum_iter", 1)) * int(options.get("world_size", 1))


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *groups, last = dotted.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[last] = value
