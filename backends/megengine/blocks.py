"""What the models in model.py are made of, in MegEngine.

Shapes: N batch, L patches, K kept patches, T tokens, D width, E decoder width, H heads, P values in a patch.
The five blocks.py files read alike line for line, as the five model.py files do.
"""

from __future__ import annotations

import megengine as mge
import megengine.functional as F
import megengine.module as M
from megengine import Tensor

from .workarounds import LayerNorm, PatchConv2d, arange, contiguous


class PatchEmbed(M.Module):
    """Cut an image into patches and project each: a convolution whose stride is its kernel."""

    def __init__(self, in_chans: int, dim: int, patch_size: int):
        super().__init__()
        self.proj = PatchConv2d(in_chans, dim, patch_size, stride=patch_size)

    def forward(self, imgs: Tensor) -> Tensor:
        """imgs [N, C, height, width] to tokens [N, L, D]."""
        x = self.proj(imgs)  # [N, D, rows, columns]
        return F.flatten(x, 2).transpose(0, 2, 1)  # [N, L, D]


class Attention(M.Module):
    """Multi-head self-attention with one fused qkv matrix."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = M.Linear(dim, 3 * dim)
        self.proj = M.Linear(dim, dim)

    def forward(self, x: Tensor, out: dict[str, Tensor], name: str) -> Tensor:
        """x [N, T, D] to [N, T, D]."""
        N, T, D = x.shape
        x = out[f"{name}.qkv"] = self.qkv(x)  # [N, T, 3D]
        x = x.reshape(N, T, 3, self.num_heads, D // self.num_heads)
        q, k, v = x.transpose(2, 0, 3, 1, 4)  # each [N, H, T, D/H]
        attn = q @ k.transpose(0, 1, 3, 2) * self.scale  # [N, H, T, T]
        attn = out[f"{name}.softmax"] = F.softmax(attn, axis=-1)
        x = (attn @ v).transpose(0, 2, 1, 3).reshape(N, T, D)
        x = out[f"{name}.proj"] = self.proj(x)
        return x


class Mlp(M.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = M.Linear(dim, hidden_dim)
        self.fc2 = M.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, out: dict[str, Tensor], name: str) -> Tensor:
        """x [N, T, D] to [N, T, D]."""
        x = out[f"{name}.fc1"] = self.fc1(x)  # [N, T, 4D]
        x = out[f"{name}.gelu"] = F.gelu(x)
        x = out[f"{name}.fc2"] = self.fc2(x)
        return x


class Block(M.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, norm_eps: float):
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, hidden_dim)

    def forward(self, x: Tensor, out: dict[str, Tensor], name: str, drop_path: Tensor | None = None) -> Tensor:
        """x [N, T, D] to [N, T, D]; drop_path [N, 2]: factors of attention and MLP, 0 or 1/keep (None: 1)."""
        y = out[f"{name}.norm1"] = self.norm1(x)
        y = self.attn(y, out, f"{name}.attn")
        if drop_path is not None:
            y = y * drop_path[:, :1, None]  # by [N, 1, 1]
        x = out[f"{name}.residual"] = x + y
        y = out[f"{name}.norm2"] = self.norm2(x)
        y = self.mlp(y, out, f"{name}.mlp")
        if drop_path is not None:
            y = y * drop_path[:, 1:, None]  # by [N, 1, 1]
        x = out[name] = x + y
        return x


def blocks(depth: int, dim: int, num_heads: int, hidden_dim: int, norm_eps: float) -> list[Block]:
    """A stack of equal blocks."""
    return [Block(dim, num_heads, hidden_dim, norm_eps) for _ in range(depth)]


class TransposedConv(M.Module):
    """A transposed convolution whose stride is its kernel: every patch by itself, as one matrix product."""

    def __init__(self, in_dim: int, out_chans: int, patch_size: int):
        super().__init__()
        self.weight = mge.Parameter(F.zeros((in_dim, out_chans, patch_size, patch_size)))
        self.bias = mge.Parameter(F.zeros((1, out_chans, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, L, in] to [N, L, P], each patch in the order row, column, channel."""
        N, L, _ = x.shape
        _, C, p, _ = self.weight.shape
        weight = self.weight.transpose(0, 2, 3, 1).reshape(-1, p * p * C)  # from [in, C, p, p]
        x = (x @ weight).reshape(N, L, p * p, C) + self.bias.reshape(-1)
        return x.reshape(N, L, p * p * C)


class HeadNorm(M.Module):
    """Batch norm without scale and shift (the official linear probe's): by running statistics, in training by a batch's."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.mean = mge.Parameter(F.zeros((dim,)))
        self.var = mge.Parameter(F.zeros((dim,)))

    def forward(self, x: Tensor, statistics: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x [N, D] to [N, D]. statistics: mean and variance [D] to go by; None: the running ones."""
        mean, var = (self.mean, self.var) if statistics is None else statistics
        return (contiguous(x) - mean) / F.sqrt(var + self.eps)

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance [D] of a batch x [N, D]."""
        mean = F.mean(contiguous(x), axis=0)
        centred = contiguous(x) - mean
        return mean, F.mean(centred * centred, axis=0)

    def follow(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics a tenth of the way to those of a batch of `count` images, its variance unbiased."""
        old, new = 0.9, 0.1
        unbiased = var * (count / (count - 1))
        self.mean._reset(old * self.mean + new * mean)
        self.var._reset(old * self.var + new * unbiased)


def raster_order(ids_shuffle: Tensor, K: int) -> Tensor:
    """The first image's K kept patches, then its removed ones, each in raster order, for the whole batch [N, L]."""
    N, L = ids_shuffle.shape
    removed = F.argsort(ids_shuffle[:1]) >= K  # [1, L]
    order = F.argsort(arange(L, ids_shuffle) + L * removed.astype("int32"))  # [1, L]
    return F.broadcast_to(order, (N, L))
