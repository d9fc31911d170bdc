"""The masked autoencoder and its classifier in NumPy: in float64 the oracle, in float32 its twin.

Shapes: N batch, L patches, K kept patches, T tokens, D width, E decoder width, H heads, P values in a patch.
`x = out["name"] = ...` records a tap; the names are listed by `polymae.backends.spec.taps`.
The five model.py files read alike line for line: `diff` one against another to see what a port has to change.
"""

from __future__ import annotations

import numpy as np

from ..config import MAEConfig, ViTConfig, keep_length
from ..inputs import check_arrays as check_inputs
from ..inputs import check_drop_path, check_pooling, check_targets
from ..spec import NoTaps
from .blocks import HeadNorm, PatchEmbed, TransposedConv, blocks, raster_order
from .layers import LayerNorm, Linear, Module, log_softmax, unbiased_variance
from .sums import Array, row_mean
from .weights import Weights, finish


class MAE(Module):
    """Masked autoencoder (official `MaskedAutoencoderViT`): the encoder sees kept patches, the decoder paints all."""

    def __init__(self, config: MAEConfig, weights: Weights | None = None):
        L, D, E = config.num_patches, config.embed_dim, config.decoder_embed_dim
        self.config = config
        self.norm_pix_loss = config.norm_pix_loss
        self.cls_token = np.zeros((1, 1, D), np.float32)
        self.pos_embed = np.zeros((1, L + 1, D), np.float32)
        self.mask_token = np.zeros((1, 1, E), np.float32)
        self.decoder_pos_embed = np.zeros((1, L + 1, E), np.float32)
        self.patch_embed = PatchEmbed(config.in_chans, D, config.patch_size)
        self.blocks = blocks(config.depth, D, config.num_heads, config.mlp_dim(D), config.eps_of_blocks)
        self.norm = LayerNorm(D, eps=config.norm_eps)
        self.decoder_embed = Linear(D, E)
        self.decoder_blocks = blocks(
            config.decoder_depth, E, config.decoder_num_heads, config.mlp_dim(E), config.eps_of_blocks
        )
        if config.decoder_norm:
            self.decoder_norm = LayerNorm(E, eps=config.norm_eps)
        self.decoder_pred = Linear(E, config.patch_dim)
        if config.head == "conv":
            self.patch_norm = LayerNorm(config.patch_dim, eps=1e-12)
            self.unconv = TransposedConv(config.patch_dim, config.in_chans, config.patch_size)
        finish(self, weights)

    def forward(
        self, imgs: Array, noise: Array | None = None, mask_ratio: float = 0.75, out: dict[str, Array] | None = None
    ) -> tuple[Array, Array, Array]:
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

    def encode(self, imgs: Array, pooling: str | None = "cls") -> Array:
        """imgs [N, C, height, width], normalised, to features of the whole images: nothing is masked or drawn.

        pooling: after the norm, cls is the class token and gap the mean of the patch tokens [N, D]; tokens, or None,
        is all tokens [N, L+1, D], the class token first.
        """
        check_inputs(imgs, None, self.config)
        check_pooling(pooling)
        L = self.config.num_patches
        noise = np.broadcast_to(np.arange(L), (len(imgs), L))  # [N, L], every patch in its place
        x, _, _ = self.forward_encoder(imgs, noise, 0.0, NoTaps())
        if pooling == "cls":
            x = x[:, 0]
        elif pooling == "gap":
            x = x[:, 1:].mean(axis=1)
        return x

    def forward_encoder(
        self, imgs: Array, noise: Array | None, mask_ratio: float, out: dict[str, Array]
    ) -> tuple[Array, Array, Array]:
        """imgs [N, C, height, width] to latent [N, K+1, D], mask [N, L] and ids_restore [N, L]."""
        x = out["patch_embed"] = self.patch_embed(imgs)  # [N, L, D]
        x = out["pos_embed"] = x + self.pos_embed[:, 1:]
        x, mask, ids_restore = self.random_masking(x, noise, mask_ratio, out)  # [N, K, D]
        cls_token = self.cls_token + self.pos_embed[:, :1]
        x = out["tokens"] = np.concatenate([np.repeat(cls_token, x.shape[0], axis=0), x], axis=1)  # [N, K+1, D]
        for i, block in enumerate(self.blocks):
            x = block(x, out, f"blocks.{i}")
        x = out["latent"] = self.norm(x)
        return x, mask, ids_restore

    def random_masking(
        self, x: Array, noise: Array | None, mask_ratio: float, out: dict[str, Array]
    ) -> tuple[Array, Array, Array]:
        """Keep the K patches of smallest noise: each image its own, or all the first's in raster order (masking)."""
        N, L, D = x.shape
        K = keep_length(L, mask_ratio)
        noise = np.random.random((N, L)).astype(np.float32) if noise is None else noise
        ids_shuffle = np.argsort(noise, axis=1, kind="stable")
        if self.config.masking == "raster":
            ids_shuffle = raster_order(ids_shuffle, K)
        ids_restore = out["ids_restore"] = np.argsort(ids_shuffle, axis=1)
        ids_keep = ids_shuffle[:, :K]
        x = np.take_along_axis(x, ids_keep[:, :, None], axis=1)  # [N, K, D]
        mask = out["mask"] = (ids_restore >= K).astype(x.dtype)
        return x, mask, ids_restore

    def forward_decoder(self, x: Array, ids_restore: Array, out: dict[str, Array]) -> Array:
        """latent [N, K+1, D] to the prediction [N, L, P]."""
        x = out["decoder_embed"] = self.decoder_embed(x)  # [N, K+1, E]
        N, T, E = x.shape
        L = ids_restore.shape[1]
        mask_tokens = np.broadcast_to(self.mask_token, (N, L + 1 - T, E))
        patches = np.concatenate([x[:, 1:], mask_tokens], axis=1)  # [N, L, E], shuffled
        patches = np.take_along_axis(patches, ids_restore[:, :, None], axis=1)
        x = np.concatenate([x[:, :1], patches], axis=1)
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

    def forward_loss(self, imgs: Array, pred: Array, mask: Array, out: dict[str, Array]) -> Array:
        """Squared error of the removed patches' pixels, each patch normalised or not (norm_pix_loss).

        Its mean over these patches, or their sum over the number of values in all patches (loss_over).
        """
        target = self.patchify(imgs)
        if self.norm_pix_loss:
            mean = row_mean(target)
            var = unbiased_variance(target)  # unbiased, n - 1
            target = (target - mean) / (var + 1e-6) ** 0.5
        target = out["target"] = target
        loss = ((pred - target) ** 2).mean(axis=-1)  # [N, L]
        if self.config.loss_over == "removed":
            loss = (loss * mask).sum() / mask.sum()
        else:
            loss = (loss * mask).mean()  # over all patches
        loss = out["loss"] = loss
        return loss

    def patchify(self, imgs: Array) -> Array:
        """imgs [N, C, height, width] to [N, L, P], each patch in the order row, column, channel."""
        (rows, columns), p, C = self.config.grid, self.config.patch_size, self.config.in_chans
        x = imgs.reshape(-1, C, rows, p, columns, p)
        return x.transpose(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, p * p * C)

    def unpatchify(self, x: Array) -> Array:
        """The inverse of patchify."""
        (rows, columns), p, C = self.config.grid, self.config.patch_size, self.config.in_chans
        x = x.reshape(-1, rows, columns, p, p, C)
        return x.transpose(0, 5, 1, 3, 2, 4).reshape(-1, C, rows * p, columns * p)


class ViT(Module):
    """Classifier on the encoder (official `VisionTransformer`); pooling gap, cls or mean."""

    def __init__(self, config: ViTConfig, weights: Weights | None = None):
        L, D = config.num_patches, config.embed_dim
        self.config = config
        self.cls_token = np.zeros((1, 1, D), np.float32)
        self.pos_embed = np.zeros((1, L + 1, D), np.float32)
        self.patch_embed = PatchEmbed(config.in_chans, D, config.patch_size)
        self.blocks = blocks(config.depth, D, config.num_heads, config.mlp_dim(D), config.eps_of_blocks)
        if config.pooling != "gap":
            self.norm = LayerNorm(D, eps=config.norm_eps)
        if config.head_norm:
            self.head_norm = HeadNorm(D, eps=1e-6)
        self.head = Linear(D, config.num_classes)
        if config.pooling == "gap":
            self.fc_norm = LayerNorm(D, eps=config.norm_eps)
        finish(self, weights)

    def forward(self, imgs: Array, out: dict[str, Array] | None = None, drop_path: Array | None = None) -> Array:
        """imgs [N, C, height, width], normalised, to logits [N, classes].

        drop_path [N, depth, 2]: the factors of each block's attention and MLP, 0 or 1/keep (timm's DropPath); None: 1.
        """
        out = NoTaps() if out is None else out
        x = self.forward_features(imgs, out, drop_path)
        return self.forward_head(x, out)

    def encode(self, imgs: Array) -> Array:
        """imgs [N, C, height, width], normalised, to the pooled features [N, D], as the head gets them."""
        return self.forward_features(imgs, NoTaps())

    def forward_features(self, imgs: Array, out: dict[str, Array], drop_path: Array | None = None) -> Array:
        """imgs [N, C, height, width] to the pooled features [N, D]."""
        check_inputs(imgs, None, self.config)
        check_drop_path(drop_path, imgs, self.config)
        x = out["patch_embed"] = self.patch_embed(imgs)  # [N, L, D]
        x = x + self.pos_embed[:, 1:]
        cls_token = self.cls_token + self.pos_embed[:, :1]
        x = out["tokens"] = np.concatenate([np.repeat(cls_token, x.shape[0], axis=0), x], axis=1)  # [N, L+1, D]
        for i, block in enumerate(self.blocks):
            factors = None if drop_path is None else drop_path[:, i]  # [N, 2]
            x = block(x, out, f"blocks.{i}", factors)
        if self.config.pooling == "gap":
            x = self.fc_norm(x[:, 1:].mean(axis=1))
        else:
            x = self.norm(x)
            x = x[:, 0] if self.config.pooling == "cls" else x.mean(axis=1)
        x = out["latent"] = x
        return x

    def forward_head(self, x: Array, out: dict[str, Array], statistics: tuple[Array, Array] | None = None) -> Array:
        """Pooled features [N, D] to logits [N, classes]; statistics: as HeadNorm takes them."""
        if self.config.head_norm:
            x = out["head_norm"] = self.head_norm(x, statistics)  # [N, D]
        x = out["logits"] = self.head(x)
        return x

    def forward_loss(self, logits: Array, targets: Array, out: dict[str, Array]) -> Array:
        """Mean cross entropy of logits [N, classes] against labels [N] or soft targets [N, classes]."""
        check_targets(targets, logits)
        if targets.ndim == 2:
            loss = -(targets * log_softmax(logits)).sum(axis=-1).mean()
        else:
            loss = -log_softmax(logits)[np.arange(len(targets)), targets].mean()
        loss = out["loss"] = loss
        return loss
