"""Training in MindSpore. The five training.py files read alike: what they share is in ../training.py.

ms.jit compiles forward and backward pass at their first batch, and once more for a batch of another size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise
from typing import Any, cast

import mindspore as ms
from mindspore import ParameterTuple, Tensor, ops

from ..config import MAEConfig
from ..optimization import HandWritten
from ..training import Training as Shared
from .workarounds import constant

LOW = {"float16": ms.float16, "bfloat16": ms.bfloat16}


class Training(Shared):
    """A model in training in MindSpore."""

    # On an Ascend and on CUDA by MindSpore's documentation; on a CPU by tests.
    PRECISIONS: Mapping[str, tuple[str, ...]] = {
        "cpu": ("float32", "float16"),
        "cuda": ("float32", "float16"),
        "ascend": ("float32", *LOW),
    }
    REASON = "Its matrix products in bfloat16 are those of an Ascend."

    def __init__(self, *given: Any, **options: Any):
        super().__init__(*given, **options)
        optimizer = cast(HandWritten, self.optimizer)
        trained = self.runtime.trained(self.model)
        groups = [[trained[name] for name in group.names] for group in optimizer.groups]
        differentiated = packed_gradients(self.model, groups, self.mask_ratio, self.precision)
        self._differentiated = ms.jit(differentiated) if self.compiled else differentiated

    def gradients(self, inputs: Mapping[str, Tensor], factor: float) -> tuple[float, list[Tensor]]:
        """The loss of a batch of tensors, and the packed gradients of factor times it."""
        target = inputs[next(name for name in ("noise", "targets", "labels") if name in inputs)]
        number = constant(factor, self.model.cls_token)
        values, gradients = self._differentiated(number, inputs["imgs"], target, inputs.get("drop_path"))
        loss, *statistics = values
        self.statistics = tuple(statistics)
        return float(self.runtime.to_numpy(loss)), list(gradients)


def packed_gradients(model: Any, groups: list[list[Any]], mask_ratio: float, precision: str) -> Callable[..., Any]:
    """A function of a factor [], imgs, noise or targets, and drop_path: the loss, and the gradients of factor times it.

    Behind the loss come mean and variance of the batch where the model has a batch norm.

    groups: the parameters of each packed gradient. The compiler reads branches that are not taken as well, and takes
    no dictionary of inputs: so there is one function for an autoencoder and one for a classifier. Below float32,
    MindSpore casts what its matrix products take; weights and their gradients stay float32.
    """
    spans = list(pairwise([0, *accumulate(map(len, groups))]))

    def autoencoder(factor: Tensor, imgs: Tensor, noise: Tensor, _: None) -> tuple[Tensor, Tensor]:
        loss = model(imgs, noise, mask_ratio)[0]
        return loss * factor, loss

    def classifier(factor: Tensor, imgs: Tensor, targets: Tensor, drop_path: Tensor | None) -> tuple[Tensor, Tensor]:
        loss = model.forward_loss(model(imgs, None, drop_path), targets, {})
        return loss * factor, loss

    def probe(factor: Tensor, imgs: Tensor, targets: Tensor, drop_path: Tensor | None) -> tuple[Tensor, ...]:
        x = model.forward_features(imgs, {}, drop_path)
        mean, var = model.head_norm.statistics(x)
        loss = model.forward_loss(model.forward_head(x, {}, (mean, var)), targets, {})
        return loss * factor, loss, mean, var

    scaled: Any = autoencoder
    if not isinstance(model.config, MAEConfig):
        scaled = probe if model.config.head_norm else classifier
    if precision in LOW:
        scaled = ms.amp.auto_mixed_precision(scaled, "auto", LOW[precision])
    parameters = ParameterTuple([parameter for group in groups for parameter in group])
    differentiated = ms.value_and_grad(scaled, None, parameters, has_aux=True)

    def packed(
        factor: Tensor, imgs: Tensor, target: Tensor, drop_path: Tensor | None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        values, gradients = differentiated(factor, imgs, target, drop_path)
        vectors: Any = ()
        for first, end in spans:
            vector: Any = ()
            for gradient in gradients[first:end]:
                vector += (gradient.reshape(-1),)
            vectors += (ops.cat(vector),)
        return values[1:], vectors

    return packed
