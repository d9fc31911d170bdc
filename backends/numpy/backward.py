"""The backward pass by hand: every gradient from the taps of a forward pass, with no automatic differentiation.

Each function mirrors one of model.py or blocks.py. `dy` is the gradient of the loss for a layer's output, and what is
returned is that for its input; parameters' gradients are put into `grads` under their names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
from scipy.special import ndtr

from .blocks import Attention, Block, HeadNorm, TransposedConv
from .layers import LayerNorm, Linear, patch_columns, softmax
from .model import MAE, ViT
from .sums import Array, matmul

Grads = dict[str, Array]
Taps = Mapping[str, Array]
Step = tuple[str, Callable[[], Array]]  # a tap, and how to compute the gradient for it from those behind it


def gradients(model: MAE | ViT, inputs: Taps, out: Taps, dys: Grads, wanted: Collection[str] | None = None) -> Grads:
    """The loss's gradient for every parameter, by name, from the inputs and taps of a forward pass.

    dys: takes the gradients for the taps, each when it is computed; those in front of it start from what dys then holds.
    wanted: parameters behind which the pass may end; None: it goes to the image.
    """
    out = {**out, **{f"input/{name}": array for name, array in inputs.items()}}
    grads: Grads = {}
    for name, compute in steps(model, dys, out, grads):
        dys[name] = compute()
        if wanted is not None and grads.keys() >= set(wanted):
            break
    return grads


def steps(model: MAE | ViT, dys: Taps, out: Taps, grads: Grads) -> Iterator[Step]:
    """The backward pass operation by operation, in the order of gradient_taps and then patch_embed.

    dys: the gradients for the taps behind; out: the taps of the forward pass, and the model's inputs as `input/<name>`.
    Each operation is computed when it is called, and puts its own parameters' gradients into grads.
    """
    yield from _mae(model, dys, out, grads) if isinstance(model, MAE) else _vit(model, dys, out, grads)


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


def _batch_norm(layer: HeadNorm, out: Taps, dy: Array) -> Array:
    rstd = 1 / np.sqrt(out["head_norm.var"] + layer.eps)
    x_hat = out["head_norm"]
    return rstd * (dy - dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0))


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


def _mixed(layer: Attention, out: Taps, dys: Taps, grads: Grads, name: str) -> Array:
    """From the attention's output to the values that softmax mixed, [N, H, T, D/H]."""
    v = heads(layer, out[f"{name}.attn.qkv"])[2]
    mixed = matmul(out[f"{name}.attn.softmax"], v).swapaxes(1, 2)
    dy = _branch(dys[f"{name}.residual"], out, name, 0)
    dy = _linear(layer.proj, mixed.reshape(dy.shape), dy, grads, f"{name}.attn.proj")
    return dy.reshape(mixed.shape).swapaxes(1, 2)


def heads(layer: Attention, qkv: Array) -> Array:
    """qkv [N, T, 3D] to queries, keys and values [3, N, H, T, D/H]."""
    N, T, width = qkv.shape
    x = qkv.reshape(N, T, 3, layer.num_heads, width // 3 // layer.num_heads)
    return x.transpose(2, 0, 3, 1, 4)


def _attn_softmax(layer: Attention, out: Taps, dys: Taps, grads: Grads, name: str) -> Array:
    v = heads(layer, out[f"{name}.attn.qkv"])[2]
    return matmul(_mixed(layer, out, dys, grads, name), v.swapaxes(-2, -1))


def _attn_qkv(layer: Attention, out: Taps, dys: Taps, name: str) -> Array:
    qkv, attn = out[f"{name}.attn.qkv"], out[f"{name}.attn.softmax"]
    q, k, _ = heads(layer, qkv)
    scores = _softmax(attn, dys[f"{name}.attn.softmax"]) * layer.scale
    mixed = _mixed(layer, out, dys, {}, name)
    parts = [matmul(scores, k), matmul(scores.swapaxes(-2, -1), q), matmul(attn.swapaxes(-2, -1), mixed)]
    return np.stack(parts).transpose(1, 3, 0, 2, 4).reshape(qkv.shape)  # from [3, N, H, T, D/H]


def _branch(dy: Array, out: Taps, name: str, place: int) -> Array:
    """From a block's sum to one of its branches, attention (0) or MLP (1): times that branch's factors of drop path."""
    stack, _, i = name.rpartition(".")
    if stack != "blocks" or "input/drop_path" not in out:
        return dy
    return dy * out["input/drop_path"][:, int(i), place, None, None]


def _block(block: Block, x: str, dys: Taps, out: Taps, grads: Grads, name: str) -> Iterator[Step]:
    attn, mlp = block.attn, block.mlp
    fc1, fc2, gelu = f"{name}.mlp.fc1", f"{name}.mlp.fc2", f"{name}.mlp.gelu"
    norm1, norm2, qkv, residual = f"{name}.norm1", f"{name}.norm2", f"{name}.attn.qkv", f"{name}.residual"
    yield gelu, lambda: _linear(mlp.fc2, out[gelu], _branch(dys[name], out, name, 1), grads, fc2)
    yield fc1, lambda: _gelu(out[fc1], dys[gelu])
    yield norm2, lambda: _linear(mlp.fc1, out[norm2], dys[fc1], grads, fc1)
    yield residual, lambda: dys[name] + _layer_norm(block.norm2, out[residual], dys[norm2], grads, norm2)
    yield f"{name}.attn.softmax", lambda: _attn_softmax(attn, out, dys, grads, name)
    yield qkv, lambda: _attn_qkv(attn, out, dys, name)
    yield norm1, lambda: _linear(attn.qkv, out[norm1], dys[qkv], grads, qkv)
    yield x, lambda: dys[residual] + _layer_norm(block.norm1, out[x], dys[norm1], grads, norm1)


def _blocks(blocks: list[Block], tokens: str, dys: Taps, out: Taps, grads: Grads, name: str) -> Iterator[Step]:
    for i in reversed(range(len(blocks))):
        yield from _block(blocks[i], f"{name}.{i - 1}" if i else tokens, dys, out, grads, f"{name}.{i}")


def _mae(model: MAE, dys: Taps, out: Taps, grads: Grads) -> Iterator[Step]:
    config = model.config
    last, top = f"blocks.{config.depth - 1}", f"decoder_blocks.{config.decoder_depth - 1}"
    yield "pred", lambda: _mae_loss(model, out)
    head = "pred"
    if config.head == "conv":
        yield "patch_norm", lambda: _transposed_conv(model.unconv, out["patch_norm"], dys["pred"], grads, "unconv")
        yield (
            "decoder_pred",
            lambda: _layer_norm(model.patch_norm, out["decoder_pred"], dys["patch_norm"], grads, "patch_norm"),
        )
        head = "decoder_pred"
    x = "decoder_norm" if config.decoder_norm else top
    yield x, lambda: _decoder_pred(model, out[x], dys[head], grads)
    if config.decoder_norm:
        yield top, lambda: _layer_norm(model.decoder_norm, out[top], dys["decoder_norm"], grads, "decoder_norm")
    yield from _blocks(model.decoder_blocks, "decoder_tokens", dys, out, grads, "decoder_blocks")
    yield "decoder_embed", lambda: _shuffled(out, dys["decoder_tokens"], grads)
    yield "latent", lambda: _linear(model.decoder_embed, out["latent"], dys["decoder_embed"], grads, "decoder_embed")
    yield last, lambda: _layer_norm(model.norm, out[last], dys["latent"], grads, "norm")
    yield from _blocks(model.blocks, "tokens", dys, out, grads, "blocks")
    yield "pos_embed", lambda: _scattered(out, dys["tokens"], grads)
    yield "patch_embed", lambda: _patch_embed(model, out["input/imgs"], dys["tokens"], dys["pos_embed"], grads)


def _mae_loss(model: MAE, out: Taps) -> Array:
    pred, mask = out["pred"], out["mask"]
    patches = mask.sum() if model.config.loss_over == "removed" else mask.size
    return 2 * (pred - out["target"]) * (mask / (patches * pred.shape[-1]))[:, :, None]


def _decoder_pred(model: MAE, x: Array, dy: Array, grads: Grads) -> Array:
    dy = np.concatenate([np.zeros_like(dy[:, :1]), dy], axis=1)  # the class token predicts nothing
    return _linear(model.decoder_pred, x, dy, grads, "decoder_pred")


def _shuffled(out: Taps, dy: Array, grads: Grads) -> Array:
    """Back into the shuffled order, without the mask tokens: [N, L+1, E] to [N, K+1, E]."""
    grads["decoder_pos_embed"] = dy.sum(axis=0, keepdims=True)
    K = out["latent"].shape[1] - 1
    ids_shuffle = np.argsort(out["ids_restore"], axis=1)
    patches = np.take_along_axis(dy[:, 1:], ids_shuffle[:, :, None], axis=1)
    grads["mask_token"] = patches[:, K:].sum(axis=(0, 1))[None, None]
    return np.concatenate([dy[:, :1], patches[:, :K]], axis=1)


def _scattered(out: Taps, dy: Array, grads: Grads) -> Array:
    """From the kept patches to all of them, [N, K+1, D] to [N, L, D]: removed ones get no gradient."""
    grads["cls_token"] = dy[:, :1].sum(axis=0, keepdims=True)
    ids_shuffle = np.argsort(out["ids_restore"], axis=1)
    dx = np.zeros((*ids_shuffle.shape, dy.shape[-1]), dy.dtype)
    np.put_along_axis(dx, ids_shuffle[:, : dy.shape[1] - 1, None], dy[:, 1:], axis=1)
    return dx


def _patch_embed(model: MAE | ViT, imgs: Array, tokens: Array, dy: Array, grads: Grads) -> Array:
    """dy [N, L, D], for patch_embed with and without its positions; tokens: the gradient for the tap of that name."""
    proj = model.patch_embed.proj
    cls_token = tokens[:, :1].sum(axis=0, keepdims=True)
    grads["pos_embed"] = np.concatenate([cls_token, dy.sum(axis=0, keepdims=True)], axis=1)
    x = patch_columns(imgs, proj.weight.shape[-1])
    weight = matmul(dy.reshape(-1, dy.shape[-1]).T, x.reshape(-1, x.shape[-1]))
    grads["patch_embed.proj.weight"] = weight.reshape(proj.weight.shape)
    grads["patch_embed.proj.bias"] = dy.sum(axis=(0, 1))
    return dy


def _vit(model: ViT, dys: Taps, out: Taps, grads: Grads) -> Iterator[Step]:
    last = f"blocks.{model.config.depth - 1}"
    targets = "input/targets" if "input/targets" in out else "input/labels"
    yield "logits", lambda: _cross_entropy(out["logits"], out[targets])
    x = "head_norm" if model.config.head_norm else "latent"
    yield x, lambda: _linear(model.head, out[x], dys["logits"], grads, "head")  # [N, D]
    if model.config.head_norm and "head_norm.var" in out:  # in training
        yield "latent", lambda: _batch_norm(model.head_norm, out, dys["head_norm"])
    elif model.config.head_norm:
        yield "latent", lambda: _head_norm(model.head_norm, out["latent"], dys["head_norm"], grads, "head_norm")
    yield last, lambda: _pooling(model, out[last], dys["latent"], grads)
    yield from _blocks(model.blocks, "tokens", dys, out, grads, "blocks")
    yield "patch_embed", lambda: _vit_stem(model, out["input/imgs"], dys["tokens"], grads)


def _cross_entropy(logits: Array, targets: Array) -> Array:
    """targets: labels [N], or soft targets [N, classes], whose sum need not be 1."""
    dx = softmax(logits)
    if targets.ndim == 2:
        dx = dx * targets.sum(axis=-1, keepdims=True) - targets
    else:
        dx[np.arange(len(targets)), targets] -= 1
    return dx / len(targets)


def _pooling(model: ViT, x: Array, dy: Array, grads: Grads) -> Array:
    if model.config.pooling == "gap":
        dy = _layer_norm(model.fc_norm, x[:, 1:].mean(axis=1), dy, grads, "fc_norm")
        patches = np.repeat(dy[:, None] / (x.shape[1] - 1), x.shape[1] - 1, axis=1)
        return np.concatenate([np.zeros_like(x[:, :1]), patches], axis=1)
    if model.config.pooling == "cls":
        dy = np.concatenate([dy[:, None], np.zeros_like(x[:, 1:])], axis=1)
    else:
        dy = np.repeat(dy[:, None] / x.shape[1], x.shape[1], axis=1)
    return _layer_norm(model.norm, x, dy, grads, "norm")


def _vit_stem(model: ViT, imgs: Array, dy: Array, grads: Grads) -> Array:
    grads["cls_token"] = dy[:, :1].sum(axis=0, keepdims=True)
    return _patch_embed(model, imgs, dy, dy[:, 1:], grads)
