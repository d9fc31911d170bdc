"""The entry points of the hubs: one function for each named model, and `MAE` for models of one's own sizes.

hubconf.py and mindspore_hub_conf.py at the top of the repository offer them to torch.hub, megengine.hub, oneflow.hub and
MindSpore. Nothing here imports more than NumPy before an entry is called.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from ..backends import FRAMEWORKS
from ..backends.config import Config, ConfigError, MAEConfig
from ..backends.presets import ALIASES, FOR_TESTS, NAMED, PRESETS, model_config
from ..backends.spec import params
from ..files.errors import Problem
from .loading import Size, load
from .registry import of_model

Entry = Callable[..., Any]
# The module of each hub that runs a hubconf.py, and the framework that its users expect.
_HUBS = {"torch.hub": "torch", "oneflow.hub": "oneflow", "megengine.hub.hub": "megengine"}
_ARGUMENTS = """
    pretrained: False (initial weights){published},
        or the place of your own: a path, a URL or a Hugging Face id. Any framework's files are converted on the way.
    framework: torch, megengine, mindspore, oneflow or numpy; left out, the one whose hub this is.
    image_size: pixels, or (height, width); the position tables are interpolated. device: "cpu" or "cuda". dtype: "float32".
    Other settings of the model: {settings}.
    Raises polymae.files.errors.Problem if something cannot be had; it says what to do.
"""


def list_models() -> list[str]:
    """Every model for people by name, the official long names included.

    The small ones of the tests, which `load` takes as well, only if the user's own list ($POLYMAE_REGISTRY) has weights
    of them.
    """
    return sorted([*(name for name in NAMED if name not in FOR_TESTS or _published(name, False)), *ALIASES])


def calling_hub() -> str | None:
    """The framework whose hub is importing a hubconf.py, by the modules that are being called; None outside of a hub."""
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name in _HUBS:
            return _HUBS[name]
        frame = frame.f_back
    return None


def entries(default: str | None) -> dict[str, Entry]:
    """Every entry by name: each named model, the paper's again for each framework (torch_mae_...), and MAE.

    default: the framework of those that are not named after one; None: framework=... must be given.
    """
    by_name: dict[str, Entry] = {"MAE": _constructor(default)}
    for name in list_models():
        by_name[name] = _entry(name, name, default)
        for framework in FRAMEWORKS if name in PRESETS or name in ALIASES else ():
            by_name[f"{framework}_{name}"] = _entry(f"{framework}_{name}", name, framework)
    return by_name


def _entry(entry: str, model: str, default: str | None) -> Entry:
    def build(pretrained: Any = False, *, framework: str | None = default, **settings: Any) -> Any:
        return load(model, require_framework(framework, entry), pretrained, **settings)

    build.__name__ = build.__qualname__ = entry
    config = NAMED[ALIASES.get(model, model)]
    build.__doc__ = describe(model, config)
    return build


def unknown(name: str) -> Problem:
    """The error for a name that is none of the entries."""
    known = ["MAE", *list_models()]
    near = get_close_matches(name, known, n=3) or known
    return Problem(f"There is no model {name!r} here. Nearest names: {', '.join(near)}.")


def require_framework(framework: str | None, entry: str) -> str:
    """The chosen framework. Raises Problem if it was left out and no hub is calling."""
    if framework is None:
        raise Problem(
            f"{entry} was not called by a hub, so say for which framework: {entry}(framework={FRAMEWORKS[1]!r}), or one of "
            f"{', '.join(FRAMEWORKS)}."
        )
    return framework


@functools.cache
def describe(model: str, config: Config) -> str:
    """The text of help() and hub.help() for a named model."""
    count = sum(param.size for param in params(config)) / 1e6
    sizes = f"width {config.embed_dim}, {config.depth} blocks, {config.num_heads} heads, patches of {config.patch_size} pixels"
    if isinstance(config, MAEConfig):
        kind = "Masked autoencoder (He et al. 2021)"
        gives = "(imgs, noise=None, mask_ratio=0.75) gives (loss, pred, mask)"
        sizes += f"; decoder {config.decoder_embed_dim} wide, {config.decoder_depth} blocks, {config.decoder_num_heads} heads"
        best = "visualize, or full with norm_pix_loss=True"
        settings = "norm_pix_loss, in_chans, decoder_depth and so on"
    else:
        kind, gives = "Classifier on the MAE encoder (He et al. 2021)", "(imgs) gives logits [N, num_classes]"
        best = "finetuned; pretrain for other classes"
        settings = "num_classes, pooling ('gap' or 'cls'), in_chans and so on"
    kinds = _published(ALIASES.get(model, model), isinstance(config, MAEConfig))
    return (
        f"{kind}: {count:,.1f} M parameters, {sizes}.\n\n    model{gives}; model.encode(imgs) gives features.\n"
        + _ARGUMENTS.format(
            published=f", True ({best}),\n        a kind of published weights ({', '.join(kinds)})" if kinds else "",
            settings=settings,
        )
    )


def _published(model: str, whole: bool) -> list[str]:
    """The kinds of published weights that a model takes; whole: only those with a decoder."""
    try:
        return [kind for kind, row in of_model(model).items() if not whole or row.contents == "mae"]
    except Problem:  # a user's own list that cannot be read: reported when weights are wanted
        return []


def _constructor(default: str | None) -> Entry:
    def MAE(
        img_size: Size = 224, patch_size: int = 16, in_chans: int = 3, embed_dim: int = 1024, depth: int = 24,
        num_heads: int = 16, decoder_embed_dim: int = 512, decoder_depth: int = 8, decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0, norm_layer: Any = None, norm_pix_loss: bool | None = None, *, pretrained: Any = False,
        framework: str | None = default, **settings: Any,
    ) -> Any:  # fmt: skip
        """A masked autoencoder of your own sizes, in the official constructor's names and defaults (ViT-Large).

        norm_layer: None (as the weights were trained, else eps 1e-6, which every official model has), a framework's LayerNorm
        (then its own default eps, as the official constructor does), or functools.partial(LayerNorm, eps=...). norm_pix_loss:
        None is as the weights were trained, else False. pretrained, framework and the rest as in the named entries.
        Raises polymae.files.errors.Problem where sizes do not fit together.
        """
        sizes = {
            "img_size": img_size, "patch_size": patch_size, "in_chans": in_chans, "embed_dim": embed_dim, "depth": depth,
            "num_heads": num_heads, "decoder_embed_dim": decoder_embed_dim, "decoder_depth": decoder_depth,
            "decoder_num_heads": decoder_num_heads, "mlp_ratio": mlp_ratio,
        }  # fmt: skip
        chosen = require_framework(framework, "MAE")
        model = ",".join(f"{name}={value}" for name, value in sizes.items())
        config = model_config(model)
        # Of a preset's sizes there may be published weights, listed under its name.
        alike = {name: preset for name, preset in PRESETS.items() if preset.patch_size == patch_size}
        model = next((n for n, preset in alike.items() if replace(preset, img_size=config.img_size) == config), model)
        explicit = {"norm_eps": None if norm_layer is None else _eps_of(norm_layer), "norm_pix_loss": norm_pix_loss}
        settings |= {name: value for name, value in explicit.items() if value is not None}
        return load(model, chosen, pretrained, image_size=img_size, **settings)

    MAE.__qualname__ = "MAE"
    return MAE


def _eps_of(norm_layer: Any) -> float:
    """The eps of the official constructor's argument norm_layer."""
    keywords: Mapping[str, Any] = {}
    layer = norm_layer
    if isinstance(norm_layer, functools.partial):
        layer, keywords = norm_layer.func, norm_layer.keywords
    names = ("eps", "epsilon")  # MindSpore calls it epsilon
    try:
        parameters = inspect.signature(layer).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    defaults = {name: parameters[name].default for name in names if name in parameters}
    eps = next((keywords[name] for name in names if name in keywords), next(iter(defaults.values()), None))
    more = keywords.keys() - {*names}  # such as elementwise_affine=False, which no model here has
    if getattr(layer, "__name__", "") != "LayerNorm" or not isinstance(eps, float) or more:
        raise ConfigError(
            f"norm_layer is {norm_layer!r}; these models have layer norms: give None, LayerNorm or "
            "functools.partial(LayerNorm, eps=1e-6)."
        )
    return eps
