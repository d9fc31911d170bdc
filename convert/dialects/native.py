"""The official spelling, those that share its names, and our own file of each framework."""

from __future__ import annotations

import re

import numpy as np

from ...backends.config import Config
from ...backends.naming import NATIVE, Spelling
from ..tensors import Tensor, of_array
from .contents import Contents
from .dialect import (
    EXACT,
    MINDSPORE_TRAINING,
    OFFICIAL_NUMERICS,
    OFFICIAL_PARTS,
    PLAIN_IMAGES,
    Dialect,
    Sign,
    Tensors,
)

# A linear probe's head, Sequential(BatchNorm1d, Linear), is the official program's only.
ALL: tuple[Contents, ...] = ("mae", "encoder", "classifier", "headless")
_PROBE = Spelling(
    names={"head_norm.mean": "head.0.running_mean", "head_norm.var": "head.0.running_var", "head": "head.1"}
)
_STEPS = "head.0.num_batches_tracked"

_NORM = r"(.*\.)?(norm1|norm2|norm|fc_norm|decoder_norm|patch_norm)"
_WEIGHT, _GAMMA = Sign(_NORM + r"\.weight"), Sign(_NORM + r"\.(gamma|beta)")
_GAMMA_BLOCK = Sign(r"(blocks|decoder_blocks)\.\d+\.norm1\.gamma")
_BLOCK = Sign(r"(blocks|decoder_blocks)\.\d+\.norm1\.weight")
_BROADCAST_BIAS = Sign(r"patch_embed\.proj\.bias", axes=4)
_FLAT_BIAS = Sign(r"patch_embed\.proj\.bias", axes=1)
_OWN_HEAD, _OWN_PROBE = Sign(r"unconv\.weight"), Sign(r"head_norm\..*")
_OFFICIAL_PROBE = Sign(r"head\.0\..*")


def _supply_steps(config: Config, tensors: Tensors) -> dict[str, Tensor]:
    """BatchNorm's count of its training steps, which its loader asks for and which has no influence on the output."""
    return {_STEPS: of_array(np.zeros((), np.int64))} if "head_norm.mean" in tensors else {}


OFFICIAL = Dialect(
    name="official",
    title="facebookresearch/mae",
    spellings={**dict.fromkeys(ALL, NATIVE["torch"]), "probe": _PROBE},
    shows=(_BLOCK,),
    never=(_GAMMA, _BROADCAST_BIAS, _OWN_HEAD, _OWN_PROBE),
    computes=OFFICIAL_NUMERICS,
    allows=OFFICIAL_PARTS,
    allows_in={"mae": PLAIN_IMAGES},  # its loss needs them; its encoder takes what it is built for
    supply=_supply_steps,
    unused=re.escape(_STEPS),
    wrapper="model",
)
TIMM = Dialect(
    name="timm",
    title="timm's vit_*_patch*_224.mae and classifiers",
    spellings=dict.fromkeys(("encoder", "classifier", "headless"), NATIVE["torch"]),
    shows=(_BLOCK,),
    never=(*OFFICIAL.never, _OFFICIAL_PROBE),
    computes=OFFICIAL_NUMERICS,
    allows=OFFICIAL_PARTS,
)
POLYMAE = Dialect(
    name="polymae",
    title="our own, for PyTorch, OneFlow and NumPy",
    spellings=dict.fromkeys((*ALL, "probe"), NATIVE["torch"]),
    shows=(_BLOCK,),
    never=(_GAMMA, _BROADCAST_BIAS, _OFFICIAL_PROBE),
    computes=EXACT,
    wrapper="model",
)
MEGENGINE = Dialect(
    name="megengine",
    title="MAE-MegEngine, and our own for MegEngine",
    spellings=dict.fromkeys((*ALL, "probe"), NATIVE["megengine"]),
    shows=(_BLOCK,),
    never=(_GAMMA, _FLAT_BIAS),
    computes=EXACT,
    notes={
        "mae": "MAE-MegEngine's own program normalises a patch (norm_pix_loss) by its biased variance and trains the position "
        "tables; PolyMAE's for MegEngine does neither."
    },
)
MINDSPORE = Dialect(
    name="mindspore",
    title="our own, for MindSpore",
    spellings=dict.fromkeys((*ALL, "probe"), NATIVE["mindspore"]),
    shows=(_GAMMA_BLOCK,),
    never=(_WEIGHT, _BROADCAST_BIAS, Sign(r"(vit\.)?(blocks|decoder_blocks)\.\d+\.(layernorm1|attention\.dense1).*")),
    computes=EXACT,
    unused=MINDSPORE_TRAINING,
    metadata={"format": "ms"},
    notes=dict.fromkeys(
        ALL,
        "mindcv's files have these names too, and its program computes otherwise: for those name the dialect: mindcv.",
    ),
)
