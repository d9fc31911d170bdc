"""What a file is that is of no model here, by the names that give its project or family away."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..backends.spec import Shape

# A pattern for the whole name of a tensor, the number of its axes where that is what tells, and what it is.
_RELATIVES = (
    (r"encoder_to_decoder\.weight", None, "pengzhiliang/MAE-pytorch: no class token, no bias of k, fixed positions of its own"),
    (r".*patch_embed\.proj\.weight", 5, "a model for video (VideoMAE, MAE-ST): its patches have a length in time"),
    (r"(.*\.)?(decoder_)?channel_embed", None, "SatMAE: groups of channels with embeddings of their own"),
    (r".*\.relative_position_bias_table|.*\.q_bias", None, "BEiT or in its style: relative positions, no bias of k, LayerScale"),
    (r"(.*\.)?(layers|stages)\.\d+\.(blocks|downsample)\..*", None, "a Swin or another model with stages"),
    (r"(.*\.)?register_tokens|(.*\.)?ls1\.gamma", None, "DINOv2 or in its style: LayerScale, register tokens"),
    (r"(.*\.)?gamma_1|(.*\.)?ls1\.gamma", None, "a model with LayerScale, as CaiT, BEiT or DINOv2"),
    (r"encoder\.mask_token", None, "SimMIM: its mask tokens enter the encoder"),
    (r"(.*\.)?(rope|freqs_cis|rotary)[\w.]*", None, "a model with rotary positions, as EVA-02"),
    (r"(.*\.)?class_embedding|(.*\.)?positional_embedding", None, "CLIP: another order of its norms and no such decoder"),
    (r"(.*\.)?rel_pos_[hw]", None, "SAM or ViTDet: windows and relative positions"),
)  # fmt: skip


def relative(shapes: Mapping[str, Shape]) -> str:
    """A sentence where the names show what else a file is; "" where they do not."""
    for pattern, axes, what in _RELATIVES:
        if any(axes in (None, len(shape)) and re.fullmatch(pattern, name) for name, shape in shapes.items()):
            return f"By its names it is {what}; no model here computes so."
    return ""
