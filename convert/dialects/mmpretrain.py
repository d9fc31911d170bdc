"""OpenMMLab's MMPretrain (before: MMSelfSup, MMClassification): the encoder under `backbone.`, the decoder under `neck.`."""

from __future__ import annotations

from ...backends.naming import Spelling
from .dialect import OFFICIAL_NUMERICS, OFFICIAL_PARTS, PLAIN_IMAGES, Dialect, Sign

_ENCODER = {
    "cls_token": "backbone.cls_token",
    "pos_embed": "backbone.pos_embed",
    "patch_embed.proj": "backbone.patch_embed.projection",
    "norm": "backbone.ln1",
    "fc_norm": "backbone.ln2",
}
_BLOCK = {"norm1": "ln1", "norm2": "ln2", "mlp.fc1": "ffn.layers.0.0", "mlp.fc2": "ffn.layers.1"}
_STACKS = {"blocks": "backbone.layers", "decoder_blocks": "neck.decoder_blocks"}
_DECODER = {name: f"neck.{name}" for name in ("mask_token", "decoder_pos_embed", "decoder_embed", "decoder_pred")}
_AUTOENCODER = Spelling(names={**_ENCODER, **_DECODER, "decoder_norm": "neck.ln1"}, stacks=_STACKS, block=_BLOCK)
_CLASSIFIER = Spelling(names={**_ENCODER, "head": "head.layers.head"}, stacks=_STACKS, block=_BLOCK)

MMPRETRAIN = Dialect(
    name="mmpretrain",
    title="OpenMMLab's MMPretrain and MMSelfSup",
    spellings={
        "mae": _AUTOENCODER, "encoder": _AUTOENCODER, "classifier": _CLASSIFIER, "headless": _CLASSIFIER
    },
    shows=(Sign(r"backbone\.layers\.\d+\.ffn\.layers\.0\.0\.weight"),),
    computes=OFFICIAL_NUMERICS,
    allows={**OFFICIAL_PARTS, **PLAIN_IMAGES},
    unused=r"data_preprocessor\..*|head\.loss\w*\..*",
    wrapper="state_dict",
)  # fmt: skip
