"""Faults of the forward pass: norms, attention, activations, positions, masking, the decoder."""

from __future__ import annotations

from functools import partial

from .planting import Fault, in_all, in_each

_fault = partial(Fault, level="forward")
_of_block = partial(_fault, located_at="blocks.0.attn.softmax")

_EPS = 9e-6  # from 1e-6 to 1e-5
# Where a norm of its own eps is made: the second block's norm1, which is the first of the blocks to be built with it.
_ONE_BLOCK = (
    "[Block(dim, num_heads, hidden_dim, norm_eps) for _ in range(depth)]",
    "[Block(dim, num_heads, hidden_dim, 10 * norm_eps if i == 1 else norm_eps) for i in range(depth)]",
)
NORMS = (
    _fault(
        "layer norm eps ten times larger in one block",
        located_at="blocks.1.norm1",
        about="One of the blocks got 1e-5 for 1e-6.",
        size=_EPS,
        edits=in_all("blocks", _ONE_BLOCK),
    ),
    _fault(
        "layer norm eps of PyTorch",
        located_at="blocks.0.norm1",
        about="The default of PyTorch, MegEngine and OneFlow, 1e-5, was left in every block.",
        size=_EPS,
        edits=in_all("blocks", ("eps=norm_eps", "eps=1e-5")),
        needs={"norm_eps": 1e-6, "block_norm_eps": None},
    ),
    _fault(
        "layer norm eps of MindSpore",
        located_at="blocks.0.norm1",
        about="The default of MindSpore, 1e-7, was left in every block.",
        size=9e-7,
        edits=in_all("blocks", ("eps=norm_eps", "eps=1e-7")),
        needs={"norm_eps": 1e-6, "block_norm_eps": None},
    ),
    _fault(
        "last norm eps ten times larger",
        located_at="latent",
        about="The encoder's last norm alone got 1e-5 for 1e-6.",
        size=_EPS,
        edits=in_all("model", ("LayerNorm(D, eps=config.norm_eps)", "LayerNorm(D, eps=10 * config.norm_eps)")),
        needs={"norm_eps": 1e-6},
    ),
    _fault(
        "decoder norm eps ten times larger",
        located_at="decoder_norm",
        about="The decoder's last norm alone got 1e-5 for 1e-6.",
        size=_EPS,
        edits=in_all("model", ("LayerNorm(E, eps=config.norm_eps)", "LayerNorm(E, eps=10 * config.norm_eps)")),
    ),
    _fault(
        "decoder blocks eps ten times larger",
        located_at="decoder_blocks.0.norm1",
        about="The decoder was built with another eps than the encoder.",
        size=_EPS,
        edits=in_all(
            "model", ("config.mlp_dim(E), config.eps_of_blocks", "config.mlp_dim(E), 10 * config.eps_of_blocks")
        ),
    ),
    _fault(
        "block eps that of the other norms",
        located_at="blocks.0.norm1",
        about="LiBai's blocks have 1e-5, its other norms 1e-6; the port has 1e-6 everywhere.",
        size=_EPS,
        edits=in_all("model", ("config.eps_of_blocks", "config.norm_eps")),
        needs={"norm_eps": 1e-6, "block_norm_eps": 1e-5},
    ),
    _fault(
        "patch norm eps that of the other norms",
        located_at="patch_norm",
        about="FlyEgle's norm before the convolution head has 1e-12, its other norms 1e-5.",
        size=1e-5,
        edits=in_all("model", ("1e-12", "config.norm_eps")),
    ),
    _fault(
        "head norm eps ten times larger",
        located_at="head_norm",
        about="PyTorch's default of a batch norm, 1e-5, was left in the linear probe.",
        size=_EPS,
        edits=in_all("model", ("HeadNorm(D, eps=1e-6)", "HeadNorm(D, eps=1e-5)")),
    ),
    _fault(
        "head norm variance as standard deviation",
        located_at="head_norm",
        about="The running variance was taken for a standard deviation.",
        edits=in_each(
            "blocks",
            numpy=("np.sqrt(var + self.eps)", "var"),
            torch=("torch.sqrt(var + self.eps)", "var"),
            megengine=("F.sqrt(var + self.eps)", "var"),
            mindspore=("ops.sqrt(var + constant(self.eps, x))", "var"),
            oneflow=("flow.sqrt(var + self.eps)", "var"),
        ),
    ),
    _fault(
        "decoder norm skipped",
        located_at="decoder_norm",
        about="The norm behind the decoder's blocks was forgotten.",
        edits=in_all("model", ("self.decoder_norm(x)", "x + 0 * self.decoder_norm(x)")),
    ),
)

_GELU = {
    "numpy": "gelu(x)",
    "torch": "F.gelu(x)",
    "megengine": "F.gelu(x)",
    "mindspore": 'ops.gelu(x, approximate="none")',
    "oneflow": "gelu(x)",
}
_TANH = "0.5 * x * (1 + {}.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))"
_SIGMOID = {"torch": "torch", "megengine": "F", "mindspore": "ops", "oneflow": "flow"}


def _activation(**new: str) -> dict[str, tuple[str, str]]:
    return {framework: (f"= {_GELU[framework]}", f"= {text}") for framework, text in new.items()}


ACTIVATIONS = (
    _fault(
        "tanh gelu",
        located_at="blocks.0.mlp.gelu",
        about="The tanh approximation was taken for the exact GELU.",
        edits=in_each(
            "blocks",
            **_activation(
                numpy=_TANH.format("np"),
                torch='F.gelu(x, approximate="tanh")',
                megengine=_TANH.format("F"),
                mindspore='ops.gelu(x, approximate="tanh")',
                oneflow=_TANH.format("flow"),
            ),
        ),
    ),
    _fault(
        "quick gelu",
        located_at="blocks.0.mlp.gelu",
        about="x sigmoid(1.702 x), as CLIP has it, was taken for GELU.",
        edits=in_each(
            "blocks",
            **_activation(
                numpy="x / (1 + np.exp(-1.702 * x))",
                **{name: f"x * {module}.sigmoid(1.702 * x)" for name, module in _SIGMOID.items()},
            ),
        ),
    ),
    _fault(
        "gelu missing",
        located_at="blocks.0.mlp.gelu",
        about="The two linear layers of an MLP follow each other.",
        edits=in_each("blocks", **_activation(**dict.fromkeys(_GELU, "x"))),
    ),
)

_MIXED = {
    "numpy": "matmul(attn, v).swapaxes(1, 2)",
    "torch": "(attn @ v).transpose(1, 2)",
    "megengine": "(attn @ v).transpose(0, 2, 1, 3)",
    "mindspore": "(attn @ v).swapaxes(1, 2)",
    "oneflow": "(attn @ v).transpose(1, 2)",
}
_SCALE = "(dim // num_heads) ** -0.5"
ATTENTION = (
    _of_block(
        "attention scale off by 1e-5",
        about="The scale was rounded on its way through a config file.",
        size=1e-5,
        edits=in_all("blocks", (_SCALE, f"{_SCALE} * (1 + 1e-5)")),
    ),
    _of_block(
        "attention scale of the whole width",
        about="1/sqrt(D) for 1/sqrt(D/H).",
        edits=in_all("blocks", (_SCALE, "dim**-0.5")),
    ),
    _of_block("attention scale missing", about="Scores are not scaled.", edits=in_all("blocks", (_SCALE, "1.0"))),
    _of_block(
        "qkv interleaved by heads",
        about="The fused matrix was read as (head, 3, d), as Megatron and LiBai order it, not as (3, head, d).",
        edits=in_all(
            "blocks",
            ("N, T, 3, self.num_heads, D // self.num_heads", "N, T, self.num_heads, 3, D // self.num_heads"),
            ("(2, 0, 3, 1, 4)", "(3, 0, 2, 1, 4)"),
        ),
    ),
    _of_block(
        "q and v swapped",
        about="The fused matrix was read in the order v, k, q.",
        edits=in_all("blocks", ("q, k, v = x", "v, k, q = x")),
    ),
    _of_block(
        "softmax over the queries",
        about="The softmax runs over the wrong axis.",
        edits=in_each(
            "blocks",
            numpy=("= softmax(attn)", "= softmax(attn.swapaxes(-2, -1)).swapaxes(-2, -1)"),
            torch=("softmax(dim=-1)", "softmax(dim=-2)"),
            megengine=("F.softmax(attn, axis=-1)", "F.softmax(attn, axis=-2)"),
            mindspore=("ops.softmax(attn, axis=-1)", "ops.softmax(attn, axis=-2)"),
            oneflow=("softmax(dim=-1)", "softmax(dim=-2)"),
        ),
    ),
    _fault(
        "heads not put side by side",
        located_at="blocks.0.attn.proj",
        about="The heads' outputs are reshaped without bringing head and token into order.",
        edits=in_each("blocks", **{name: (text, text[: text.rindex(".")]) for name, text in _MIXED.items()}),
    ),
    _fault(
        "qkv bias dropped",
        located_at="blocks.0.attn.qkv",
        about="The fused layer was built without a bias.",
        edits=in_all("blocks", ("self.qkv(x)", "self.qkv(x) - self.qkv.bias")),
    ),
    _fault(
        "residual from the normalised input",
        located_at="blocks.0.residual",
        about="A post-norm block was written where the model has pre-norm ones.",
        edits=in_all("blocks", ('out[f"{name}.residual"] = x + y', 'out[f"{name}.residual"] = self.norm1(x) + y')),
    ),
    _fault(
        "residual missing",
        located_at="blocks.0",
        about="The MLP's output is not added to its input.",
        edits=in_all("blocks", ("out[name] = x + y", "out[name] = y")),
    ),
)

FAULTS = (*NORMS, *ACTIVATIONS, *ATTENTION)
