"""The masked autoencoder and its classifier in NumPy: in float64 the oracle, in float32 its twin.

Shapes: N batch, L patches, K kept patches, T tokens, D width, E decoder width, H heads, P values in a patch.
`x = out["name"] = ...` records a tap; the names are listed by `polymae.backends.spec.taps`.
The five model.py files read alike line for line: `diff` one against another to see what a port has to change.
"""

from __future__ import annotations

import numpy as np

from ..config import MAEConfig, ViTConfig, keep_length
from ..spec import NoTaps
from .layers import (
    Array,
    Conv2d,
    LayerNorm,
    Linear,
    Module,
    gelu,
    log_softmax,
    matmul,
    row_mean,
    softmax,
    unbiased_variance,
)
from .weights import Weights, finish


class PatchEmbed(Module):
    """Cut an image into patches and project each: a convolution whose stride is its kernel."""

    def __init__(self, in_chans: int, dim: int, patch_size: int):
        self.proj = Conv2d(in_chans, dim, patch_size)

    def forward(self, imgs: Array) -> Array:
        """imgs [N, C, height, width] to tokens [N, L, D]."""
        x = self.proj(imgs)  # [N, D, rows, columns]
        return x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)  # [N, L, D]


class Attention(Module):
    """Multi-head self-attention with one fused qkv matrix."""

    def __init__(self, dim: int, num_heads: int):
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Array, out: dict[str, Array], name: str) -> Array:
        """x [N, T, D] to [N, T, D]."""
        N, T, D = x.shape
        x = out[f"{name}.qkv"] = self.qkv(x)  # [N, T, 3D]
        x = x.reshape(N, T, 3, self.num_heads, D // self.num_heads)
        q, k, v = x.transpose(2, 0, 3, 1, 4)  # each [N, H, T, D/H]
        attn = matmul(q, k.swapaxes(-2, -1)) * self.scale  # [N, H, T, T]
        attn = out[f"{name}.softmax"] = softmax(attn)
        x = matmul(attn, v).swapaxes(1, 2).reshape(N, T, D)
        x = out[f"{name}.proj"] = self.proj(x)
        return x


class Mlp(Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden_dim: int):
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Array, out: dict[str, Array], name: str) -> Array:
        """x [N, T, D] to [N, T, D]."""
        x = out[f"{name}.fc1"] = self.fc1(x)  # [N, T, 4D]
        x = out[f"{name}.gelu"] = gelu(x)
        x = out[f"{name}.fc2"] = self.fc2(x)
        return x


class Block(Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, norm_eps: float):
        self.norm1 = LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, hidden_dim)

    def forward(self, x: Array, out: dict[str, Array], name: str) -> Array:
        """x [N, T, D] to [N, T, D]."""
        y = out[f"{name}.norm1"] = self.norm1(x)
        x = out[f"{name}.residual"] = x + self.attn(y, out, f"{name}.attn")
        y = out[f"{name}.norm2"] = self.norm2(x)
        x = out[name] = x + self.mlp(y, out, f"{name}.mlp")
        return x


def blocks(depth: int, dim: int, num_heads: int, hidden_dim: int, norm_eps: float) -> list[Block]:
    """A stack of equal blocks."""
    return [Block(dim, num_heads, hidden_dim, norm_eps) for _ in range(depth)]


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
        self.blocks = blocks(config.depth, D, config.num_heads, config.mlp_dim(D), config.norm_eps)
        self.norm = LayerNorm(D, eps=config.norm_eps)
        self.decoder_embed = Linear(D, E)
        self.decoder_blocks = blocks(
            config.decoder_depth, E, config.decoder_num_heads, config.mlp_dim(E), config.norm_eps
        )
        self.decoder_norm = LayerNorm(E, eps=config.norm_eps)
        self.decoder_pred = Linear(E, config.patch_dim)
        finish(self, weights)

    def forward(
        self, imgs: Array, noise: Array | None = None, mask_ratio: float = 0.75, out: dict[str, Array] | None = None
    ) -> tuple[Array, Array, Array]:
        """Mask, encode, decode and score a batch.

        imgs [N, C, height, width], normalised. noise [N, L]: each image keeps its patches of smallest noise;
        None draws it. Returns the loss [], the prediction [N, L, P] and the mask [N, L] (0 kept, 1 removed).
        """
        out = NoTaps() if out is None else out
        latent, mask, ids_restore = self.forward_encoder(imgs, noise, mask_ratio, out)
        pred = self.forward_decoder(latent, ids_restore, out)
        loss = self.forward_loss(imgs, pred, mask, out)
        return loss, pred, mask

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
        """Keep the K patches of smallest noise in each image, in the order of their noise."""
        N, L, D = x.shape
        K = keep_length(L, mask_ratio)
        noise = np.random.default_rng().random((N, L), np.float32) if noise is None else noise
        ids_shuffle = np.argsort(noise, axis=1, kind="stable")
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
        x = out["decoder_norm"] = self.decoder_norm(x)
        x = out["pred"] = self.decoder_pred(x)[:, 1:]
        return x

    def forward_loss(self, imgs: Array, pred: Array, mask: Array, out: dict[str, Array]) -> Array:
        """Mean squared error over the removed patches: of the pixels, or of each patch normalised (norm_pix_loss)."""
        target = self.patchify(imgs)
        if self.norm_pix_loss:
            mean = row_mean(target)
            var = unbiased_variance(target)  # unbiased, n - 1
            target = (target - mean) / (var + 1e-6) ** 0.5
        target = out["target"] = target
        loss = ((pred - target) ** 2).mean(axis=-1)  # [N, L]
        loss = out["loss"] = (loss * mask).sum() / mask.sum()
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
    """Classifier on the encoder (official `VisionTransformer`); pooling gap or cls."""

    def __init__(self, config: ViTConfig, weights: Weights | None = None):
        L, D = config.num_patches, config.embed_dim
        self.config = config
        self.cls_token = np.zeros((1, 1, D), np.float32)
        self.pos_embed = np.zeros((1, L + 1, D), np.float32)
        self.patch_embed = PatchEmbed(config.in_chans, D, config.patch_size)
        self.blocks = blocks(config.depth, D, config.num_heads, config.mlp_dim(D), config.norm_eps)
        if config.pooling == "cls":
            self.norm = LayerNorm(D, eps=config.norm_eps)
        self.head = Linear(D, config.num_classes)
        if config.pooling == "gap":
            self.fc_norm = LayerNorm(D, eps=config.norm_eps)
        finish(self, weights)

    def forward(self, imgs: Array, out: dict[str, Array] | None = None) -> Array:
        """imgs [N, C, height, width], normalised, to logits [N, classes]."""
        out = NoTaps() if out is None else out
        x = self.forward_features(imgs, out)
        x = out["logits"] = self.head(x)
        return x

    def forward_features(self, imgs: Array, out: dict[str, Array]) -> Array:
        """imgs [N, C, height, width] to the pooled features [N, D]."""
        x = out["patch_embed"] = self.patch_embed(imgs)  # [N, L, D]
        x = x + self.pos_embed[:, 1:]
        cls_token = self.cls_token + self.pos_embed[:, :1]
        x = out["tokens"] = np.concatenate([np.repeat(cls_token, x.shape[0], axis=0), x], axis=1)  # [N, L+1, D]
        for i, block in enumerate(self.blocks):
            x = block(x, out, f"blocks.{i}")
        if self.config.pooling == "gap":
            x = self.fc_norm(x[:, 1:].mean(axis=1))
        else:
            x = self.norm(x)[:, 0]
        x = out["latent"] = x
        return x

    def forward_loss(self, logits: Array, labels: Array, out: dict[str, Array]) -> Array:
        """Cross entropy of logits [N, classes] against labels [N]."""
        loss = out["loss"] = -log_softmax(logits)[np.arange(len(labels)), labels].mean()
        return loss
