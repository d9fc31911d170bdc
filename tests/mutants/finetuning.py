"""Faults of fine-tuning's optimizer, of the linear probe's and its batch norm, and of the average of weights."""

from __future__ import annotations

from functools import partial

from .planting import Edits, Fault, Pair, in_all, in_each

_fault = partial(Fault, level="optimizer", needs={"head_norm": True})
_OTHERS = ("numpy", "torch", "megengine", "oneflow")


def _blocks(mindspore: Pair, others: Pair) -> Edits:
    return in_each("blocks", mindspore=mindspore, **dict.fromkeys(_OTHERS, others))


_AVERAGE = "            if self.average is not None:\n                self.average.update()\n"
_UPDATE = "            self.optimizer.update(gradients,"

RATES = (
    _fault(
        "layer decay a layer off",
        located_at="optimizer/rates",
        about="Layers were counted to depth, and not to depth + 1: the last block has the head's rate.",
        edits=in_all("backends.optimization", ("last = config.depth + 1", "last = config.depth")),
    ),
    _fault(
        "layer decay upside down",
        located_at="optimizer/rates",
        about="The patches have the highest rate, the head the lowest.",
        edits=in_all(
            "backends.optimization", ("decay ** (last - _layer(p.name, last))", "decay ** _layer(p.name, last)")
        ),
    ),
    _fault(
        "positions decay in fine-tuning",
        located_at="optimizer/decay",
        about="The position table, which upstream spares by name, decays.",
        edits=in_all("backends.optimization", ('{"pos_embed", "cls_token"}', '{"cls_token"}')),
    ),
    _fault(
        "class token decays in fine-tuning",
        located_at="optimizer/decay",
        about="Pre-training's rule was left, by which a tensor of three axes decays.",
        edits=in_all("backends.optimization", ('{"pos_embed", "cls_token"}', '{"pos_embed"}')),
    ),
)

LARS = (
    _fault(
        "lars ratio without weight decay",
        located_at="optimizer/lars/first/m/head.weight",
        about="The trust ratio is of the gradient's norm, not of that of gradient and decay together.",
        edits=in_all("optimizer", ("(direction * direction).sum()", "(gradients[i] * gradients[i]).sum()")),
    ),
    _fault(
        "lars of vectors",
        located_at="optimizer/lars/first/m/head.bias",
        about="Biases are scaled and decay, too; upstream leaves them plain momentum.",
        edits=in_all("backends.optimization", ("lars and len(param.shape) > 1", "lars")),
    ),
    _fault(
        "lars without momentum",
        located_at="optimizer/lars/second/m/head.weight",
        about="Every step begins anew.",
        edits=in_all("optimizer", ("momentum * self.m[i] + direction", "0 * self.m[i] + direction")),
    ),
)

PROBE = (
    _fault(
        "probe with a trained encoder",
        located_at="optimizer/probe/decay",
        about="Nothing but the head was to be trained.",
        edits=in_all("backends.spec", ("    if config.train_encoder:", "    if True:")),
    ),
    _fault(
        "batch norm by running statistics in training",
        located_at="optimizer/probe/loss",
        about="The model was put into evaluation mode for training.",
        edits={
            **in_all("backends.runtime", ("model.forward_head(x, out, statistics)", "model.forward_head(x, out)")),
            **in_each("training", mindspore=("model.forward_head(x, {}, (mean, var))", "model.forward_head(x, {})")),
        },
    ),
    _fault(
        "biased running variance",
        located_at="optimizer/probe/head_norm.var",
        about="The running variance follows the one that the batch is normalised by: n in place of n - 1.",
        edits=_blocks(("var * constant(count / (count - 1), self.var)", "var"), ("var * (count / (count - 1))", "var")),
    ),
    _fault(
        "batch norm momentum exchanged",
        located_at="optimizer/probe/head_norm.mean",
        about="A momentum of 0.1 is what is taken of the batch in PyTorch, and what is kept in others.",
        edits=_blocks(
            (
                "constant(0.9, self.mean), constant(0.1, self.mean)",
                "constant(0.1, self.mean), constant(0.9, self.mean)",
            ),
            ("old, new = 0.9, 0.1", "old, new = 0.1, 0.9"),
        ),
    ),
)

AVERAGE = (
    _fault(
        "average of the step before",
        located_at="optimizer/ema/head_norm.mean",
        about="The weights are taken in before they are updated.",
        edits=in_all(
            "backends.training",
            (_UPDATE, _AVERAGE + _UPDATE),
            (f"{_AVERAGE}        return norm", "        return norm"),
        ),
    ),
    _fault(
        "average decay exchanged",
        located_at="optimizer/ema/head_norm.mean",
        about="decay is what is taken of the weights, not what is kept.",
        edits=in_all("optimizer", ("rest = 1 - decay", "decay, rest = 1 - decay, decay")),
    ),
    _fault(
        "average from zero",
        located_at="optimizer/ema/head_norm.var",
        about="The average began at 0, without a correction, and not with the weights.",
        edits=in_all("backends.averaging", ("self.vector = self._own()", "self.vector = 0 * self._own()")),
    ),
    _fault(
        "average warms up a step early",
        located_at="optimizer/ema/decay",
        about="The first update is counted, which only copies the weights.",
        edits=in_all("backends.averaging", ("(update - 1)", "update")),
    ),
)

FAULTS = (*RATES, *LARS, *PROBE, *AVERAGE)
