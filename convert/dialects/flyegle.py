"""FlyEgle/MAE-pytorch: its own head, no norm behind the decoder, and no mask token or position tables in the file.

The mask token is the output of its convolution for a gray image, read in the wrong order of memory: entry j is the channel
j // L. The tables are the fixed 1-D ones. Both are derived here, in the arithmetic that gives them in float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config, MAEConfig
from ...backends.initial import sinusoid_table
from ...backends.naming import Spelling
from ...backends.spec import Shape
from ..tensors import CheckpointProblem, Tensor, cast, of_array
from .dialect import EXACT, Dialect, Shapes, Sign, Tensors

_GRAY = "Decoder.unmask_embed.proj"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# In its files, but without any influence on its output.
_UNUSED = r"Decoder\.cls_token|Decoder\.patch_embed\.proj\.(weight|bias)|(Decoder\.)?norm\.(weight|bias)"
_MOST_PATCHES = 1 << 16  # a lying file can ask for as many
_COMPUTES = {"norm_eps": 1e-5, "block_norm_eps": 1e-5, "positions": "1d", **EXACT}

_AUTOENCODER = Spelling(
    names={
        "cls_token": "Encoder.cls_token",
        "patch_embed.proj": "Encoder.patch_embed.proj",
        "norm": "Encoder.norm",
        "decoder_embed": "proj",
        "decoder_pred": "restruction",
        "patch_norm.weight": "patch_norm.gamma",
        "patch_norm.bias": "patch_norm.beta",
    },
    stacks={"blocks": "Encoder.blocks", "decoder_blocks": "Decoder.blocks"},
)
_CLASSIFIER = Spelling(
    names={
        "cls_token": "model.cls_token",
        "patch_embed.proj": "model.patch_embed.proj",
        "norm": "model.norm",
        "head": "model.class_head",
    },
    stacks={"blocks": "model.blocks"},
)


def derive(tensors: Tensors, shapes: Shapes) -> dict[str, Tensor]:
    """The mask token and the tables, by spec name, from a file's tensors and the grid that the model is to have.

    shapes: of the spec's tensors, "pos_embed" among them. Raises CheckpointProblem where the gray convolution is missing.
    """
    if shapes.get("pos_embed", (1, 1, 1))[1] > _MOST_PATCHES:
        raise CheckpointProblem(
            f"A model of {shapes['pos_embed'][1] - 1:,} patches is larger than FlyEgle's can be; see -m.",
            code="too-large",
        )
    made = {name: _table(shapes[name]) for name in ("pos_embed", "decoder_pos_embed") if name in shapes}
    if "mask_token" in shapes:
        absent = [f"{_GRAY}.{leaf}" for leaf in ("weight", "bias") if f"{_GRAY}.{leaf}" not in tensors]
        if absent:
            raise CheckpointProblem(
                f"Without {' and '.join(absent)} there is no mask token; save the whole state dict.",
                code="does-not-fit",
            )
        weight, bias = (cast(tensors[f"{_GRAY}.{leaf}"], "float32") for leaf in ("weight", "bias"))
        patches = shapes["decoder_pos_embed"][1] - 1
        made["mask_token"] = Tensor(
            shapes["mask_token"], "float32", lambda: _mask_token(weight.load(), bias.load(), patches)[None, None]
        )
    return made


def _mask_token(weight: NDArray[Any], bias: NDArray[Any], patches: int) -> NDArray[np.float32]:
    """weight [E, C, p, p] and bias [E] of the gray convolution to the mask token [E]."""
    gray = np.array([(127 / 255 - mean) / std for mean, std in zip(_MEAN, _STD)])
    sums = weight.astype(np.float64).sum(axis=(2, 3))
    channels = sums @ gray + bias.astype(np.float64)
    token: NDArray[np.float32] = channels.astype(np.float32)[np.arange(len(bias)) // patches]
    return token


def _table(shape: Shape) -> Tensor:
    return Tensor(shape, "float32", lambda: sinusoid_table(shape[2], shape[1]))


def supply(config: Config, tensors: Tensors) -> dict[str, Tensor]:
    """The tensors of a file beside the spelled ones, so that the dialect's program computes the same.

    Raises CheckpointProblem where it could not: tables that are not the fixed ones, or a mask token with too many values.
    """
    for name in ("pos_embed", "decoder_pos_embed", "mask_token"):
        if name in tensors and tensors[name].dtype != "float32":
            raise CheckpointProblem(
                f"FlyEgle's program makes {name} itself, in float32, and this one is {tensors[name].dtype}; leave out --dtype, "
                "or say --dtype float32.",
                code="not-expressible",
            )
    for name in ("pos_embed", "decoder_pos_embed"):
        if name in tensors and not np.array_equal(tensors[name].load(), _table(tensors[name].shape).load()):
            raise CheckpointProblem(
                f"FlyEgle computes its position tables itself, and {name} is another one; its program cannot be given it.",
                code="not-expressible",
            )
    if not isinstance(config, MAEConfig) or "mask_token" not in tensors:
        return {}
    if config.in_chans != 3:
        raise CheckpointProblem(
            f"FlyEgle's mask token is made from 3 channels; this model has {config.in_chans}.", code="not-expressible"
        )
    E, L, p = config.decoder_embed_dim, config.num_patches, config.patch_size
    token = tensors["mask_token"].load().reshape(-1)
    starts = token[::L]
    if not np.array_equal(np.repeat(starts, L)[:E], token):
        raise CheckpointProblem(
            f"FlyEgle's mask token has one value for every {L} entries ({math.ceil(E / L)} in all), this one has more: it "
            "was trained as a parameter of its own. Convert to another dialect, or with --encoder-only.",
            code="not-expressible",
        )
    # With no weights the gray convolution gives its bias.
    bias = np.zeros(E, np.float32)
    bias[: len(starts)] = starts
    patch: Shape = (E, 3, p, p)
    D = config.embed_dim
    zeros: dict[str, Shape] = {f"{_GRAY}.weight": patch, "Decoder.cls_token": (1, 1, E)}
    zeros |= {"Decoder.patch_embed.proj.weight": patch, "Decoder.patch_embed.proj.bias": (E,)}
    zeros |= {"Decoder.norm.bias": (E,), "norm.bias": (D,)}
    made = {name: of_array(np.zeros(shape, np.float32)) for name, shape in zeros.items()}
    made |= {f"{_GRAY}.bias": of_array(bias)}
    return made | {f"{name}.weight": of_array(np.ones(n, np.float32)) for name, n in (("Decoder.norm", E), ("norm", D))}


FLYEGLE = Dialect(
    name="flyegle",
    title="FlyEgle/MAE-pytorch",
    spellings={"mae": _AUTOENCODER, "encoder": _AUTOENCODER, "classifier": _CLASSIFIER},
    shows=(Sign(r"(Encoder|Decoder|model)\.blocks\.\d+\.norm1\.weight"),),
    never=(
        Sign(r"model\.(pos_embed|mask_token|decoder_.*|head\..*|fc_norm\..*)"),
    ),  # the official names in a larger model
    computes={**_COMPUTES, "masking": "raster", "loss_over": "all", "train_positions": False},
    computes_in={"classifier": {"train_positions": False}},
    allows={
        "head": ("conv",),
        "decoder_norm": (False,),
        "pooling": ("cls", "mean"),
        "square": (True,),
        "head_norm": (False,),
    },
    derived=frozenset({"pos_embed", "decoder_pos_embed", "mask_token"}),
    derive=derive,
    supply=supply,
    sources=r"Decoder\.unmask_embed\.proj\.(weight|bias)",
    unused=_UNUSED,
    wrapper="state_dict",
)
