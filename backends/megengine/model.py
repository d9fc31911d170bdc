"""The masked autoencoder and its classifier in MegEngine.

Shapes: N batch, L patches, K kept patches, T tokens, D width, E decoder width, H heads, P values in a patch.
`x = out["name"] = ...` records a tap; the names are listed by `polymae.backends.spec.taps`.
The five model.py files read alike line for line: `diff` one against another to see what a port has to change.
"""

from __future__ import annotations

import megengine as mge
import megengine.functional as F
import megengine.module as M
from megengine import Tensor

from ..config import MAEConfig, ViTConfig, keep_length
from ..inputs import check_drop_path, check_inputs, check_pooling, check_targets
from ..spec import NoTaps
from .blocks import HeadNorm, PatchEmbed, TransposedConv, blocks, raster_order
from .weights import Weights, finish
from .workarounds import LayerNorm, arange, contiguous, take_tokens


class MAE(M.Module):
    """Masked autoencoder (official `MaskedAutoencoderViT`): the encoder sees kept patches, the decoder paints all."""

    def __init__(self, config: MAEConfig, weights: Weights | None = None):
        super().__init__()
        L, D, E = config.num_patches, config.embed_dim, config.decoder_embed_dim
        self.config = config
        self.norm_pix_loss = config.norm_pix_loss
        self.cls_token = mge.Parameter(F.zeros((1, 1, D)))
        self.pos_embed = mge.Parameter(F.zeros((1, L + 1, D)))  # the spec says if it is trained
        self.mask_token = mge.Parameter(F.zeros((1, 1, E)))
        self.decoder_pos_embed = mge.Parameter(F.zeros((1, L + 1, E)))
        self.patch_embed = PatchEmbed(config.in_chans, D, config.patch_size)
        self.blocks = blocks(config.depth, D, config.num_heads, config.mlp_dim(D), config.eps_of_blocks)
        self.norm = LayerNorm(D, eps=config.norm_eps)
        self.decoder_embed = M.Linear(D, E)
        self.decoder_blocks = blocks(
            config.decoder_depth, E, config.decoder_num_heads, config.mlp_dim(E), config.eps_of_blocks
        )
        if config.decoder_norm:
            self.decoder_norm = LayerNorm(E, eps=config.norm_eps)
        self.decoder_pred = M.Linear(E, config.patch_dim)
        if config.head == "conv":
            self.patch_norm = LayerNorm(config.patch_dim, eps=1e-12)
            self.unconv = TransposedConv(config.patch_dim, config.in_chans, config.patch_size)
        finish(self, weights)

    def forward(
        self, imgs: Tensor, noise: Tensor | None = None, mask_ratio: float = 0.75, out: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask, encode, decode and score a batch.

        imgs [N, C, height, width], normalised. noise [N, L]: the patches of smallest noise are kept; None draws it.
        Returns the loss [], the prediction [N, L, P] and the mask [N, L] (0 kept, 1 removed).
        """
        check_inputs(imgs, noise, self.config)
        out = NoTaps() if out is None else out
        latent, mask, ids_restore = self.forward_encoder(imgs, noise, mask_ratio, out)
        pred = self.forward_decoder(latent, ids_restore, out)
        loss = self.forward_loss(imgs, pred, mask, out)
        return loss, pred, mask

    def encode(self, imgs: Tensor, pooling: str | None = "cls") -> Tensor:
        """imgs [N, C, height, width], normalised, to features of the whole images: nothing is masked or drawn.

        pooling: after the norm, cls is the class token and gap the mean of the patch tokens [N, D]; tokens, or None,
        is all tokens [N, L+1, D], the class token first.
        """
        check_inputs(imgs, None, self.config)
        check_pooling(pooling)
        L = self.config.num_patches
        noise = F.broadcast_to(arange(L, imgs), (imgs.shape[0], L))  # [N, L], every patch in its place
        x, _, _ = self.forward_encoder(imgs, noise, 0.0, NoTaps())
        if pooling == "cls":
            x = contiguous(x[:, 0])
        elif pooling == "gap":
            x = F.mean(x[:, 1:], axis=1)
        return x

    def forward_encoder(
        self, imgs: Tensor, noise: Tensor | None, mask_ratio: float, out: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """imgs [N, C, height, width] to latent [N, K+1, D], mask [N, L] and ids_restore [N, L]."""
        x = out["patch_embed"] = self.patch_embed(imgs)  # [N, L, D]
        x = out["pos_embed"] = x + self.pos_embed[:, 1:]
        x, mask, ids_restore = self.random_masking(x, noise, mask_ratio, out)  # [N, K, D]
        cls_token = self.cls_token + self.pos_embed[:, :1]
        x = out["tokens"] = F.concat([F.broadcast_to(cls_token, (x.shape[0], None, None)), x], axis=1)  # [N, K+1, D]
        for i, block in enumerate(self.blocks):
            x = block(x, out, f"blocks.{i}")
        x = out["latent"] = self.norm(x)
        return x, mask, ids_restore

    def random_masking(
        self, x: Tensor, noise: Tensor | None, mask_ratio: float, out: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keep the K patches of smallest noise: each image its own, or all the first's in raster order (masking)."""
        N, L, D = x.shape
        K = keep_length(L, mask_ratio)
        noise = mge.random.uniform(size=(N, L)).to(x.device) if noise is None else noise
        ids_shuffle = F.argsort(noise)
        if self.config.masking == "raster":
            ids_shuffle = raster_order(ids_shuffle, K)
        ids_restore = out["ids_restore"] = F.argsort(ids_shuffle)
        ids_keep = ids_shuffle[:, :K]
        x = take_tokens(x, ids_keep)  # [N, K, D]
        mask = out["mask"] = (ids_restore >= K).astype(x.dtype)
        return x, mask, ids_restore

    def forward_decoder(self, x: Tensor, ids_restore: Tensor, out: dict[str, Tensor]) -> Tensor:
        """latent [N, K+1, D] to the prediction [N, L, P]."""
        x = out["decoder_embed"] = self.decoder_embed(x)  # [N, K+1, E]
        N, T, E = x.shape
        L = ids_restore.shape[1]
        mask_tokens = F.broadcast_to(self.mask_token, (N, L, None))[:, : L + 1 - T]  # its gradient may be of size 0
        patches = F.concat([x[:, 1:], mask_tokens], axis=1)  # [N, L, E], shuffled
        patches = take_tokens(patches, ids_restore)
        x = F.concat([x[:, :1], patches], axis=1)
        x = out["decoder_tokens"] = x + self.decoder_pos_embed  # [N, L+1, E]
        for i, block in enumerate(self.decoder_blocks):
            x = block(x, out, f"decoder_blocks.{i}")
        if self.config.decoder_norm:
            x = out["decoder_norm"] = self.decoder_norm(x)
        x = self.decoder_pred(x)[:, 1:]
        if self.config.head == "conv":
            x = out["decoder_pred"] = x
            x = out["patch_norm"] = self.patch_norm(x)
            x = self.unconv(x)
        x = out["pred"] = x
        return x

    def forward_loss(self, imgs: Tensor, pred: Tensor, mask: Tensor, out: dict[str, Tensor]) -> Tensor:
        """Squared error of the removed patches' pixels, each patch normalised or not (norm_pix_loss).

        Its mean over these patches, or their sum over the number of values in all patches (loss_over).
        """
        target = self.patchify(imgs)
        if self.norm_pix_loss:
            mean = F.mean(target, axis=-1, keepdims=True)
            var = F.sum(F.square(target - mean), axis=-1, keepdims=True) / (target.shape[-1] - 1)  # unbiased, n - 1
            target = (target - mean) / F.sqrt(var + 1e-6)
        target = out["target"] = target
        loss = F.mean(F.square(pred - target), axis=-1)  # [N, L]
        if self.config.loss_over == "removed":
            loss = F.sum(loss * mask) / F.sum(mask)
        else:
            loss = F.mean(loss * mask)  # over all patches
        loss = out["loss"] = loss
        return loss

    def patchify(self, imgs: Tensor) -> Tensor:
        """imgs [N, C, height, width] to [N, L, P], each patch in the order row, column, channel."""
        (rows, columns), p, C = self.config.grid, self.config.patch_size, self.config.in_chans
        x = imgs.reshape(-1, C, rows, p, columns, p)
        return x.transpose(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, p * p * C)

    def unpatchify(self, x: Tensor) -> Tensor:
        """The inverse of patchify."""
        (rows, columns), p, C = self.config.grid, self.config.patch_size, self.config.in_chans
        x = x.reshape(-1, rows, columns, p, p, C)
        return x.transpose(0, 5, 1, 3, 2, 4).reshape(-1, C, rows * p, columns * p)


class ViT(M.Module):
    """Classifier on the encoder (official `VisionTransformer`); pooling gap, cls or mean."""

    def __init__(self, config: ViTConfig, weights: Weights | None = None):
        super().__init__()
        L, D = config.num_patches, config.embed_dim
        self.config = config
        self.cls_token = mge.Parameter(F.zeros((1, 1, D)))
        self.pos_embed = mge.Parameter(F.zeros((1, L + 1, D)))
        self.patch_embed = PatchEmbed(config.in_chans, D, config.patch_size)
        self.blocks = blocks(config.depth, D, config.num_heads, config.mlp_dim(D), config.eps_of_blocks)
        if config.pooling != "gap":
            self.norm = LayerNorm(D, eps=config.norm_eps)
        if config.head_norm:
            self.head_norm = HeadNorm(D, eps=1e-6)
        self.head = M.Linear(D, config.num_classes)
        if config.pooling == "gap":
            self.fc_norm = LayerNorm(D, eps=config.norm_eps)
        finish(self, weights)

    def forward(self, imgs: Tensor, out: dict[str, Tensor] | None = None, drop_path: Tensor | None = None) -> Tensor:
        """imgs [N, C, height, width], normalised, to logits [N, classes].

        drop_path [N, depth, 2]: the factors of each block's attention and MLP, 0 or 1/keep (timm's DropPath); None: 1.
        """
        out = NoTaps() if out is None else out
        x = self.forward_features(imgs, out, drop_path)
        return self.forward_head(x, out)

    def encode(self, imgs: Tensor) -> Tensor:
        """imgs [N, C, height, width], normalised, to the pooled features [N, D], as the head gets them."""
        return contiguous(self.forward_features(imgs, NoTaps()))

    def forward_features(self, imgs: Tensor, out: dict[str, Tensor], drop_path: Tensor | None = None) -> Tensor:
        """imgs [N, C, height, width] to the pooled features [N, D]."""
        check_inputs(imgs, None, self.config)
        check_drop_path(drop_path, imgs, self.config)
        x = out["patch_embed"] = self.patch_embed(imgs)  # [N, L, D]
        x = x + self.pos_embed[:, 1:]
        cls_token = self.cls_token + self.pos_embed[:, :1]
        x = out["tokens"] = F.concat([F.broadcast_to(cls_token, (x.shape[0], None, None)), x], axis=1)  # [N, L+1, D]
        for i, block in enumerate(self.blocks):
            factors = None if drop_path is None else drop_path[:, i]  # [N, 2]
            x = block(x, out, f"blocks.{i}", factors)
        if self.config.pooling == "gap":
            x = self.fc_norm(F.mean(x[:, 1:], axis=1))
        else:
            x = self.norm(x)
            x = x[:, 0] if self.config.pooling == "cls" else F.mean(x, axis=1)
        x = out["latent"] = x
        return x

    def forward_head(
        self, x: Tensor, out: dict[str, Tensor], statistics: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Pooled features [N, D] to logits [N, classes]; statistics: as HeadNorm takes them."""
        if self.config.head_norm:
            x = out["head_norm"] = self.head_norm(x, statistics)  # [N, D]
        x = out["logits"] = self.head(x)
        return x

    def forward_loss(self, logits: Tensor, targets: Tensor, out: dict[str, Tensor]) -> Tensor:
        """Mean cross entropy of logits [N, classes] against labels [N] or soft targets [N, classes]."""
        check_targets(targets, logits)
        if targets.ndim == 2:
            loss = -F.mean(F.sum(targets * F.logsoftmax(logits, axis=-1), axis=-1))
        else:
            loss = F.nn.cross_entropy(logits, targets)
        loss = out["loss"] = loss
        return loss
