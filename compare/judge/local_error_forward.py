"""The right output of each operation of the forward pass, in float64, for the inputs that a run had.

The oracle's model runs once. Whenever it records a tap, the run's own tensor takes the place of that tap (teacher forcing), so
that the next operation starts from the tensors that the run had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.numpy.model import MAE, ViT
from ...backends.runtime import forward
from ...backends.spec import NoTaps, loss_taps, taps
from ..trace import TraceProblem

Array = NDArray[Any]
RunTaps = Mapping[str, Array]


def forward_expected(
    run_taps: RunTaps, model: MAE | ViT, mask_ratio: float, seen: Callable[[str, Array], None]
) -> None:
    """Call seen with each tap's name and expected value, in the order of the forward pass.

    It is not called for a tap that lacks one of its inputs in run_taps. The value is overwritten after the call.
    """
    config = model.config
    out = _Forced(run_taps, model, seen)
    imgs = out.taken("input/imgs", (out.batch, config.in_chans, *config.img_size))
    if isinstance(model, ViT):
        inputs = _Copied(imgs=imgs)
        if "input/targets" in run_taps:
            inputs["targets"] = out.taken("input/targets", (out.batch, model.config.num_classes))
        else:
            inputs["labels"] = out.taken("input/labels", (out.batch,)).astype(np.int64)
        if "input/drop_path" in run_taps:
            inputs["drop_path"] = out.taken("input/drop_path", (out.batch, model.config.depth, 2))
    else:
        noise = out.taken("input/noise", (out.batch, config.num_patches))
        if "input/noise" not in out.missing:
            tokens = np.zeros((*noise.shape, 0))
            _, _, out.ids_restore = model.random_masking(tokens, noise, mask_ratio, NoTaps())
        # The order of ids_restore is that of the noise, so that masks and tokens follow from the run's own decision.
        inputs = _Copied(imgs=imgs, noise=out.taken("ids_restore", noise.shape, noise))
    with suppress(IndexError):  # a label may be out of range, and then there is no loss
        forward(model, inputs, out, mask_ratio)


class _Copied(dict[str, Array]):
    """Inputs that are copied when they are taken: a tap may be a view of one, and is overwritten."""

    def __getitem__(self, name: str) -> Array:
        return super().__getitem__(name).copy()


class _Forced(dict[str, Array]):
    """A tap dictionary that shows every tap whose inputs the run has, and overwrites it with the run's own."""

    def __init__(self, run_taps: RunTaps, model: MAE | ViT, seen: Callable[[str, Array], None]):
        super().__init__()
        self.run_taps, self.seen = run_taps, seen
        self.inputs = {tap.name: tap.of for tap in (*taps(model.config), *loss_taps(model.config))}
        self.missing: set[str] = set()
        self.ids_restore: Array | None = None  # as it follows from the noise
        self.batch = next(self._batches(), 1)

    def _batches(self) -> Iterator[int]:
        for name in self.run_taps:
            with suppress(TraceProblem):
                if (name in self.inputs or name.startswith("input/")) and self.run_taps[name].ndim:
                    yield len(self.run_taps[name])

    def taken(self, name: str, shape: tuple[int, ...], otherwise: Array | None = None) -> Array:
        """The run's own tensor of this shape; where it has none, another (None: zeros), and the name is missing from now on."""
        with suppress(TraceProblem):
            if self.run_taps[name].shape == shape:
                return self.run_taps[name]
        self.missing.add(name)
        return np.zeros(shape) if otherwise is None else otherwise

    def __setitem__(self, name: str, value: Array) -> None:
        decided = name == "ids_restore"
        if not self.missing & set(self.inputs[name]):
            self.seen(name, self.ids_restore if decided and self.ids_restore is not None else value)
        if value.ndim:  # a loss is nobody's input
            recorded = self.taken(name, value.shape, value)
            # An order without a place for some patch stays the expected one.
            if not decided or np.isin(recorded, value).all():
                value[...] = recorded
