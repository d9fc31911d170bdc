"""Hugging Face transformers: ViTMAEForPreTraining, ViTMAEModel (no "vit." in front) and ViTForImageClassification.

Its names come in three generations. Files are written in the oldest: it is the only one that every version reads.
Which settings a file has stands in the config.json beside it (convert/huggingface.py).
"""

from __future__ import annotations

from dataclasses import replace

from ...backends.naming import Names, Spelling
from .contents import Contents
from .dialect import OFFICIAL_NUMERICS, OFFICIAL_PARTS, Dialect, Sign

_OUTER = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "norm": "vit.layernorm",
    "head": "classifier",
    **{name: f"decoder.{name}" for name in ("mask_token", "decoder_pos_embed")},
    **{name: f"decoder.{name}" for name in ("decoder_embed", "decoder_norm", "decoder_pred")},
}
_BLOCK_V4: Names = {
    "norm1": "layernorm_before",
    "attn.qkv": tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_BLOCK_V5: Names = {
    "norm1": "layernorm_before",
    "attn.qkv": tuple(f"attention.{part}" for part in ("q_proj", "k_proj", "v_proj")),
    "attn.proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def _spellings(block: Names, encoder: str, decoder: str) -> dict[Contents, Spelling]:
    whole = Spelling(_OUTER, {"blocks": f"vit.{encoder}", "decoder_blocks": f"decoder.{decoder}"}, block)
    bare = replace(
        whole,
        names={name: spelled.removeprefix("vit.") for name, spelled in _OUTER.items()},
        stacks={"blocks": encoder},
    )
    return {"mae": whole, "encoder": bare, "classifier": whole}


_V4 = _spellings(_BLOCK_V4, "encoder.layer", "decoder_layers")
_QUERY = r"\.\d+\.attention\.attention\.query\.weight"
_SAVED_BY_5 = Sign(rf"decoder\.decoder_encoder\.layer{_QUERY}")

HUGGINGFACE = Dialect(
    name="huggingface",
    title="Hugging Face transformers, version 4 and what 5 writes",
    spellings=_V4,
    shows=(Sign(rf"(vit\.)?encoder\.layer{_QUERY}"), Sign(rf"decoder\.decoder_layers{_QUERY}")),
    never=(_SAVED_BY_5,),
    # One eps for all norms, but whichever config.json says; and which GELU.
    computes={name: value for name, value in OFFICIAL_NUMERICS.items() if not name.endswith("eps") and name != "gelu"},
    allows={**OFFICIAL_PARTS, "pooling": ("cls",), "square": (True,)},
    one_eps=True,
    config_file=True,
    unused=r"(vit\.)?pooler\.dense\.(weight|bias)",
)
# transformers 5.20 writes an autoencoder's decoder under another name than it reads anywhere else.
HUGGINGFACE_SAVED_BY_5 = replace(
    HUGGINGFACE,
    name="huggingface-saved-by-5",
    title="Hugging Face transformers, autoencoders as 5.20 saves them",
    spellings={"mae": _spellings(_BLOCK_V4, "encoder.layer", "decoder_encoder.layer")["mae"]},
    shows=(_SAVED_BY_5,),
    never=(),
)
HUGGINGFACE_V5 = replace(
    HUGGINGFACE,
    name="huggingface-v5",
    title="Hugging Face transformers, version 5's own names",
    spellings=_spellings(_BLOCK_V5, "layers", "decoder_layers"),
    shows=(Sign(r"((vit\.)?layers|decoder\.decoder_layers)\.\d+\.attention\.q_proj\.weight"),),
    never=(),
)
