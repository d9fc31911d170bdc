"""`load` a named model in any framework, with weights from anywhere."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backends.config import ConfigError, MAEConfig
from ..backends.errors import Problem
from ..backends.presets import ALIASES, model_config
from ..backends.runtime import load_backend, require_device

Size = int | tuple[int, int]


def load(
    name: str,
    framework: str = "torch",
    pretrained: bool | str | Path = False,
    *,
    weights: str | Path | None = None,
    image_size: Size | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    verbose: bool = True,
    **settings: Any,
) -> Any:
    """A model of one framework (a torch.nn.Module, megengine Module, mindspore Cell, ...), ready to run, in eval mode.

    name: one of list_models(), a JSON file or "img_size=32,patch_size=8,...". pretrained: False (initial weights), True (the
    best published checkpoint for it) or, as `weights` may be too: a kind ("visualize", "full", "pretrain", "finetuned",
    "ganloss"), a name of the registry, a path, a URL, or a Hugging Face id. A file of any format and dialect is converted on
    the way; downloads are kept (POLYMAE_HOME). image_size: pixels, or (height, width); position tables are interpolated.
    settings: of the model, as num_classes=10, pooling="cls", norm_pix_loss=True, in_chans=1. verbose: say on stderr which
    weights were taken, and what of them was not. Raises Problem where something is not to be had; it says what to do.
    """
    runtime = load_backend(framework)
    require_device(runtime, framework, device)
    size = _size(settings.pop("img_size", image_size))
    if "global_pool" in settings:  # its official name
        settings["pooling"] = "gap" if settings.pop("global_pool") else "cls"
    name = ALIASES.get(name, name)
    config = model_config(name, **settings)
    chosen = _one_of(pretrained, weights)
    if chosen is None:
        return runtime.build(config if size is None else replace(config, img_size=size), None, device, dtype)
    from .fitting import fit
    from .sources import source_of

    source = source_of(chosen, name, config)
    row = source.row
    if row and row.contents == "mae" and isinstance(config, MAEConfig):
        # It was trained so; who sets it by hand knows better.
        settings = {"norm_pix_loss": row.pixels == "normalised", **settings}
    fitted = fit(source.fetch(framework), name, size, **settings)
    if verbose:
        _say(name, str(source), fitted.initialised, fitted.dropped, fitted.done)
    return runtime.build(fitted.config, fitted.weights, device, dtype)


def _one_of(pretrained: bool | str | Path, weights: str | Path | None) -> bool | str | Path | None:
    """What is wanted; None for initial weights."""
    if weights is not None and pretrained is not False:
        raise Problem(f"pretrained={pretrained!r} and weights={str(weights)!r} both name weights; give one of them.")
    if not isinstance(pretrained, (bool, str, Path)):
        raise Problem(f"pretrained is {pretrained!r}; it must be True, False, or the name or place of weights.")
    return (None if pretrained is False else pretrained) if weights is None else weights


def _size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (list, tuple)) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise ConfigError(f"The image size is {size!r}; it must be a number of pixels, or (height, width).")
    return sides[0], sides[1]


def _say(name: str, source: str, initialised: tuple[str, ...], dropped: tuple[str, ...], done: tuple[str, ...]) -> None:
    parts = [f"{name} with {source}", *done]
    if initialised:
        parts.append(f"initial values: {', '.join(initialised)}")
    if dropped:
        parts.append(f"left out: {', '.join(dropped)}")
    print("polymae: " + "; ".join(parts), file=sys.stderr)
