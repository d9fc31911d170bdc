"""mindformers (MindSpore): q, k and v apart, and three kinds of weights stored as [in, out].

0.3.0 and 0.8.0 differ in the name of the decoder's position table. Weights that 0.3.0 itself trained predict a patch's
pixels in the order channel, row, column; the file does not show it, so that spelling must be named.
"""

from __future__ import annotations

from dataclasses import replace

from ...backends.naming import Spelling
from .dialect import MINDSPORE_TRAINING, OFFICIAL_NUMERICS, OFFICIAL_PARTS, PLAIN_IMAGES, Dialect, Sign
from .native import ALL

_TRANSPOSED = "o i -> i o"
_SPELLING = Spelling(
    names={
        "cls_token": "vit.cls_tokens",
        "pos_embed": "vit.pos_embed",
        "mask_token": "mask_tokens",
        "patch_embed.proj": "vit.patch_embed.proj",
        "norm": "vit.norm",
        "fc_norm": "vit.fc_norm",
    },
    stacks={"blocks": "vit.blocks"},
    block={
        "norm1": "layernorm1",
        "norm2": "layernorm2",
        "attn.qkv": ("attention.dense1", "attention.dense2", "attention.dense3"),
        "attn.proj": "attention.projection",
        "mlp.fc1": "output.mapping",
        "mlp.fc2": "output.projection",
    },
    leaves={"norm.weight": "gamma", "norm.bias": "beta"},
    layouts=dict.fromkeys(("attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"), _TRANSPOSED),
)
_TABLE_03 = "sincos_decoder_pos_embedding"
_SPELLING_03 = replace(_SPELLING, names={**_SPELLING.names, "decoder_pos_embed": _TABLE_03})
_CHANNEL_FIRST = {"decoder_pred.weight": "(p q c) d -> (c p q) d", "decoder_pred.bias": "(p q c) -> (c p q)"}

MINDFORMERS_08 = Dialect(
    name="mindformers-0.8",
    title="mindformers 0.8.0",
    spellings=dict.fromkeys(ALL, _SPELLING),
    shows=(Sign(r"(vit\.blocks|decoder_blocks)\.\d+\.attention\.dense1\.weight"),),
    never=(Sign(_TABLE_03),),
    computes={**OFFICIAL_NUMERICS, "gelu": "tanh", "variance": "biased", "precision": "float16 in linear layers"},
    allows={**OFFICIAL_PARTS, **PLAIN_IMAGES},
    unused=MINDSPORE_TRAINING,
    metadata={"format": "ms"},
)
MINDFORMERS_03 = replace(
    MINDFORMERS_08,
    name="mindformers-0.3",
    title="mindformers 0.3.0, converted weights",
    spellings=dict.fromkeys(ALL, _SPELLING_03),
    never=(Sign(r"decoder_pos_embed"),),
    notes={
        "mae": "Weights that mindformers 0.3.0 itself trained predict pixels in another order, which the file does not "
        "show: for those name the dialect: mindformers-0.3-trained."
    },
)
MINDFORMERS_03_TRAINED = replace(
    MINDFORMERS_03,
    name="mindformers-0.3-trained",
    title="mindformers 0.3.0, weights that it trained (pixel order c, p, q)",
    spellings={"mae": replace(_SPELLING_03, layouts={**_SPELLING.layouts, **_CHANNEL_FIRST})},
    explicit=True,
    notes={},
)
