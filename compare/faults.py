"""Porting faults that can be planted in any backend, to prove that a comparison would notice them.

A fault is data: a change of the weights, or an edit of a model.py or parts.py as a porter might have mistyped it.
`located_at` is the tap where the fault first shows; a verdict must name it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config
from ..backends.errors import Problem
from ..backends.runtime import Runtime, load_backend
from ..backends.spec import loss_taps, taps

Weights = dict[str, NDArray[Any]]
Edit = tuple[str, str]


@dataclass(frozen=True)
class Fault:
    """One planted fault. `edits` replaces text in the source: one edit for all frameworks, or one for each by name.

    `needs` are the settings of a model in which it makes a difference, where not every model is one.
    """

    name: str
    located_at: str
    weights: Callable[[Weights], None] | None = None
    edits: Mapping[str, Edit] = field(default_factory=dict)
    needs: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, config: Config) -> bool:
        """Whether a model has the tap where this fault shows, and the settings that it needs."""
        there = any(tap.name == self.located_at for tap in (*taps(config), *loss_taps(config)))
        return there and all(getattr(config, name, None) == value for name, value in self.needs.items())

    def apply(self, runtime: Runtime, model: Any) -> None:
        """Spoil the weights of a built model, where this fault is one of the weights."""
        if self.weights is not None:
            spoilt = runtime.weights(model)
            self.weights(spoilt)
            runtime.load_weights(model, spoilt)

    def edit_for(self, framework: str) -> Edit | None:
        """The edit of this framework's source."""
        return self.edits.get(framework, self.edits.get("all"))


def _transpose_position_table(weights: Weights) -> None:
    table = weights["pos_embed"]
    side = int((table.shape[1] - 1) ** 0.5)
    grid = table[:, 1:].reshape(1, side, -1, table.shape[2]).swapaxes(1, 2)
    weights["pos_embed"] = np.concatenate([table[:, :1], grid.reshape(1, -1, table.shape[2])], axis=1)


def _swap_q_and_k(weights: Weights) -> None:
    for kind in ("weight", "bias"):
        q, k, v = np.split(weights[f"blocks.1.attn.qkv.{kind}"], 3)
        weights[f"blocks.1.attn.qkv.{kind}"] = np.concatenate([k, q, v])


def _zero(name: str) -> Callable[[Weights], None]:
    def spoil(weights: Weights) -> None:
        weights[name] = np.zeros_like(weights[name])

    return spoil


# The second block only: its norm1 is the first of the blocks to be built with the wrong eps.
_EPS_OF_ONE_BLOCK = {
    "all": (
        "[Block(dim, num_heads, hidden_dim, norm_eps) for _ in range(depth)]",
        "[Block(dim, num_heads, hidden_dim, 10 * norm_eps if i == 1 else norm_eps) for i in range(depth)]",
    )
}

_EPS_OF_THE_BLOCKS = {"all": ("config.eps_of_blocks", "config.norm_eps")}

# The transposed convolution's own order: channel, row, column.
_CHANNEL_FIRST = {
    name: (f"{permute}(0, 2, 3, 1).reshape(-1, p * p * C)", "reshape(-1, p * p * C)")
    for names, permute in ((("numpy", "megengine"), "transpose"), (("torch", "mindspore", "oneflow"), "permute"))
    for name in names
}
_SHUFFLED = {"all": ('config.masking == "raster"', 'config.masking == ""')}
_OVER_ALL = {"all": ('config.loss_over == "removed"', 'config.loss_over == ""')}

_VARIANCE_AS_DEVIATION = {
    "numpy": ("np.sqrt(self.var + self.eps)", "self.var"),
    "torch": ("torch.sqrt(self.var + self.eps)", "self.var"),
    "megengine": ("F.sqrt(self.var + self.eps)", "self.var"),
    "mindspore": ("ops.sqrt(self.var + constant(self.eps, x))", "self.var"),
    "oneflow": ("flow.sqrt(self.var + self.eps)", "self.var"),
}

_TANH = "0.5 * x * (1 + {}.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))"
_TANH_GELU = {
    "numpy": ("= gelu(x)", "= " + _TANH.format("np")),
    "torch": ("F.gelu(x)", 'F.gelu(x, approximate="tanh")'),
    "megengine": ("F.gelu(x)", _TANH.format("F")),
    "mindspore": ('approximate="none"', 'approximate="tanh"'),
    "oneflow": ("F.gelu(x)", _TANH.format("flow")),
}
_BIASED_VARIANCE = {
    "numpy": ("unbiased_variance(target)", "target.var(axis=-1, keepdims=True)"),
    "torch": ("var(dim=-1, ", "var(dim=-1, unbiased=False, "),
    "megengine": ("(target.shape[-1] - 1)", "target.shape[-1]"),
    "mindspore": ("unbiased_variance(target)", "target.var(axis=-1, keepdims=True)"),
    "oneflow": ("var(dim=-1, ", "var(dim=-1, unbiased=False, "),
}

FAULTS = {
    fault.name: fault
    for fault in (
        Fault("layer norm eps ten times larger in one block", "blocks.1.norm1", edits=_EPS_OF_ONE_BLOCK),
        Fault("tanh gelu", "blocks.0.mlp.gelu", edits=_TANH_GELU),
        Fault("biased variance in the loss", "norm_pix.target", edits=_BIASED_VARIANCE),
        Fault("decoder norm skipped", "decoder_norm", edits={"all": ("self.decoder_norm(x)", "x")}),
        Fault("position table transposed", "pos_embed", weights=_transpose_position_table),
        Fault("q and k swapped", "blocks.1.attn.qkv", weights=_swap_q_and_k),
        Fault("convolution bias dropped", "patch_embed", weights=_zero("patch_embed.proj.bias")),
        Fault("mask token not added", "decoder_tokens", weights=_zero("mask_token")),
        Fault(
            "block eps that of the other norms",
            "blocks.0.norm1",
            edits=_EPS_OF_THE_BLOCKS,
            needs={"norm_eps": 1e-6, "block_norm_eps": 1e-5},
        ),
        Fault("pixels of a conv head channel first", "pred", edits=_CHANNEL_FIRST, needs={"head": "conv"}),
        Fault("patch norm eps that of the other norms", "patch_norm", edits={"all": ("1e-12", "config.norm_eps")}),
        Fault("raster masks shuffled", "ids_restore", edits=_SHUFFLED, needs={"masking": "raster"}),
        Fault(
            "head norm eps ten times larger",
            "head_norm",
            edits={"all": ("HeadNorm(D, eps=1e-6)", "HeadNorm(D, eps=1e-5)")},
        ),
        Fault("head norm variance as standard deviation", "head_norm", edits=_VARIANCE_AS_DEVIATION),
        Fault("loss over all patches", "loss", edits=_OVER_ALL, needs={"loss_over": "removed"}),
    )
}


@contextmanager
def plant(name: str | None, framework: str, config: Config) -> Iterator[Fault]:
    """Put a fault into the framework's backend (None: leave it as it is) for the time of the context.

    Raises Problem for an unknown fault, one that this model has no place for, or one whose edit no longer fits the source.
    """
    if name is None:
        yield Fault("none", "")
        return
    if name not in FAULTS:
        near = get_close_matches(name, FAULTS, n=3) or list(FAULTS)
        raise Problem(f"Unknown fault {name!r}. Nearest names: {', '.join(near)}.")
    fault = FAULTS[name]
    if not fault.fits(config):
        settings = "".join(f" with {key}={value}" for key, value in fault.needs.items())
        raise Problem(f"The fault {name!r} shows at {fault.located_at}{settings}, which this model does not have.")
    edit = fault.edit_for(framework)
    if edit is None:
        yield fault
        return
    with ExitStack() as stack:
        load_backend(framework)
        edited = _edited_model(f"polymae.backends.{framework}", edit)
        for user in ("runtime", "backward"):
            module = sys.modules.get(f"polymae.backends.{framework}.{user}")
            for model in ("MAE", "ViT") if module else ():
                stack.enter_context(patch.object(module, model, getattr(edited, model)))
        yield fault


def _edited_model(backend: str, edit: Edit) -> ModuleType:
    """A second copy of a backend's model.py, made from its source and that of parts.py with the edit in them."""
    names = [f"{backend}.{name}" for name in ("parts", "model")]
    if not any(edit[0] in _source(name) for name in names):
        raise Problem(f"{backend} does not hold {edit[0]!r} any more; bring compare/faults.py up to date.")
    parts, model = names
    real = sys.modules[parts]
    try:
        sys.modules[parts] = _executed(parts, edit)  # what model.py will import
        return _executed(model, edit)
    finally:
        sys.modules[parts] = real


def _executed(name: str, edit: Edit) -> ModuleType:
    module = importlib.util.module_from_spec(importlib.util.find_spec(name))  # type: ignore[arg-type]
    exec(compile(_source(name).replace(*edit), name, "exec"), module.__dict__)
    return module


def _source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    source: str = spec.loader.get_source(name)  # type: ignore[union-attr]
    return source
