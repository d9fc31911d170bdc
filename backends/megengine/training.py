"""Training in MegEngine. The five training.py files read alike: what they share is in ../training.py."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any

import numpy as np
from megengine import Tensor, amp, jit

from ..denormals import keep_denormals
from ..optimization import HandWritten
from ..runtime import Watched, objective
from ..spec import NoTaps
from ..training import Training as Shared


class Training(Shared):
    """A model in training in MegEngine.

    Compiled, the gradients of a batch are one graph for each size of batch, and so is the update. MegEngine's graphs hold
    as constants all that is not among their arguments: numbers that differ from step to step are tensors [] there.
    """

    PRECISIONS: Mapping[str, tuple[str, ...]] = {"cpu": ("float32", "float16"), "cuda": ("float32", "float16")}
    REASON = "MegEngine 1.13 has no bfloat16 kernels on the CPU, and on a GPU they were not tried."

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._graphs: dict[Hashable, Any] = {}

    def update(self, lr: float, scale: float = 1.0) -> float:
        """Clip the gradients, change the weights; returns the gradients' norm before clipping."""
        optimizer: Any = self.optimizer
        if self.compiled:
            optimizer.move = partial(self._move, optimizer)
        try:
            return super().update(lr, scale)
        finally:
            vars(optimizer).pop("move", None)

    def gradients(self, inputs: Mapping[str, Any], factor: float) -> tuple[float, list[Tensor]]:
        """The loss of a batch of tensors, and the packed gradients of factor times it."""

        def differentiated(factor: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            def scaled(model: Any, inputs: Mapping[str, Tensor], out: dict[str, Tensor]) -> Tensor:
                losses.append(objective(model, inputs, out, self.mask_ratio))
                return losses[0][0] * factor

            losses: list[tuple[Tensor, tuple[Tensor, ...]]] = []
            given, trained = dict(zip(inputs, tensors)), self.runtime.trained(self.model)
            with amp.autocast(enabled=self.precision == "float16"):
                _, gradients = self.runtime.differentiate(scaled, self.model, given, trained, Watched(NoTaps(), (), {}))
            loss, statistics = losses[0]
            return loss, *statistics, *self.optimizer.packed(gradients)

        shapes = tuple((name, tuple(tensor.shape)) for name, tensor in inputs.items())
        loss, *results = self._called(shapes, differentiated, *self._numbers(factor), *inputs.values())
        normed = 2 if getattr(self.model.config, "head_norm", False) else 0
        self.statistics = tuple(results[:normed])
        return float(loss.item()), results[normed:]

    def _move(self, optimizer: HandWritten, gradients: list[Tensor], *numbers: float) -> None:
        """The optimizer's own move, compiled."""
        count, moments = len(gradients), [*optimizer.m, *optimizer.v]
        trained = list(self.runtime.trained(self.model).values())
        move = type(optimizer).move

        def moved(*tensors: Tensor) -> tuple[Tensor, ...]:
            given, gradients = tensors[: len(numbers)], tensors[len(numbers) :][:count]
            held = tensors[len(numbers) + count :]
            optimizer.m, optimizer.v = list(held[:count]), list(held[count:])
            move(optimizer, list(gradients), *given)
            return *optimizer.m, *optimizer.v, *trained

        results = self._called(optimizer, moved, *self._numbers(*numbers), *gradients, *moments)
        optimizer.m, optimizer.v = list(results[:count]), list(results[count : len(moments)])
        optimizer.assign(trained, results[len(moments) :])

    def _numbers(self, *numbers: float) -> list[Tensor]:
        return [self.runtime.from_numpy(np.array(number, "<f4"), self.model) for number in numbers]

    def _called(self, key: Hashable, function: Callable[..., Any], *arguments: Tensor) -> list[Tensor]:
        """A function of tensors and of the model's parameters, called; compiled, under a key, if that is asked for."""
        if not self.compiled:
            return list(function(*arguments))
        parameters = list(self.runtime.named_parameters(self.model).values())
        graph = self._graphs.get(key)
        if graph is None:

            def called(*tensors: Tensor) -> Any:
                return function(*tensors[: len(arguments)])

            # Shapes are constants, and Python runs once alone, which make it a quarter faster.
            graph = jit.trace(called, symbolic=True, capture_as_const=True, symbolic_shape=False, without_host=True)
            graph.overall = False  # no optimizer of MegEngine's is looked for
            kept = [parameter.detach() for parameter in parameters]
            graph(*arguments, *parameters)  # recorded; by other kernels than it is run with later, so with other bits
            for parameter, value in zip(parameters, kept):
                parameter._reset(value)
            keep_denormals()  # MegEngine's compiler leaves this thread flushing them
            self._graphs[key] = graph
        return list(graph(*arguments, *parameters))
