"""Faults of what happens to tokens: patches, positions, masking, and the way into the decoder."""

from __future__ import annotations

from functools import partial

from .planting import Fault, in_all, in_each

_fault = partial(Fault, level="forward")

PATCHES = (
    _fault(
        "convolution bias dropped",
        located_at="patch_embed",
        about="The patch embedding was built without a bias.",
        edits=in_all("blocks", ("self.proj(imgs)", "self.proj(imgs) - self.proj.bias.reshape(-1, 1, 1)")),
    ),
    _fault(
        "patches counted down the columns",
        located_at="patch_embed",
        about="Height and width of the grid of patches were exchanged.",
        edits=in_each(
            "blocks",
            numpy=("x.reshape(*x.shape[:2], -1)", "x.swapaxes(2, 3).reshape(*x.shape[:2], -1)"),
            torch=("x.flatten(2)", "x.transpose(2, 3).flatten(2)"),
            megengine=("F.flatten(x, 2)", "F.flatten(x.transpose(0, 1, 3, 2), 2)"),
            mindspore=("x.flatten(2)", "x.swapaxes(2, 3).flatten(2)"),
            oneflow=("x.flatten(2)", "x.transpose(2, 3).flatten(2)"),
        ),
    ),
    _fault(
        "two blocks swapped",
        located_at="blocks.0.norm1",
        about="The first two blocks run in the wrong order, as where names were sorted as text.",
        edits=in_all(
            "model",
            ("enumerate(self.blocks)", "enumerate([self.blocks[j] for j in (1, 0, *range(2, len(self.blocks)))])"),
        ),
    ),
)

POSITIONS = (
    _fault(
        "positions shifted by one",
        located_at="pos_embed",
        about="The table's first row, which is the class token's, was given to the first patch.",
        edits=in_all("model", ("x + self.pos_embed[:, 1:]", "x + self.pos_embed[:, :-1]")),
    ),
    _fault(
        "class token without its position",
        located_at="tokens",
        about="The class token is put in front as it is.",
        edits=in_all("model", ("self.cls_token + self.pos_embed[:, :1]", "self.cls_token")),
    ),
    _fault(
        "decoder positions not added",
        located_at="decoder_tokens",
        about="The decoder's table was forgotten.",
        edits=in_all("model", ("x + self.decoder_pos_embed", "x + 0 * self.decoder_pos_embed")),
    ),
)

MASKING = (
    _fault(
        "noise sorted downwards",
        located_at="ids_restore",
        about="The patches of largest noise are kept.",
        edits=in_all("model", ("argsort(noise", "argsort(-noise")),
    ),
    _fault(
        "ids_restore not inverted",
        located_at="ids_restore",
        about="The second argsort, which inverts the permutation, was forgotten.",
        edits=in_all("model", ('out["ids_restore"] = ', 'out["ids_restore"] = ids_shuffle + 0 * ')),
    ),
    _fault(
        "mask of the kept",
        located_at="mask",
        about="The mask is 1 for the patches that are kept.",
        edits=in_all("model", ("ids_restore >= K", "ids_restore < K")),
    ),
    _fault(
        "raster masks shuffled",
        located_at="ids_restore",
        about="FlyEgle keeps the first image's patches in raster order; the port shuffles each image.",
        edits=in_all("model", ('config.masking == "raster"', 'config.masking == ""')),
        needs={"masking": "raster"},
    ),
)

_ARGSORT = {
    "numpy": "np.argsort(ids_restore, axis=1)",
    "torch": "torch.argsort(ids_restore, dim=1)",
    "megengine": "F.argsort(ids_restore)",
    "mindspore": "ops.argsort(ids_restore, axis=1)",
    "oneflow": "flow.argsort(ids_restore, dim=1)",
}
_LENGTH = "L = ids_restore.shape[1]"
_WEIGHT_OF_HEAD = "(0, 2, 3, 1).reshape(-1, p * p * C)"
DECODER = (
    _fault(
        "mask token not added",
        located_at="decoder_tokens",
        about="Removed patches are filled with zeros.",
        edits=in_all("model", ("mask_tokens], ", "0 * mask_tokens], ")),
    ),
    _fault(
        "tokens restored twice inverted",
        located_at="decoder_tokens",
        about="The decoder sorts ids_restore once more, and so shuffles instead of restoring.",
        edits=in_each(
            "model", **{name: (_LENGTH, f"{_LENGTH}\n        ids_restore = {text}") for name, text in _ARGSORT.items()}
        ),
    ),
    _fault(
        "tokens restored in the first image's order",
        located_at="decoder_tokens",
        about="One image's permutation was used for the whole batch.",
        edits=in_all("model", (_LENGTH, f"{_LENGTH}\n        ids_restore = 0 * ids_restore + ids_restore[:1]")),
    ),
    _fault(
        "twice the decoder's heads",
        located_at="decoder_blocks.0.attn.softmax",
        about="The decoder has another number of heads than the encoder, and the port's is wrong.",
        edits=in_all("model", ("config.decoder_num_heads", "2 * config.decoder_num_heads")),
    ),
    _fault(
        "pixels of a conv head channel first",
        located_at="pred",
        about="The transposed convolution's own order, channel, row, column, was kept.",
        edits=in_each(
            "blocks",
            **{
                name: (f"{permute}{_WEIGHT_OF_HEAD}", "reshape(-1, p * p * C)")
                for name, permute in (
                    ("numpy", "transpose"), ("torch", "permute"), ("megengine", "transpose"),
                    ("mindspore", "permute"), ("oneflow", "permute"),
                )
            },
        ),
        needs={"head": "conv"},
    ),
)  # fmt: skip

FAULTS = (*PATCHES, *POSITIONS, *MASKING, *DECODER)
