"""Faults of fine-tuning: drop path, and the loss of soft targets. Planted in a classifier whose run has both."""

from __future__ import annotations

from functools import partial

from .planting import Edits, Fault, in_all, in_each

_fault = partial(Fault, level="forward", tuned=True, needs={"depth": 2})
_of_loss = partial(Fault, level="loss", located_at="loss", tuned=True)

_ATTN, _MLP = "drop_path[:, :1, None]", "drop_path[:, 1:, None]"
# In the model's first block keep is 1: what has no effect there first shows in the second.
_ATTN_ADDED, _MLP_ADDED = "blocks.1.residual", "blocks.1"


def _factors(attn: str, mlp: str) -> Edits:
    """Other factors of both branches."""
    return in_all("blocks", (_ATTN, attn), (_MLP, mlp))


_DETACHED = dict.fromkeys(("torch", "megengine", "oneflow"), "({}).detach()") | {"mindspore": "ops.stop_gradient({})"}


def _straight_through() -> Edits:
    """The value of y times a factor, and the gradient of y."""
    passed = {
        name: tuple((f"y * {factor}", f"y + {detached.format(f'y * {factor} - y')}") for factor in (_ATTN, _MLP))
        for name, detached in _DETACHED.items()
    }
    of_numpy = ('dy * out["input/drop_path"][:, int(i), place, None, None]', "dy")
    return {**in_each("blocks", **passed), **in_each("backward", numpy=of_numpy)}


DROP_PATH = (
    _fault(
        "drop path not divided by keep",
        located_at=_ATTN_ADDED,
        about="Branches are dropped, and those that are kept are not made larger for it.",
        edits=_factors(f"({_ATTN} / ({_ATTN} + 1e-30))", f"({_MLP} / ({_MLP} + 1e-30))"),
    ),
    _fault(
        "drop path by one draw for the batch",
        located_at=_ATTN_ADDED,
        about="A block is dropped for all images together, as in the paper on stochastic depth.",
        edits=_factors("drop_path[:1, :1, None]", "drop_path[:1, 1:, None]"),
    ),
    _fault(
        "drop path by one draw for both branches",
        located_at=_MLP_ADDED,
        about="Attention and MLP of a block are dropped together.",
        edits=in_all("blocks", (_MLP, _ATTN)),
    ),
    _fault(
        "drop path of attention and MLP swapped",
        located_at=_ATTN_ADDED,
        about="The two draws of a block were taken in the other order.",
        edits=in_all("blocks", (_ATTN, "drop_path[:, -1:, None]"), (_MLP, _ATTN)),
    ),
    _fault(
        "drop path of the MLP forgotten",
        located_at=_MLP_ADDED,
        about="Only the attention has it.",
        edits=in_all("blocks", (f"y * {_MLP}", "y * 1")),
    ),
    _fault(
        "drop path ignored",
        located_at=_ATTN_ADDED,
        about="The factors are accepted and not used, as by a model that is left in evaluation.",
        edits=in_all("blocks", ("drop_path is not None", "False")),
    ),
    _fault(
        "drop path on the residual",
        located_at=_ATTN_ADDED,
        about="The sum is dropped, with the block's input in it, and not the branch.",
        edits=in_all(
            "blocks", (f"y = y * {_ATTN}", f"x, y = x * {_ATTN}, y * {_ATTN}"),
            (f"y = y * {_MLP}", f"x, y = x * {_MLP}, y * {_MLP}"),
        ),
    ),
    _fault(
        "drop path in front of the branch",
        located_at="blocks.1.attn.qkv",
        about="The branch's input is dropped, so that its biases remain.",
        edits=in_all(
            "blocks", ("y = self.attn(y, out", f"y = self.attn(y if drop_path is None else y * {_ATTN}, out"),
            (f"y = y * {_ATTN}", "y = y * 1"),
        ),
    ),
    _fault(
        "drop path falling with depth",
        located_at="blocks.0.residual",
        about="The list of rates was reversed: the first block is dropped most.",
        edits=in_all("model", ("drop_path[:, i]", "drop_path[:, -1 - i]")),
    ),
    _fault(
        "drop path of one rate for all blocks",
        located_at="blocks.0.residual",
        about="Every block has the last one's, where the rate should rise from 0.",
        edits=in_all("model", ("drop_path[:, i]", "drop_path[:, -1]")),
    ),
    _fault(
        "drop path not differentiated",
        level="gradients",
        located_at="grad/blocks.1.mlp.fc2.bias",
        about="Dropped branches are trained as if they had been kept.",
        edits=_straight_through(),
    ),
)  # fmt: skip

_SOFT = {
    "numpy": "-(targets * log_softmax(logits)).sum(axis=-1).mean()",
    "torch": "-(targets * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean()",
    "megengine": "-F.mean(F.sum(targets * F.logsoftmax(logits, axis=-1), axis=-1))",
    "mindspore": "(targets * (ops.logsumexp(logits, -1, True) - logits)).sum(axis=-1).mean()",
    "oneflow": "(targets * (flow.logsumexp(logits, dim=-1, keepdim=True) - logits)).sum(dim=-1).mean()",
}
_SUMMED = {name: text.replace(".mean()", ".sum()").replace("F.mean", "F.sum") for name, text in _SOFT.items()}
_AVERAGED = {name: text.replace(".sum(", ".mean(").replace("F.sum", "F.mean") for name, text in _SOFT.items()}
_SMOOTHED = {name: text.replace("targets *", "(0.9 * targets + 0.01) *") for name, text in _SOFT.items()}
_WITHOUT_SUM = {
    "numpy": _SOFT["numpy"].replace("log_softmax(logits)", "logits"),
    "torch": _SOFT["torch"].replace("F.log_softmax(logits, dim=-1)", "logits"),
    "megengine": _SOFT["megengine"].replace("F.logsoftmax(logits, axis=-1)", "logits"),
    "mindspore": _SOFT["mindspore"].replace("ops.logsumexp(logits, -1, True) - logits", "-logits"),
    "oneflow": _SOFT["oneflow"].replace("flow.logsumexp(logits, dim=-1, keepdim=True) - logits", "-logits"),
}
_OVER_BATCH = {
    "numpy": _SOFT["numpy"].replace("log_softmax(logits)", "log_softmax(logits.T).T"),
    "torch": _SOFT["torch"].replace("(logits, dim=-1)", "(logits, dim=0)"),
    "megengine": _SOFT["megengine"].replace("(logits, axis=-1)", "(logits, axis=0)"),
    "mindspore": _SOFT["mindspore"].replace("(logits, -1,", "(logits, 0,"),
    "oneflow": _SOFT["oneflow"].replace("(logits, dim=-1,", "(logits, dim=0,"),
}


def _written(texts: dict[str, str]) -> Edits:
    """The loss of soft targets, written in another way."""
    pairs = {name: (_SOFT[name], text) for name, text in texts.items()}
    composed = {name: pairs.pop(name) for name in ("mindspore", "oneflow")}
    return {**in_each("model", **pairs), **in_each("workarounds", **composed)}


_ROUNDED = dict.fromkeys(("numpy", "torch", "mindspore", "oneflow"), "targets.argmax(-1)")
_ROUNDED["megengine"] = "F.argmax(targets, axis=-1)"

SOFT_TARGETS = (
    _of_loss(
        "soft loss summed over the batch",
        about="It is as many times larger as there are images.",
        edits=_written(_SUMMED),
    ),
    _of_loss(
        "soft loss averaged over the classes",
        about="The mean was taken over both axes.",
        edits=_written(_AVERAGED),
    ),
    _of_loss(
        "labels smoothed twice",
        about="Mixup smooths the labels, and the loss smoothed them again.",
        edits=_written(_SMOOTHED),
    ),
    _of_loss(
        "logarithm of softmax without its sum",
        about="The logits themselves were taken for the logarithms of probabilities.",
        edits=_written(_WITHOUT_SUM),
    ),
    _of_loss(
        "softmax over the batch",
        about="A framework's default axis was left.",
        edits=_written(_OVER_BATCH),
    ),
    _of_loss(
        "soft targets rounded to labels",
        about="A cross entropy of labels was given the largest share's.",
        edits=in_each(
            "model",
            **{
                name: ("if targets.ndim == 2:", f"targets = {text}\n        if targets.ndim == 2:")
                for name, text in _ROUNDED.items()
            },
        ),
    ),
)  # fmt: skip

FAULTS = (*DROP_PATH, *SOFT_TARGETS)
