"""A module of a framework as `parity` wants it: a function of arrays by name that returns the outputs of its parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from ...backends.modules import Modules, modules_of
from ...files.errors import Problem
from .arrays import Copied, Tensors
from .callables import Arrays, Function
from .names import nearest

Names = Mapping[str, str] | Callable[[str], str]
OUTPUT, LOSS = "output", "loss"
UNUSED = "num_batches_tracked"  # in a state dict of PyTorch or OneFlow: a count that others do not have


def tapped(
    module: Any,
    forward: Sequence[str] | Callable[[Any, Mapping[str, Any]], Any],
    *,
    loss: Callable[[Any, Mapping[str, Any]], Any] | None = None,
    names: Names | None = None,
    modules: Iterable[str] | None = None,
) -> Function:
    """A module of PyTorch, OneFlow, MindSpore or MegEngine as a reference, a twin or a candidate of `parity`.

    module: it is used as it is: in its mode (call .eval() where that matters), on its device. Its weights are set to
        those among the inputs of every call, and its type becomes float64 where these are float64 (not in MegEngine).
    forward: the inputs that it is called with, by name, in its order; or a function of the module and of the inputs,
        as tensors by name, that calls it: `lambda net, t: net(t["ids"], mask=t["mask"])`.
    loss: a function of forward's output and of the inputs, as tensors by name, that gives the loss; the gradient of
        every parameter that is not frozen is then returned, too, and is zeros for one that does not matter.
    names: from this module's names of parameters and modules to those of the other side: a function of a dotted name, or
        a dict in which every key is a component of one, or several with dots between ({"gamma": "weight"}).
    modules: whose outputs are returned, by the other side's names; None: of all.

    Returns a function of arrays by name that gives: the output of every module as soon as it comes, by the module's
    name; "output", that of forward; "loss"; "<parameter>.grad". A module that is called again has `name@2`; of one
    that returns several tensors each has its place, `name[0]`. Parameters and buffers are those inputs that have their
    names: all parameters or none. Their arrays have the module's own layout, but for dimensions of 1 (a bias [C] goes
    into [1, C, 1, 1], and its gradient is [C]). One that is tied goes by any of its names, and its gradient, the sum, by
    the one that comes first among the inputs (without any, in the alphabet).

    The function raises Problem for an input that is neither used nor a parameter, and for parameters that are missing or
    of another shape. `tapped` raises Problem for an object that is no module of these frameworks.
    """
    return _Tapped(module, modules_of(module), forward, loss, names, None if modules is None else list(modules))


class _Tapped:
    def __init__(
        self, module: Any, framework: Modules, forward: Any, loss: Any, names: Names | None, modules: list[str] | None
    ):
        if isinstance(forward, str):
            raise Problem(f"forward is {forward!r}; give the names of the inputs in a list, or a function.")
        self.module, self.framework, self.loss, self.modules = module, framework, loss, modules
        self.forward = forward if callable(forward) else lambda net, t: net(*(t[name] for name in forward))
        self.renamed = names if callable(names) else _renaming(names or {})

    def __call__(self, inputs: Arrays) -> dict[str, Any]:
        types = {array.dtype for array in inputs.values() if array.dtype.kind == "f"}
        if types:  # else nobody says which, and it stays as it is
            self.framework.set_dtype(self.module, "float64" if np.dtype(np.float64) in types else "float32")
        shapes = self._load(inputs)
        tensors = _InputTensors(self, inputs, shapes)
        trained = self._trained(list(inputs)) if self.loss else {}
        out: dict[str, Any] = {}

        def run() -> Any:
            out.clear()
            result = self.forward(self.module, tensors)
            _put(out, OUTPUT, result)
            if self.loss is None:
                return result
            loss = self.loss(result, tensors)
            _put(out, LOSS, loss)
            return loss

        with ExitStack() as watching:
            for name, part in self._watched().items():
                watching.callback(self.framework.watch(part, _Tap(out, name)))
            _, gradients = self.framework.differentiate(run, list(trained.values()))
        for name, gradient in zip(trained, gradients):
            (taken,) = Tensors({name: gradient}).copied().values()
            out[f"{name}.grad"] = Copied(taken.array.reshape(shapes.get(name, taken.shape)), taken.narrow)
        tensors.require_all_read()
        return out

    def _named(self) -> dict[str, Any]:
        """Parameters and buffers by the other side's names."""
        tensors: dict[str, Any] = {}
        for name_inside, tensor in self.framework.tensors(self.module).items():
            name = self.renamed(name_inside)
            if name in tensors:
                raise Problem(
                    f"two parameters are both called {name} by names=, one of them {name_inside}; tell them apart."
                )
            tensors[name] = tensor
        return tensors

    def _load(self, inputs: Arrays) -> dict[str, tuple[int, ...]]:
        """Set the parameters that are among the inputs, and give the shapes of their arrays."""
        named = self._named()
        arrays = {name: array for name, array in inputs.items() if name in named}
        loaded = {id(named[name]) for name in arrays}
        missing = [
            name
            for name, tensor in named.items()
            if arrays and id(tensor) not in loaded and self.framework.is_trained(tensor)
        ]
        if missing:
            others = [name for name in inputs if name not in arrays]
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise Problem(
                f"parameter {missing[0]}{more} of the module is not among the inputs{nearest(missing[0], others)}; "
                "give all of its parameters, with names= where they are called otherwise, or none."
            )
        set_before: dict[int, str] = {}
        for name, array in arrays.items():
            shape = tuple(named[name].shape)
            if _without_ones(shape) != _without_ones(array.shape):
                raise Problem(
                    f"{name} has shape {array.shape} among the inputs and {shape} in the module; "
                    "transpose it in a function around this one where the port lays it out otherwise."
                )
            first = set_before.setdefault(id(named[name]), name)
            if first != name and not np.array_equal(inputs[first], array):
                raise Problem(
                    f"{first} and {name} are tied in the module but differ among the inputs; give one of them."
                )
            self.framework.set_tensor(named[name], np.ascontiguousarray(array).reshape(shape))
        return {name: array.shape for name, array in arrays.items()}

    def _trained(self, inputs: list[str]) -> dict[str, Any]:
        """The parameters that have a gradient, each once: by the name that comes first among the inputs, else in the alphabet."""
        named = self._named()
        ordered = [name for name in inputs if name in named] + sorted(name for name in named if name not in inputs)
        parameters: dict[int, tuple[str, Any]] = {}
        for name in ordered:
            if self.framework.is_trained(named[name]):
                parameters.setdefault(id(named[name]), (name, named[name]))
        return dict(parameters.values())

    def _watched(self) -> dict[str, Any]:
        """The modules whose outputs are wanted, by the other side's name, without the whole."""
        parts: dict[str, Any] = {}
        for name_inside, part in self.framework.named_modules(self.module).items():
            if not name_inside:
                continue
            name = self.renamed(name_inside)
            if name in parts or name in (OUTPUT, LOSS):
                raise Problem(f"{name_inside} is called {name}, as is something else; give it another name by names=.")
            parts[name] = part
        for name in self.modules or ():
            if name not in parts:
                raise Problem(
                    f"the module has no {name}{nearest(name, list(parts), others=True)}; give names of modules inside it."
                )
        return parts if self.modules is None else {name: parts[name] for name in self.modules}


class _Tap:
    """Takes a module's output, at once: it may be changed in place afterwards."""

    def __init__(self, out: dict[str, Any], name: str):
        self.out, self.name = out, name

    def __call__(self, output: Any) -> None:
        name, number = self.name, 1
        while any(known == name or known.startswith(f"{name}[") for known in self.out):
            number += 1
            name = f"{self.name}@{number}"
        _put(self.out, name, output)


def _put(out: dict[str, Any], name: str, value: Any) -> None:
    """Copies of a tensor, or of all tensors in it; other values (None, a flag) are left out."""
    out |= Tensors({name: value}, only_tensors=True).copied()


class _InputTensors(Mapping[str, Any]):
    """The inputs as tensors of the framework, made at their first use. Raises Problem for one that does not exist."""

    def __init__(self, tapped: _Tapped, inputs: Arrays, loaded: Iterable[str]):
        self._tapped, self._inputs, self._read = tapped, inputs, set(loaded)

    def __getitem__(self, name: str) -> Any:
        if name not in self._inputs:
            raise Problem(
                f"there is no input {name}{nearest(name, list(self._inputs), others=True)}; give it, or ask for another."
            )
        self._read.add(name)
        return self._tapped.framework.to_tensor(self._tapped.module, self._inputs[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    def require_all_read(self) -> None:
        """Raise Problem for an input without use: it may be a parameter whose name is spelled otherwise."""
        for name in self._inputs:
            if name not in self._read and not name.endswith(UNUSED):
                known = [other for other in self._tapped._named() if other not in self._inputs]
                raise Problem(
                    f"input {name} was not used, and is no parameter of the module{nearest(name, known)}; "
                    "leave it out, or map the module's name to it by names=."
                )


def _renaming(names: Mapping[str, str]) -> Callable[[str], str]:
    """A function that replaces every run of whole components of a dotted name that is a key, the longest first."""
    if not names:
        return lambda name: name
    keys = "|".join(re.escape(key) for key in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<![^.])(?:{keys})(?![^.])")
    return lambda name: pattern.sub(lambda match: names[match.group()], name)


def _without_ones(shape: Iterable[int]) -> list[int]:
    return [size for size in shape if size != 1]
