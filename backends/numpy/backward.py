"""The backward pass by hand: every gradient from the taps of a forward pass, with no automatic differentiation.

Each function mirrors one of model.py. `dy` is the gradient of the loss for a layer's output, and what is returned
is that for its input; parameters' gradients are put into `grads` under their names.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtr

from .layers import Array, LayerNorm, Linear, matmul, patch_columns, softmax
from .model import MAE, ViT
from .parts import Attention, Block, HeadNorm, Mlp, TransposedConv

Grads = dict[str, Array]
Taps = Mapping[str, Array]


def gradients(model: MAE | ViT, inputs: Mapping[str, Array], out: Taps) -> Grads:
    """The gradient of the loss for every parameter of the model, from the inputs and taps of its forward pass."""
    grads: Grads = {}
    if isinstance(model, MAE):
        _mae(model, inputs["imgs"], out, grads)
    else:
        _vit(model, inputs["imgs"], inputs["labels"], out, grads)
    return grads


def _linear(layer: Linear, x: Array, dy: Array, grads: Grads, name: str) -> Array:
    rows = dy.reshape(-1, dy.shape[-1])
    grads[f"{name}.weight"] = matmul(rows.T, x.reshape(-1, x.shape[-1]))
    grads[f"{name}.bias"] = rows.sum(axis=0)
    return matmul(dy, layer.weight)


def _layer_norm(layer: LayerNorm, x: Array, dy: Array, grads: Grads, name: str) -> Array:
    x_hat, rstd = layer.normalised(x)
    axes = tuple(range(x.ndim - 1))
    grads[f"{name}.weight"] = (dy * x_hat).sum(axis=axes)
    grads[f"{name}.bias"] = dy.sum(axis=axes)
    dy = dy * layer.weight
    # The mean and the variance depend on x too: their share of the gradient is taken away.
    return rstd * (dy - dy.mean(axis=-1, keepdims=True) - x_hat * (dy * x_hat).mean(axis=-1, keepdims=True))


def _head_norm(layer: HeadNorm, x: Array, dy: Array, grads: Grads, name: str) -> Array:
    rstd = 1 / np.sqrt(layer.var + layer.eps)
    dx = dy * rstd
    grads[f"{name}.mean"] = -dx.sum(axis=0)
    grads[f"{name}.var"] = -(dx * (x - layer.mean)).sum(axis=0) * rstd**2 / 2
    return dx


def _transposed_conv(layer: TransposedConv, x: Array, dy: Array, grads: Grads, name: str) -> Array:
    Q, C, p, _ = layer.weight.shape  # Q values in, p*p*C out
    weight = layer.weight.transpose(0, 2, 3, 1)  # [Q, p, p, C], as the patch's values are ordered
    rows = dy.reshape(-1, dy.shape[-1])
    gradient = matmul(x.reshape(-1, Q).T, rows).reshape(weight.shape)
    grads[f"{name}.weight"] = gradient.transpose(0, 3, 1, 2)
    grads[f"{name}.bias"] = rows.reshape(-1, C).sum(axis=0)
    return matmul(dy, weight.reshape(Q, -1).T)


def _gelu(x: Array, dy: Array) -> Array:
    density = np.exp(-x * x / 2) / float(np.sqrt(2 * np.pi))
    return dy * (ndtr(x) + x * density)


def _softmax(y: Array, dy: Array) -> Array:
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def _attention(layer: Attention, x: Array, dy: Array, out: Taps, grads: Grads, name: str) -> Array:
    N, T, D = x.shape
    qkv = out[f"{name}.qkv"].reshape(N, T, 3, layer.num_heads, D // layer.num_heads)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each [N, H, T, D/H]
    attn = out[f"{name}.softmax"]  # [N, H, T, T]
    mixed = matmul(attn, v).swapaxes(1, 2).reshape(N, T, D)
    dy = _linear(layer.proj, mixed, dy, grads, f"{name}.proj")
    dy = dy.reshape(N, T, layer.num_heads, -1).swapaxes(1, 2)  # [N, H, T, D/H]
    scores = _softmax(attn, matmul(dy, v.swapaxes(-2, -1))) * layer.scale
    parts = [matmul(scores, k), matmul(scores.swapaxes(-2, -1), q), matmul(attn.swapaxes(-2, -1), dy)]
    dqkv = np.stack(parts).transpose(1, 3, 0, 2, 4).reshape(N, T, 3 * D)  # from [3, N, H, T, D/H]
    return _linear(layer.qkv, x, dqkv, grads, f"{name}.qkv")


def _mlp(layer: Mlp, x: Array, dy: Array, out: Taps, grads: Grads, name: str) -> Array:
    dy = _linear(layer.fc2, out[f"{name}.gelu"], dy, grads, f"{name}.fc2")
    dy = _gelu(out[f"{name}.fc1"], dy)
    return _linear(layer.fc1, x, dy, grads, f"{name}.fc1")


def _block(block: Block, x: Array, dy: Array, out: Taps, grads: Grads, name: str) -> Array:
    inner = _mlp(block.mlp, out[f"{name}.norm2"], dy, out, grads, f"{name}.mlp")
    dy = dy + _layer_norm(block.norm2, out[f"{name}.residual"], inner, grads, f"{name}.norm2")
    inner = _attention(block.attn, out[f"{name}.norm1"], dy, out, grads, f"{name}.attn")
    return dy + _layer_norm(block.norm1, x, inner, grads, f"{name}.norm1")


def _blocks(blocks: list[Block], tokens: Array, dy: Array, out: Taps, grads: Grads, name: str) -> Array:
    for i in reversed(range(len(blocks))):
        x = out[f"{name}.{i - 1}"] if i else tokens
        dy = _block(blocks[i], x, dy, out, grads, f"{name}.{i}")
    return dy


def _last(out: Taps, name: str, blocks: list[Block]) -> Array:
    return out[f"{name}.{len(blocks) - 1}"]


def _patch_embed(model: MAE | ViT, imgs: Array, dy: Array, grads: Grads) -> None:
    """dy [N, L, D]: patch_embed and its positions are the first of the model, nothing is passed on."""
    proj = model.patch_embed.proj
    grads["pos_embed"] = np.concatenate([grads["cls_token"], dy.sum(axis=0, keepdims=True)], axis=1)
    x = patch_columns(imgs, proj.weight.shape[-1])
    weight = matmul(dy.reshape(-1, dy.shape[-1]).T, x.reshape(-1, x.shape[-1]))
    grads["patch_embed.proj.weight"] = weight.reshape(proj.weight.shape)
    grads["patch_embed.proj.bias"] = dy.sum(axis=(0, 1))


def _mae(model: MAE, imgs: Array, out: Taps, grads: Grads) -> None:
    pred, mask, ids_restore = out["pred"], out["mask"], out["ids_restore"]
    patches = mask.sum() if model.config.loss_over == "removed" else mask.size
    dy = 2 * (pred - out["target"]) * (mask / (patches * pred.shape[-1]))[:, :, None]
    if model.config.head == "conv":
        dy = _transposed_conv(model.unconv, out["patch_norm"], dy, grads, "unconv")
        dy = _layer_norm(model.patch_norm, out["decoder_pred"], dy, grads, "patch_norm")
    dy = np.concatenate([np.zeros_like(dy[:, :1]), dy], axis=1)  # the class token predicts nothing
    last = _last(out, "decoder_blocks", model.decoder_blocks)
    x = out["decoder_norm"] if model.config.decoder_norm else last
    dy = _linear(model.decoder_pred, x, dy, grads, "decoder_pred")
    if model.config.decoder_norm:
        dy = _layer_norm(model.decoder_norm, last, dy, grads, "decoder_norm")
    dy = _blocks(model.decoder_blocks, out["decoder_tokens"], dy, out, grads, "decoder_blocks")
    grads["decoder_pos_embed"] = dy.sum(axis=0, keepdims=True)

    K = out["latent"].shape[1] - 1
    ids_shuffle = np.argsort(ids_restore, axis=1)
    patches = np.take_along_axis(dy[:, 1:], ids_shuffle[:, :, None], axis=1)  # back into shuffled order
    grads["mask_token"] = patches[:, K:].sum(axis=(0, 1))[None, None]
    dy = np.concatenate([dy[:, :1], patches[:, :K]], axis=1)
    dy = _linear(model.decoder_embed, out["latent"], dy, grads, "decoder_embed")

    dy = _layer_norm(model.norm, _last(out, "blocks", model.blocks), dy, grads, "norm")
    dy = _blocks(model.blocks, out["tokens"], dy, out, grads, "blocks")
    grads["cls_token"] = dy[:, :1].sum(axis=0, keepdims=True)
    kept = dy[:, 1:]
    dy = np.zeros_like(out["pos_embed"])
    np.put_along_axis(dy, ids_shuffle[:, :K, None], kept, axis=1)  # removed patches get no gradient
    _patch_embed(model, imgs, dy, grads)


def _vit(model: ViT, imgs: Array, labels: Array, out: Taps, grads: Grads) -> None:
    dy = softmax(out["logits"])
    dy[np.arange(len(labels)), labels] -= 1
    x = out["head_norm"] if model.config.head_norm else out["latent"]
    dy = _linear(model.head, x, dy / len(labels), grads, "head")  # [N, D]
    if model.config.head_norm:
        dy = _head_norm(model.head_norm, out["latent"], dy, grads, "head_norm")
    x = _last(out, "blocks", model.blocks)
    if model.config.pooling == "gap":
        dy = _layer_norm(model.fc_norm, x[:, 1:].mean(axis=1), dy, grads, "fc_norm")
        patches = np.repeat(dy[:, None] / (x.shape[1] - 1), x.shape[1] - 1, axis=1)
        dy = np.concatenate([np.zeros_like(x[:, :1]), patches], axis=1)
    else:
        if model.config.pooling == "cls":
            dy = np.concatenate([dy[:, None], np.zeros_like(x[:, 1:])], axis=1)
        else:
            dy = np.repeat(dy[:, None] / x.shape[1], x.shape[1], axis=1)
        dy = _layer_norm(model.norm, x, dy, grads, "norm")
    dy = _blocks(model.blocks, out["tokens"], dy, out, grads, "blocks")
    grads["cls_token"] = dy[:, :1].sum(axis=0, keepdims=True)
    _patch_embed(model, imgs, dy[:, 1:], grads)
