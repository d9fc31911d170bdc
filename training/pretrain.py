"""Pre-training as a function; the loop is in loop.py, what is trained in autoencoding.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .autoencoding import open_batches, training_options
from .loop import NotFinite, run_request
from .reading import read_recipe
from .recipe import Recipe
from .request import Outcome, Request, resumed

__all__ = [
    "NotFinite", "Outcome", "Request", "open_batches", "pretrain", "resumed", "run_request", "training_options",
]  # fmt: skip


def pretrain(
    framework: str,
    data: str | Path,
    out: str | Path,
    recipe: Recipe | str | Path | None = None,
    settings: tuple[str, ...] = (),
    **options: Any,
) -> Outcome:
    """Pre-train a masked autoencoder; the command `polymae pretrain` as a function.

    recipe: a Recipe, the name of one, or a YAML file; settings: "name=value" changes of a named one. options: those of
    Request. Raises Problem for anything that a person can mend, NotFinite among them.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, settings)
    request = Request(framework, Path(data), Path(out), recipe, **options)
    return run_request(request)
