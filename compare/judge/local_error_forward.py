"""What each operation of the forward pass should have given, in float64, for the inputs that a run had."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.numpy.backward import heads
from ...backends.numpy.blocks import Attention, Block
from ...backends.numpy.layers import gelu, softmax
from ...backends.numpy.model import MAE, ViT
from ..trace import TraceProblem

Array = NDArray[Any]
Own = Mapping[str, Array]
Step = tuple[str, Callable[[], Array]]  # a tap, and its value from those before it


def forward_expected(own: Own, model: MAE | ViT, mask_ratio: float) -> Iterator[tuple[str, Array]]:
    """Tap name and expected value, in the order of the forward pass; without those that lack an input."""
    steps = _mae(own, model, mask_ratio) if isinstance(model, MAE) else _vit(own, model)
    for name, compute in steps:
        try:
            expected = compute()
        except (TraceProblem, IndexError):  # a label may be out of range
            continue
        yield name, expected


def _mae(own: Own, model: MAE, mask_ratio: float) -> Iterator[Step]:
    yield "patch_embed", lambda: model.patch_embed(own["input/imgs"])
    yield "pos_embed", lambda: own["patch_embed"] + model.pos_embed[:, 1:]
    yield "ids_restore", lambda: _masked(own, model, own["input/noise"], mask_ratio)["ids_restore"]
    # The order of ids_restore is that of the noise.
    yield "mask", lambda: _masked(own, model, own["ids_restore"], mask_ratio)["mask"]
    yield "tokens", lambda: _with_class_token(model, _masked(own, model, own["ids_restore"], mask_ratio)["kept"])
    yield from _stack(own, model.blocks, "blocks", "tokens")
    yield "latent", lambda: model.norm(own[f"blocks.{len(model.blocks) - 1}"])
    yield "decoder_embed", lambda: model.decoder_embed(own["latent"])
    yield "decoder_tokens", lambda: _decoder_tokens(own, model)
    yield from _stack(own, model.decoder_blocks, "decoder_blocks", "decoder_tokens")
    last = f"decoder_blocks.{len(model.decoder_blocks) - 1}"
    if model.config.decoder_norm:
        yield "decoder_norm", lambda: model.decoder_norm(own[last])
        last = "decoder_norm"
    if model.config.head == "linear":
        yield "pred", lambda: model.decoder_pred(own[last])[:, 1:]
    else:
        yield "decoder_pred", lambda: model.decoder_pred(own[last])[:, 1:]
        yield "patch_norm", lambda: model.patch_norm(own["decoder_pred"])
        yield "pred", lambda: model.unconv(own["patch_norm"])
    yield from _loss(own, model, "", model.config.norm_pix_loss)
    yield from _loss(own, model, "pixel.", False)
    yield from _loss(own, model, "norm_pix.", True)


def _masked(own: Own, model: MAE, noise: Array, mask_ratio: float) -> dict[str, Array]:
    out: dict[str, Array] = {}
    out["kept"], _, _ = model.random_masking(own["pos_embed"], noise, mask_ratio, out)
    return out


def _with_class_token(model: MAE | ViT, x: Array) -> Array:
    cls_token = np.repeat(model.cls_token + model.pos_embed[:, :1], len(x), axis=0)
    return np.concatenate([cls_token, x], axis=1)


def _decoder_tokens(own: Own, model: MAE) -> Array:
    x, ids_restore = own["decoder_embed"], own["ids_restore"]
    (N, L), E = ids_restore.shape, x.shape[-1]
    removed = np.broadcast_to(model.mask_token, (N, L + 1 - x.shape[1], E))
    patches = np.take_along_axis(np.concatenate([x[:, 1:], removed], axis=1), ids_restore[:, :, None], axis=1)
    tokens: Array = np.concatenate([x[:, :1], patches], axis=1) + model.decoder_pos_embed
    return tokens


def _loss(own: Own, model: MAE, kind: str, norm_pix_loss: bool) -> Iterator[Step]:
    def scored(name: str, imgs: Array, normalised: bool) -> Array:
        out: dict[str, Array] = {}
        model.norm_pix_loss = normalised
        model.forward_loss(imgs, own["pred"], own["mask"], out)
        model.norm_pix_loss = model.config.norm_pix_loss
        return out[name]

    yield f"{kind}target", lambda: scored("target", own["input/imgs"], norm_pix_loss)
    # Its own target, as an image whose pixels are not to be normalised any more.
    yield f"{kind}loss", lambda: scored("loss", model.unpatchify(own[f"{kind}target"]), False)


def _vit(own: Own, model: ViT) -> Iterator[Step]:
    yield "patch_embed", lambda: model.patch_embed(own["input/imgs"])
    yield "tokens", lambda: _with_class_token(model, own["patch_embed"] + model.pos_embed[:, 1:])
    yield from _stack(own, model.blocks, "blocks", "tokens")
    yield "latent", lambda: _pooled(own[f"blocks.{len(model.blocks) - 1}"], model)
    if model.config.head_norm:
        yield "head_norm", lambda: model.head_norm(own["latent"])
    yield "logits", lambda: model.head(own["head_norm" if model.config.head_norm else "latent"])
    yield "loss", lambda: model.forward_loss(own["logits"], own["input/labels"], {})


def _pooled(x: Array, model: ViT) -> Array:
    pooled: Array
    if model.config.pooling == "gap":
        pooled = model.fc_norm(x[:, 1:].mean(axis=1))
    else:
        x = model.norm(x)
        pooled = x[:, 0] if model.config.pooling == "cls" else x.mean(axis=1)
    return pooled


def _stack(own: Own, blocks: list[Block], name: str, tokens: str) -> Iterator[Step]:
    for i, block in enumerate(blocks):
        yield from _block(own, block, f"{name}.{i}", f"{name}.{i - 1}" if i else tokens)


def _block(own: Own, block: Block, name: str, x: str) -> Iterator[Step]:
    yield f"{name}.norm1", lambda: block.norm1(own[x])
    yield f"{name}.attn.qkv", lambda: block.attn.qkv(own[f"{name}.norm1"])
    yield f"{name}.attn.softmax", lambda: softmax(_scores(block.attn, own[f"{name}.attn.qkv"]))
    yield f"{name}.attn.proj", lambda: _mixed(block.attn, own[f"{name}.attn.softmax"], own[f"{name}.attn.qkv"])
    yield f"{name}.residual", lambda: own[x] + own[f"{name}.attn.proj"]
    yield f"{name}.norm2", lambda: block.norm2(own[f"{name}.residual"])
    yield f"{name}.mlp.fc1", lambda: block.mlp.fc1(own[f"{name}.norm2"])
    yield f"{name}.mlp.gelu", lambda: gelu(own[f"{name}.mlp.fc1"])
    yield f"{name}.mlp.fc2", lambda: block.mlp.fc2(own[f"{name}.mlp.gelu"])
    yield name, lambda: own[f"{name}.residual"] + own[f"{name}.mlp.fc2"]


def _scores(attn: Attention, qkv: Array) -> Array:
    q, k, _ = heads(attn, qkv)
    scores: Array = np.matmul(q, k.swapaxes(-2, -1)) * attn.scale
    return scores


def _mixed(attn: Attention, weights: Array, qkv: Array) -> Array:
    N, T, width = qkv.shape
    mixed: Array = attn.proj(np.matmul(weights, heads(attn, qkv)[2]).swapaxes(1, 2).reshape(N, T, width // 3))
    return mixed
