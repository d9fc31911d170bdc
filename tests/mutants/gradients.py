"""Faults of the backward pass alone: the forward pass has the same bits as without them."""

from __future__ import annotations

from functools import partial

from .planting import Edits, Fault, in_each

_fault = partial(Fault, level="gradients")
_DETACHED = dict.fromkeys(("torch", "megengine", "oneflow"), "{}.detach()") | {"mindspore": "ops.stop_gradient({})"}
_SOFTMAX = {
    "torch": "attn.softmax(dim=-1)",
    "megengine": "F.softmax(attn, axis=-1)",
    "mindspore": "ops.softmax(attn, axis=-1)",
    "oneflow": "attn.softmax(dim=-1)",
}


def _stopped() -> Edits:
    """Nothing is passed on; the graph stays connected, for frameworks refuse parameters that are not in it."""
    edits = {
        name: ("self.decoder_embed(x)", f"self.decoder_embed({detached.format('x')} + 0 * x)")
        for name, detached in _DETACHED.items()
    }
    of_numpy = ('"latent", lambda: _linear(', '"latent", lambda: 0 * _linear(')
    return {**in_each("model", **edits), **in_each("backward", numpy=of_numpy)}


def _half_a_softmax() -> Edits:
    """y dy for y (dy - sum(dy y)): the product with 1 + (x - x) has the value of y and another gradient."""
    edits = {
        name: (text, f"{_DETACHED[name].format(text)} * (1 + (attn - {_DETACHED[name].format('attn')}))")
        for name, text in _SOFTMAX.items()
    }
    of_numpy = ("y * (dy - (dy * y).sum(axis=-1, keepdims=True))", "y * dy")
    return {**in_each("blocks", **edits), **in_each("backward", numpy=of_numpy)}


def _scaled() -> Edits:
    line = "model.norm_pix_loss = model.config.norm_pix_loss\n    return loss"
    edits = dict.fromkeys(_DETACHED, (line, line.replace("return loss", "return 65536 * loss")))
    of_numpy = ("return 2 * (pred", "return 131072 * (pred")
    return {**in_each("backends.runtime", **edits), **in_each("backward", numpy=of_numpy)}


FAULTS = (
    _fault(
        "gradient stopped at the encoder",
        located_at="dy/latent",
        about="The latent was detached in front of the decoder.",
        edits=_stopped(),
    ),
    _fault(
        "softmax differentiated element by element",
        located_at="dy/decoder_blocks.1.attn.qkv",
        about="A backward pass by hand has y dy for y (dy - sum(dy y)).",
        edits=_half_a_softmax(),
    ),
    _fault(
        "loss scale not taken out",
        located_at="dy/pred",
        about="The gradients were not divided by the scale that mixed precision multiplies the loss with.",
        edits=_scaled(),
    ),
)
