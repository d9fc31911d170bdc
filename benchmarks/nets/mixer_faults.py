"""What a porter gets wrong in the MLP-mixer, and which tensor has to be named for it."""

from __future__ import annotations

from functools import partial

from .planting import Fault, by_framework, everywhere, exchanged, in_bfloat16, stopped

_GELU = {"torch": "gelu(y)", "megengine": "F.gelu(y)", "mindspore": "ops.gelu(y)", "oneflow": "F.gelu(y)"}
_MAX = {
    "torch": "x.amax(dim=1)", "megengine": "x.max(axis=1)", "mindspore": "x.max(axis=1)",
    "oneflow": "flow.max(x, dim=1)[0]",
}  # fmt: skip
_MEAN = {
    "torch": "x.mean(dim=1)",
    "megengine": "x.mean(axis=1)",
    "mindspore": "x.mean(axis=1)",
    "oneflow": "x.mean(dim=1)",
}
_SWAP = {
    "torch": "linear(y.transpose(1, 2), t", "megengine": "linear(y.transpose(0, 2, 1), t",
    "mindspore": "linear(y.swapaxes(1, 2), t", "oneflow": "linear(y.transpose(1, 2), t",
}  # fmt: skip
_FIRST_NORM = 'layer_norm(x, t, f"{b}.norm1")'
_BIAS = 't[f"{b}.norm1.bias"]'
_mixer = partial(Fault, net="mixer")
FAULTS = (
    _mixer(
        name="weights in bfloat16",
        tap="embed",
        about="They went through bfloat16, which keeps 8 bits.",
        inputs=in_bfloat16,
    ),
    _mixer(
        name="two blocks swapped",
        tap="blocks.0.norm1",
        about="The blocks' weights were loaded in the wrong order, as where names were sorted as text.",
        inputs=exchanged("blocks.0.", "blocks.1."),
    ),
    _mixer(
        name="unbiased variance",
        tap="blocks.0.norm1",
        about="The variance in the layer norms is divided by n - 1.",
        edits=everywhere(
            (_FIRST_NORM, f"({_FIRST_NORM} - {_BIAS}) * (1 - 1 / x.shape[-1]) ** 0.5 + {_BIAS}"),
        ),
    ),
    _mixer(
        name="reshaped where it has to be transposed",
        tap="blocks.0.tokens.fc1",
        about="[N, T, D] is reshaped to [N, D, T].",
        edits={
            name: ((text, "linear(y.reshape(y.shape[0], y.shape[2], y.shape[1]), t"),) for name, text in _SWAP.items()
        },
    ),
    _mixer(
        name="tanh gelu",
        tap="blocks.0.tokens.gelu",
        about="The tanh approximation was taken for the exact GELU.",
        edits=by_framework(
            _GELU,
            torch='F.gelu(y, approximate="tanh")',
            megengine="0.5 * y * (1 + F.tanh(0.7978845608028654 * (y + 0.044715 * y**3)))",
            mindspore='ops.gelu(y, approximate="tanh")',
            oneflow='F.gelu(y, approximate="tanh")',
        ),
    ),
    _mixer(
        name="quick gelu",
        tap="blocks.0.tokens.gelu",
        about="x sigmoid(1.702 x), as CLIP has it, was taken for GELU.",
        edits=by_framework(
            _GELU,
            torch="y * torch.sigmoid(1.702 * y)",
            megengine="y * F.sigmoid(1.702 * y)",
            mindspore="y * ops.sigmoid(1.702 * y)",
            oneflow="y * flow.sigmoid(1.702 * y)",
        ),
    ),
    _mixer(
        name="residual missing",
        tap="blocks.0.residual",
        about="What mixes the tokens is not added to its input.",
        edits=everywhere(('residual"] = x + y', 'residual"] = y')),
    ),
    _mixer(
        name="small bias of a linear layer dropped",
        tap="blocks.0.channels.fc2",
        about="It was built without a bias; the model's is about 0.003.",
        edits=everywhere(
            (
                'linear(y, t, f"{b}.channels.fc2")',
                'linear(y, t, f"{b}.channels.fc2") - t[f"{b}.channels.fc2.bias"]',
            )
        ),
    ),
    _mixer(
        name="last norm's scale and shift swapped",
        tap="norm",
        about="gamma was loaded as beta, and beta as gamma.",
        inputs=lambda inputs: inputs | {"norm.weight": inputs["norm.bias"], "norm.bias": inputs["norm.weight"]},
    ),
    _mixer(
        name="maximum of the tokens",
        tap="pooled",
        about="The maximum was taken for the mean.",
        edits=by_framework(_MEAN, **_MAX),
    ),
    _mixer(
        name="first token for the mean",
        tap="pooled",
        about="The first token was taken for a class token.",
        edits=by_framework(_MEAN, **dict.fromkeys(_MEAN, "x[:, 0]")),
    ),
    _mixer(
        name="gradient stopped at a skip connection",
        tap="blocks.1.tokens.fc2.weight.grad",  # the bias behind it has no gradient: a norm takes it away
        about="What goes past the branch is detached.",
        edits=stopped("x = out[b] = {} + y", "x"),
    ),
)
