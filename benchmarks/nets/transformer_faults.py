"""What a porter gets wrong in the transformers, and which tensor has to be named for it."""

from __future__ import annotations

from functools import partial

import numpy as np

from .planting import PORTS, STOP, TF32, Fault, by_framework, changed, everywhere

_qkv = partial(Fault, net="transformer", tap="blocks.0.attn.softmax")
_transformer = partial(Fault, net="transformer")
_wide = partial(Fault, net="wide")
_HEADS = "reshape(N, T, 3, HEADS, D // HEADS)"
_SCORES = dict.fromkeys(PORTS, "y = q @ k") | {"torch": 'y = torch.einsum("nqhd,nkhd'}
_AXES = {"torch": "dim", "megengine": "axis", "mindspore": "axis", "oneflow": "dim"}
_MIX = dict.fromkeys(PORTS, "(y @ v)") | {"torch": '->nqhd", y, v)'}
_DROPOUT = {
    "torch": "F.dropout(y, 0.1)", "megengine": "F.nn.dropout(y, 0.1)", "mindspore": "ops.dropout(y, 0.1)",
    "oneflow": "F.dropout(y, 0.1)",
}  # fmt: skip
_MIXED = {
    "torch": 'torch.einsum("nhqk,nkhd->nqhd", y, v)', "megengine": "(y @ v).transpose(0, 2, 1, 3)",
    "mindspore": "(y @ v).swapaxes(1, 2)", "oneflow": "(y @ v).transpose(1, 2)",
}  # fmt: skip
_OUT = "x = out[b] = x + y"
FAULTS = (
    _transformer(
        name="positions shifted by one",
        tap="embed",
        about="The table's first row, a class token's, was given to the first word.",
        inputs=changed("positions", lambda positions: np.roll(positions, 1, axis=0)),
    ),
    _transformer(
        name="layer norm eps of PyTorch",
        tap="blocks.0.norm1",
        about="The default of most frameworks, 1e-5, was left for 1e-6.",
        edits=everywhere(("1e-6", "1e-5")),
    ),
    _transformer(
        name="layer norm eps of MindSpore",
        tap="blocks.0.norm1",
        about="MindSpore's default, 1e-7, was left for 1e-6.",
        edits=everywhere(("1e-6", "1e-7")),
    ),
    _qkv(
        name="q and k swapped",
        about="The fused matrix was read in the order k, q, v.",
        edits=everywhere(("q, k, v =", "k, q, v =")),
    ),
    _qkv(
        name="heads in the order (d, h)",
        about="A row of the fused matrix was read as (D/H, H), not as (H, D/H).",
        edits=by_framework(
            {"torch": f"{_HEADS}.unbind", "megengine": f"{_HEADS}.transpose(2, 0, 3, 1, 4)"}
            | dict.fromkeys(("mindspore", "oneflow"), f"{_HEADS}.permute(2, 0, 3, 1, 4)"),
            torch="reshape(N, T, 3, D // HEADS, HEADS).transpose(3, 4).unbind",
            megengine="reshape(N, T, 3, D // HEADS, HEADS).transpose(2, 0, 4, 1, 3)",
            mindspore="reshape(N, T, 3, D // HEADS, HEADS).permute(2, 0, 4, 1, 3)",
            oneflow="reshape(N, T, 3, D // HEADS, HEADS).permute(2, 0, 4, 1, 3)",
        ),
    ),
    _qkv(
        name="attention scale 1/d",
        about="Scores are divided by the width of a head, not by its root.",
        edits=everywhere(("** -0.5", "** -1.0")),
    ),
    _qkv(
        name="attention scale off by 1e-4",
        about="The scale was rounded on its way through a config file.",
        edits=everywhere(("** -0.5", "** -0.5 * (1 + 1e-4)")),
    ),
    _qkv(
        name="softmax over the queries",
        about="The softmax runs over the wrong axis.",
        edits={name: ((f"softmax(y, {axis}=-1)", f"softmax(y, {axis}=-2)"),) for name, axis in _AXES.items()},
    ),
    _qkv(
        name="TF32 in the attention scores",
        about="TF32 was switched off for linear layers, and not for batched products.",
        edits={name: ((text, f"q = {TF32.format('q')}\n        {text}"),) for name, text in _SCORES.items()},
    ),
    _transformer(
        name="heads not put side by side",
        tap="blocks.0.attn.heads",
        about="The heads' outputs are reshaped without bringing head and token into order.",
        edits=by_framework(
            _MIXED,
            torch='torch.einsum("nhqk,nkhd->nhqd", y, v)',
            **dict.fromkeys(("megengine", "mindspore", "oneflow"), "(y @ v)"),
        ),
    ),
    _transformer(
        name="square matrix transposed",
        tap="blocks.0.attn.proj",
        about="A matrix [D, D] was transposed on the way, which no shape gives away.",
        inputs=changed("blocks.0.attn.proj.weight", np.transpose),
    ),
    _transformer(
        name="residual from the normalised input",
        tap="blocks.0.residual",
        about="A post-norm block was written where the model has pre-norm ones.",
        edits=everywhere(('y = out[f"{b}.norm1"] =', 'x = y = out[f"{b}.norm1"] =')),
    ),
    _transformer(
        name="dropout left on",
        tap="",
        about="The port was not put into evaluation mode.",
        edits={name: ((_OUT, _OUT.replace("+ y", f"+ {text}")),) for name, text in _DROPOUT.items()},
        incomparable="gives other numbers at every call",
    ),
    _transformer(
        name="last norm skipped",
        tap="norm",
        about="The norm behind the blocks was forgotten.",
        edits=everywhere(('layer_norm(x, t, "norm")', 'x + 0 * layer_norm(x, t, "norm")')),
    ),
    _transformer(
        name="softmax without a gradient",
        tap="blocks.1.attn.qkv.bias.grad",
        about="The attention weights were detached, as where they are computed without a gradient to be shown.",
        edits={name: ((text, text.replace("y", STOP[name].format("y"))),) for name, text in _MIX.items()},
    ),
    _wide(
        name="layer norm eps of PyTorch, wide",
        tap="blocks.0.norm1",
        about="The same in the wide net.",
        edits=everywhere(("1e-6", "1e-5")),
    ),
    _wide(
        name="attention scale off by 1e-4, wide",
        tap="blocks.0.attn.softmax",
        about="The same in the wide net.",
        edits=everywhere(("** -0.5", "** -0.5 * (1 + 1e-4)")),
    ),
    _wide(
        name="TF32 in a linear layer of 2048 terms",
        tap="blocks.0.mlp.fc2",
        about="What it multiplies is rounded to 11 bits.",
        edits=everywhere(('linear(y, t, f"{b}.mlp.fc2")', f'linear({TF32.format("y")}, t, f"{{b}}.mlp.fc2")')),
    ),
    _wide(
        name="small bias of 2048 terms dropped",
        tap="blocks.0.mlp.fc2",
        about="It was built without a bias; the model's is about 0.003.",
        edits=everywhere(
            (
                'linear(y, t, f"{b}.mlp.fc2")',
                'linear(y, t, f"{b}.mlp.fc2") - t[f"{b}.mlp.fc2.bias"]',
            )
        ),
    ),
)
