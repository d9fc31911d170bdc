"""Faults of the loss: targets, their normalisation, and what is averaged."""

from __future__ import annotations

from functools import partial

from .planting import Fault, in_all, in_each

_fault = partial(Fault, level="loss")

# The root as the sources have it, and another in its place.
_ROOT = dict.fromkeys(("numpy", "torch", "oneflow"), "(var + 1e-6) ** 0.5")
_ROOT["megengine"] = "F.sqrt(var + 1e-6)"
_ROOT["mindspore"] = "ops.sqrt(var + constant(1e-6, var))"
_OUTSIDE = dict.fromkeys(_ROOT, "(var**0.5 + 1e-6)") | {
    "megengine": "(F.sqrt(var) + 1e-6)",
    "mindspore": "(ops.sqrt(var) + constant(1e-6, var))",
}

FAULTS = (
    _fault(
        "pixels of a patch channel first",
        located_at="target",
        about="The target's patches are in the order channel, row, column.",
        edits=in_all("model", ("(0, 2, 4, 3, 5, 1)", "(0, 2, 4, 1, 3, 5)")),
    ),
    _fault(
        "biased variance in the loss",
        located_at="norm_pix.target",
        about="NumPy's and MindSpore's variance divides by n, PyTorch's by n - 1.",
        edits=in_each(
            "model",
            numpy=("unbiased_variance(target)", "target.var(axis=-1, keepdims=True)"),
            torch=("var(dim=-1, ", "var(dim=-1, unbiased=False, "),
            megengine=("(target.shape[-1] - 1)", "target.shape[-1]"),
            mindspore=("unbiased_variance(target)", "target.var(axis=-1, keepdims=True)"),
            oneflow=("var(dim=-1, ", "var(dim=-1, unbiased=False, "),
        ),
    ),
    _fault(
        "target eps outside the root",
        located_at="norm_pix.target",
        about="1e-6 is added to the standard deviation, not to the variance.",
        edits=in_each("model", **{name: (_ROOT[name], _OUTSIDE[name]) for name in _ROOT}),
    ),
    _fault(
        "target eps ten times larger",
        located_at="norm_pix.target",
        about="1e-5 is added to a patch's variance for 1e-6.",
        size=9e-6,
        edits=in_each("model", **{name: (root, root.replace("1e-6", "1e-5")) for name, root in _ROOT.items()}),
    ),
    _fault(
        "target not normalised",
        located_at="norm_pix.target",
        about="norm_pix_loss is accepted and ignored.",
        edits=in_all("model", ("if self.norm_pix_loss:", "if False:")),
    ),
    _fault(
        "loss over all patches",
        located_at="loss",
        about="The removed patches' loss is divided by the number of all patches.",
        edits=in_all("model", ('config.loss_over == "removed"', 'config.loss_over == ""')),
        needs={"loss_over": "removed"},
    ),
    _fault(
        "loss over removed patches",
        located_at="loss",
        about="FlyEgle divides by all patches; the port divides by the removed ones.",
        edits=in_all("model", ('config.loss_over == "removed"', 'config.loss_over == "all"')),
        needs={"loss_over": "all"},
    ),
    _fault(
        "loss of the kept patches",
        located_at="loss",
        about="The mask was taken the other way round.",
        edits=in_all("model", ("loss * mask", "loss * (1 - mask)")),
    ),
)
