"""What the models in model.py are made of, in MindSpore.

Shapes: N batch, L patches, K kept patches, T tokens, D width, E decoder width, H heads, P values in a patch.
The five blocks.py files read alike line for line, as the five model.py files do.
"""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from .workarounds import LayerNorm, PatchConv, constant, zeros


class PatchEmbed(nn.Cell):
    """Cut an image into patches and project each: a convolution whose stride is its kernel."""

    def __init__(self, in_chans: int, dim: int, patch_size: int):
        super().__init__()
        self.proj = PatchConv(in_chans, dim, patch_size)

    def construct(self, imgs: Tensor) -> Tensor:
        """imgs [N, C, height, width] to tokens [N, L, D]."""
        x = self.proj(imgs)  # [N, D, rows, columns]
        return x.flatten(2).swapaxes(1, 2)  # [N, L, D]


class Attention(nn.Cell):
    """Multi-head self-attention with one fused qkv matrix."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Dense(dim, 3 * dim)
        self.proj = nn.Dense(dim, dim)

    def construct(self, x: Tensor, out: dict[str, Tensor], name: str) -> Tensor:
        """x [N, T, D] to [N, T, D]."""
        N, T, D = x.shape
        x = out[f"{name}.qkv"] = self.qkv(x)  # [N, T, 3D]
        x = x.reshape(N, T, 3, self.num_heads, D // self.num_heads)
        q, k, v = x.permute(2, 0, 3, 1, 4).unbind()  # each [N, H, T, D/H]
        attn = q @ k.swapaxes(-2, -1) * constant(self.scale, x)  # [N, H, T, T]
        attn = out[f"{name}.softmax"] = ops.softmax(attn, axis=-1)
        x = (attn @ v).swapaxes(1, 2).reshape(N, T, D)
        x = out[f"{name}.proj"] = self.proj(x)
        return x


class Mlp(nn.Cell):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Dense(dim, hidden_dim)
        self.fc2 = nn.Dense(hidden_dim, dim)

    def construct(self, x: Tensor, out: dict[str, Tensor], name: str) -> Tensor:
        """x [N, T, D] to [N, T, D]."""
        x = out[f"{name}.fc1"] = self.fc1(x)  # [N, T, 4D]
        x = out[f"{name}.gelu"] = ops.gelu(x, approximate="none")
        x = out[f"{name}.fc2"] = self.fc2(x)
        return x


class Block(nn.Cell):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, norm_eps: float):
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, hidden_dim)

    def construct(self, x: Tensor, out: dict[str, Tensor], name: str, drop_path: Tensor | None = None) -> Tensor:
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


def blocks(depth: int, dim: int, num_heads: int, hidden_dim: int, norm_eps: float) -> nn.CellList:
    """A stack of equal blocks."""
    return nn.CellList([Block(dim, num_heads, hidden_dim, norm_eps) for _ in range(depth)])


class TransposedConv(nn.Cell):
    """A transposed convolution whose stride is its kernel: every patch by itself, as one matrix product."""

    def __init__(self, in_dim: int, out_chans: int, patch_size: int):
        super().__init__()
        self.weight = Parameter(zeros(in_dim, out_chans, patch_size, patch_size))
        self.bias = Parameter(zeros(out_chans))

    def construct(self, x: Tensor) -> Tensor:
        """x [N, L, in] to [N, L, P], each patch in the order row, column, channel."""
        N, L, _ = x.shape
        _, C, p, _ = self.weight.shape
        weight = self.weight.permute(0, 2, 3, 1).reshape(-1, p * p * C)  # from [in, C, p, p]
        x = (x @ weight).reshape(N, L, p * p, C) + self.bias
        return x.reshape(N, L, p * p * C)


class HeadNorm(nn.Cell):
    """Batch norm without scale and shift (the official linear probe's): by running statistics, in training by a batch's."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.mean = Parameter(zeros(dim), requires_grad=False)
        self.var = Parameter(zeros(dim), requires_grad=False)

    def construct(self, x: Tensor, statistics: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x [N, D] to [N, D]. statistics: mean and variance [D] to go by; None: the running ones."""
        mean, var = (self.mean, self.var) if statistics is None else statistics
        return (x - mean) / ops.sqrt(var + constant(self.eps, x))

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance [D] of a batch x [N, D]."""
        mean = x.mean(axis=0)
        centred = x - mean
        return mean, (centred * centred).mean(axis=0)

    def follow(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics a tenth of the way to those of a batch of `count` images, its variance unbiased."""
        old, new = constant(0.9, self.mean), constant(0.1, self.mean)
        unbiased = var * constant(count / (count - 1), self.var)
        ops.assign(self.mean, old * self.mean + new * mean)
        ops.assign(self.var, old * self.var + new * unbiased)


def raster_order(ids_shuffle: Tensor, K: int) -> Tensor:
    """The first image's K kept patches, then its removed ones, each in raster order, for the whole batch [N, L]."""
    N, L = ids_shuffle.shape
    removed = ops.argsort(ids_shuffle[:1], axis=1) >= K  # [1, L]
    order = ops.argsort(ops.arange(L) + L * removed.astype(ids_shuffle.dtype), axis=1)  # [1, L]
    return order.broadcast_to((N, -1))
