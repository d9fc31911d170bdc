"""The level loss: the model's own, and masking and loss alone, on arrays that are given, so that nothing before them blurs them.

Every array is made of Philox's raw numbers, which are the same in every version of NumPy, and is exact in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends import spec
from ...backends.config import Config, MAEConfig, ViTConfig, keep_length
from ...backends.runtime import Runtime
from ...backends.spec import Tap, loss_taps
from ...files.errors import Problem
from . import forward
from .subject import Named, Subject

MASK_RATIOS = (0.5, 0.75, 0.9)
BATCH = 2
# Values of the faint patch: of a variance like the 1e-6 that norm_pix adds to it.
FAINT = 2.0**-10
# Added to all logits of an example. It changes no loss, but overflows or underflows an exponential taken before the
# largest logit is subtracted.
SHIFTS = (0, 0, 100, -200)

Arrays = dict[str, NDArray[Any]]


def taps(config: Config) -> Iterator[Tap]:
    """The targets and losses of the pass, then those of the arrays that are given."""
    yield from (tap for tap in (*spec.taps(config), *loss_taps(config)) if forward.is_loss(tap))
    yield from injected_taps(config)


def record(subject: Subject) -> Iterator[Named]:
    """What `taps` lists; the pass is recorded with every tap that it has."""
    yield from forward.record(subject)
    yield from injected_losses(subject.runtime, subject.model, "targets" in subject.inputs)


def injected_taps(config: Config) -> Iterator[Tap]:
    """What `injected_losses` records, in its order."""
    if isinstance(config, ViTConfig):
        yield Tap("injected/loss", "cross entropy")  # []
        return
    for ratio in usable_ratios(config):
        yield Tap(f"injected/{ratio}/ids_restore", "argsort", exact=True)  # [N, L]
        yield Tap(f"injected/{ratio}/kept", "gather", exact=True)  # [N, K, 2]
        yield Tap(f"injected/{ratio}/mask", "compare", exact=True)  # [N, L]
        for tap in loss_taps(config):
            yield Tap(f"injected/{ratio}/{tap.name}", tap.operation)


def injected_losses(runtime: Runtime, model: Any, soft: bool = False) -> Iterator[tuple[str, NDArray[Any]]]:
    """Masking and both losses of an autoencoder at every ratio, or the loss of a classifier, by tap name. soft: of its targets.

    The mask that the loss gets is NumPy's, not that of the model's masking, so that neither's fault shows in the other.
    """
    config: Config = model.config
    arrays = injected_arrays(config, soft)
    tensors = {name: runtime.from_numpy(array, model) for name, array in arrays.items()}
    if isinstance(config, ViTConfig):
        yield "injected/loss", runtime.to_numpy(model.forward_loss(tensors["logits"], tensors["targets"], {}))
        return
    for ratio in usable_ratios(config):
        masked: dict[str, Any] = {}
        kept, mask, ids_restore = model.random_masking(tensors["tokens"], tensors["noise"], ratio, masked)
        for name, tensor in (("ids_restore", ids_restore), ("kept", kept), ("mask", mask)):
            yield f"injected/{ratio}/{name}", runtime.to_numpy(tensor)
        removed = runtime.from_numpy(mask_of(arrays["noise"], ratio, config), model)
        for kind, norm_pix_loss in (("pixel", False), ("norm_pix", True)):
            scored = _scored(model, norm_pix_loss, tensors["imgs"], tensors["pred"], removed)
            for name in ("target", "loss"):
                yield f"injected/{ratio}/{kind}.{name}", runtime.to_numpy(scored[name])


def usable_ratios(config: MAEConfig) -> tuple[float, ...]:
    """Those of MASK_RATIOS at which the model keeps a patch and removes one: with few patches not all of them."""
    return tuple(ratio for ratio in MASK_RATIOS if 0 < _kept(config.num_patches, ratio) < config.num_patches)


def _kept(num_patches: int, ratio: float) -> int:
    try:
        return keep_length(num_patches, ratio)
    except Problem:  # it would keep none
        return 0


def injected_arrays(config: Config, soft: bool = False) -> Arrays:
    """What is injected. An autoencoder's: imgs [N, C, height, width] with a faint patch of variance near 1e-6 and a
    constant one, pred [N, L, P] of the targets' size, noise [N, L] without ties, and tokens [N, L, 2] that hold their
    own numbers (both exact in bfloat16 up to 256 patches). A classifier's: logits [4, classes] and labels [4] as targets;
    soft: targets [4, classes], whose sums are 1.
    """
    if isinstance(config, ViTConfig):
        logits = 8 * _uniform(1, len(SHIFTS), config.num_classes) + np.array(SHIFTS, np.float32)[:, None]
        labels = np.random.Philox(2).random_raw(len(SHIFTS)) % np.uint64(config.num_classes)
        targets = labels.astype(np.int64)
        if soft:
            parts = np.array([0.5, 0.75, 0.875, 1], np.float32)[:, None]
            whole = np.eye(config.num_classes, dtype=np.float32)[targets]
            return {"logits": logits.astype(np.float32), "targets": parts * whole + (1 - parts) / config.num_classes}
        return {"logits": logits.astype(np.float32), "targets": targets}
    L, P, p = config.num_patches, config.patch_dim, config.patch_size
    imgs = _uniform(1, BATCH, config.in_chans, *config.img_size)
    faint = np.resize(np.array([FAINT, -FAINT], np.float32), P)
    faint[P // 2 * 2 :] = 0  # the sum is 0 in every order, so that no mean has to cancel
    imgs[0, :, :p, :p] = faint.reshape(-1, p, p)
    imgs[0, :, -p:, -p:] = 0
    numbers = np.stack(np.divmod(np.arange(L), 256), axis=-1).astype(np.float32)
    order = np.argsort(np.random.Philox(3).random_raw(BATCH * L).reshape(BATCH, L), axis=1)
    last = order[0].argmax()
    order[0, [0, last]] = order[0, [last, 0]]  # the faint patch is always removed, so that every loss depends on it
    return {
        "imgs": imgs,
        "pred": _uniform(2, BATCH, L, P),
        "noise": order.astype(np.float32) * np.float32(2.0**-16),
        "tokens": np.repeat(numbers[None], BATCH, axis=0),
    }


def _uniform(seed: int, *shape: int) -> NDArray[np.float32]:
    """Multiples of 2^-22 between -2 and 2."""
    raw = np.random.Philox(seed).random_raw(int(np.prod(shape))) >> np.uint64(40)
    return (raw.astype(np.float32) * np.float32(2.0**-22) - np.float32(2)).reshape(shape)


def mask_of(noise: NDArray[np.float32], ratio: float, config: MAEConfig) -> NDArray[np.float32]:
    """The mask [N, L], 1 where removed, that belongs to noise [N, L]; with raster masking all images' is the first's."""
    noise = np.broadcast_to(noise[:1], noise.shape) if config.masking == "raster" else noise
    rank = np.argsort(np.argsort(noise, axis=1, kind="stable"), axis=1)
    return (rank >= keep_length(config.num_patches, ratio)).astype(np.float32)


def _scored(model: Any, norm_pix_loss: bool, imgs: Any, pred: Any, mask: Any) -> dict[str, Any]:
    """The target and the loss of a prediction by one of the two losses; the model keeps its own."""
    scored: dict[str, Any] = {}
    before, model.norm_pix_loss = model.norm_pix_loss, norm_pix_loss
    try:
        model.forward_loss(imgs, pred, mask, scored)
    finally:
        model.norm_pix_loss = before
    return scored
