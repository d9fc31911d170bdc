"""LiBai projects/MAE (OneFlow): q, k and v interleaved head by head, the norms inside the blocks with eps 1e-5.

Its classifier calls the norm `norm` whether it pools the patches (official: fc_norm) or takes the class token, so the
second must be named.
"""

from __future__ import annotations

from dataclasses import replace

from ...backends.naming import Spelling
from .dialect import OFFICIAL_NUMERICS, OFFICIAL_PARTS, PLAIN_IMAGES, Dialect, Sign

_SPELLING = Spelling(
    block={
        "norm1": "input_layernorm",
        "attn.qkv": "self_attention.query_key_value",
        "attn.proj": "self_attention.dense",
        "norm2": "post_attention_layernorm",
        "mlp.fc1": "mlp.dense_h_to_4h",
        "mlp.fc2": "mlp.dense_4h_to_h",
    },
    layouts={"attn.qkv.weight": "(t h s) d -> (h t s) d", "attn.qkv.bias": "(t h s) -> (h t s)"},
)
_POOLED = replace(_SPELLING, names={"fc_norm": "norm"})

LIBAI = Dialect(
    name="libai",
    title="LiBai projects/MAE",
    spellings={"mae": _SPELLING, "encoder": _SPELLING, "classifier": _POOLED},
    shows=(Sign(r"(blocks|decoder_blocks)\.\d+\.self_attention\.query_key_value\.weight"),),
    computes={**OFFICIAL_NUMERICS, "block_norm_eps": 1e-5, "train_positions": True},
    computes_in={"classifier": {"norm_eps": 1e-5}},
    allows={**OFFICIAL_PARTS, **PLAIN_IMAGES, "pooling": ("gap",)},
    folder="model",
    notes={
        "classifier": "LiBai calls a classifier's norm alike whichever tokens it pools: this one is taken for pooled patches, "
        "as LiBai's fine-tuning does; for one on the class token name the dialect: libai-cls."
    },
)
LIBAI_CLS = replace(
    LIBAI,
    name="libai-cls",
    title="LiBai projects/MAE, classifier on the class token",
    spellings={"classifier": _SPELLING},
    allows={**OFFICIAL_PARTS, **PLAIN_IMAGES, "pooling": ("cls",)},
    explicit=True,
    notes={},
)
