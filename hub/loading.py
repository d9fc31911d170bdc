"""`load` a named model in any framework, with weights from anywhere."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends.config import ConfigError, MAEConfig
from ..backends.initial import initial_weights
from ..backends.presets import ALIASES, model_config
from ..backends.runtime import load_backend, require_device, require_dtype
from ..files.errors import Problem

if TYPE_CHECKING:
    from .fitting import Fitted
    from .resolve import Source

Size = int | tuple[int, int]


def load(
    name: str,
    framework: str = "torch",
    pretrained: bool | str | Path = False,
    *,
    weights: str | Path | None = None,
    image_size: Size | None = None,
    device: Any = "cpu",
    dtype: Any = "float32",
    seed: int = 0,
    prefix: str | None = None,
    dialect: str | None = None,
    verbose: bool = True,
    **settings: Any,
) -> Any:
    """A model of one framework (a torch.nn.Module, megengine Module, mindspore Cell, ...), ready to run, in eval mode.

    name: one of list_models(), a JSON file or "img_size=32,patch_size=8,...". pretrained: False (initial weights), True (the
    best published checkpoint for it) or, as `weights` may be too: a kind ("visualize", "full", "pretrain", "finetuned",
    "ganloss"), a name of the registry, a path, a URL, or a Hugging Face id. A file of any format and dialect is converted on
    the way; downloads are kept (POLYMAE_HOME). image_size: pixels, or (height, width); position tables are interpolated.
    device: "cpu", "cuda", ...; dtype: "float32", ...; or a framework's own objects for them. seed: of the initial weights,
    which are the same in every framework, whatever random numbers it has drawn. prefix: the beginning of the model's names
    in a file that holds several ("online.backbone"). dialect: the spelling of the file's names (`polymae dialects`), if they
    do not tell it.
    settings: of the model, as num_classes=10, pooling="cls", norm_pix_loss=True, in_chans=1. verbose: say on stderr which
    weights were taken, and which of them were left out. Raises Problem if something is not available; it names the remedy.
    """
    # A framework's own objects are written torch.float32 or Float32, device objects cuda.
    device, dtype = str(device), str(dtype).rpartition(".")[2].lower()
    runtime = load_backend(framework)
    require_device(runtime, framework, device)
    require_dtype(framework, runtime.DTYPES, dtype)
    size = _size(image_size, settings)
    if "global_pool" in settings:  # its official name
        settings["pooling"] = _pooling(settings.pop("global_pool"), settings)
    name = ALIASES.get(name, name)
    config = model_config(name, **settings)
    if size is not None:
        config = replace(config, img_size=size)
    chosen = _one_of(pretrained, weights)
    if chosen is False:
        return runtime.build(config, initial_weights(config, seed), device, dtype)
    from .fitting import fit
    from .receipts import explaining
    from .resolve import source_of

    source = source_of(chosen, name, config)
    row = source.of_row
    if row and row.contents == "mae" and isinstance(config, MAEConfig):
        # It was trained so; who sets it by hand knows better.
        settings = {"norm_pix_loss": row.pixels == "normalised", **settings}
    path = source.fetch()
    with explaining(path):
        fitted = fit(path, name, size, seed, prefix=prefix, dialect=dialect, **settings)
    if verbose:
        _say(name, source, fitted)
    return runtime.build(fitted.config, fitted.weights, device, dtype)


def _one_of(pretrained: Any, weights: Any) -> Any:
    """The one argument that names weights; False for initial weights."""
    if weights is not None and pretrained is not False:
        raise Problem("pretrained and weights both name weights; give one of them.")
    if not isinstance(pretrained, (bool, str, Path)):
        raise Problem(f"pretrained is {pretrained!r}; it must be True, False, or the name or place of weights.")
    return pretrained if weights is None else weights


def _size(image_size: Any, settings: dict[str, Any]) -> tuple[int, int] | None:
    """The image size in pixels, under either of its names."""
    size = settings.pop("img_size", image_size)
    if image_size is not None and size != image_size:
        raise ConfigError(f"img_size={size!r} and image_size={image_size!r} are the same setting; give one of them.")
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (list, tuple)) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise ConfigError(f"The image size is {size!r}; it must be a number of pixels, or (height, width).")
    return sides[0], sides[1]


def _pooling(global_pool: Any, settings: dict[str, Any]) -> str:
    if not isinstance(global_pool, bool) or "pooling" in settings:
        raise ConfigError(
            f"global_pool is {global_pool!r}; it must be True (pooling='gap') or False (pooling='cls'), and pooling left out."
        )
    return "gap" if global_pool else "cls"


def _say(name: str, source: Source, fitted: Fitted) -> None:
    """Say which weights were taken, which of them were left out, and which of the model's are not from them."""
    parts = [f"{name} with {source}", *fitted.done]
    if fitted.dropped:
        parts.append(f"without {', '.join(fitted.dropped)}")
    if fitted.initialised:
        parts.append(f"newly initialised: {', '.join(fitted.initialised)}")
    print("polymae: " + "; ".join(parts), file=sys.stderr)
