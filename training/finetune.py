"""Fine-tuning and the linear probe as functions; the loop is in loop.py, what is trained in classification.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .classifying import FineTuning, Probe
from .loop import NotFinite, run_request
from .reading import Kind, read_recipe
from .request import Outcome, Request, resumed

__all__ = ["NotFinite", "Outcome", "Request", "finetune", "linprobe", "resumed", "run_request"]


def finetune(
    framework: str,
    data: str | Path,
    out: str | Path,
    weights: str | Path | None = None,
    recipe: FineTuning | str | Path | None = None,
    settings: tuple[str, ...] = (),
    **options: Any,
) -> Outcome:
    """Fine-tune a classifier on labelled images; the command `polymae finetune` as a function.

    weights: a checkpoint of any framework (an autoencoder's or a classifier's), or a pre-training's folder; None: from scratch.
    recipe: a FineTuning, the name of one, or a YAML file; settings: "name=value" changes of a named one. options: those of
    Request. Raises Problem for anything that a person can mend, NotFinite among them.
    """
    return _done(framework, data, out, weights, recipe, settings, FineTuning, options)


def linprobe(
    framework: str,
    data: str | Path,
    out: str | Path,
    weights: str | Path | None = None,
    recipe: Probe | str | Path | None = None,
    settings: tuple[str, ...] = (),
    **options: Any,
) -> Outcome:
    """Train a linear classifier on a frozen encoder's features; the command `polymae linprobe` as a function.

    Arguments as `finetune`; weights must be given. Raises Problem for anything that a person can mend.
    """
    return _done(framework, data, out, weights, recipe, settings, Probe, options)


def _done(
    framework: str,
    data: str | Path,
    out: str | Path,
    weights: str | Path | None,
    recipe: Kind | str | Path | None,
    settings: tuple[str, ...],
    kind: type[Kind],
    options: dict[str, Any],
) -> Outcome:
    if not isinstance(recipe, kind):
        assert recipe is None or isinstance(recipe, (str, Path))
        recipe = read_recipe(recipe, settings, kind)
    begun = None if weights is None else Path(weights)
    return run_request(Request(framework, Path(data), Path(out), recipe, begun, **options))
