"""What a fault is, and how it is put into a framework's backend for the time of one run."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from polymae.backends import FRAMEWORKS
from polymae.backends.config import Config, ViTConfig
from polymae.backends.runtime import Runtime, load_backend
from polymae.backends.spec import loss_taps, params, taps
from polymae.files.errors import Problem

Weights = dict[str, NDArray[Any]]


class Edit(NamedTuple):
    """Other text in a module, as a porter might have mistyped it.

    module: "model" or another one inside the backend's folder, or a dotted path inside the package.
    """

    module: str
    old: str
    new: str

    def path(self, framework: str) -> str:
        """The module's full name."""
        inside = self.module if "." in self.module else f"backends.{framework}.{self.module}"
        return f"polymae.{inside}"


Pair = tuple[str, str]
Edits = Mapping[str, tuple[Edit, ...]]  # by framework


def in_all(module: str, *pairs: Pair) -> Edits:
    """The same replacements, old and new, in every framework's module of this name."""
    return in_each(module, **dict.fromkeys(FRAMEWORKS, pairs))


def in_each(module: str, **pairs: Pair | tuple[Pair, ...]) -> Edits:
    """One replacement, old and new, or several for each framework by its name."""
    return {
        framework: tuple(Edit(module, old, new) for old, new in ([given] if isinstance(given[0], str) else given))
        for framework, given in pairs.items()
    }


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    level: where it is to be seen, one of compare.LEVELS or "environment". located_at: the first tensor that shows it
    there. about: what the porter did. size: by how much (a difference of eps, a relative error), where it is a number.
    weights: spoils a built model's weights in place. edits: text of the source, by framework. process: changes the
    running process for the time of a context. needs: settings of a model in which it makes a difference, where not
    every model is one. tuned: it shows in a run of a classifier with drop path and soft targets alone.
    """

    name: str
    level: str
    located_at: str
    about: str
    size: float | None = None
    weights: Callable[[Weights], None] | None = None
    edits: Edits = field(default_factory=dict)
    process: Callable[[], AbstractContextManager[None]] | None = None
    needs: Mapping[str, Any] = field(default_factory=dict)
    tuned: bool = False

    @property
    def frameworks(self) -> tuple[str, ...]:
        """Those in which it can be planted."""
        return tuple(name for name in FRAMEWORKS if name in self.edits) or FRAMEWORKS

    def fits(self, config: Config) -> bool:
        """Whether a model has the tensor where this fault shows, and the settings that it needs."""
        names = {
            "forward": [tap.name for tap in taps(config)],
            "loss": [tap.name for tap in (*taps(config), *loss_taps(config))],
            "weights": [f"weights/{param.name}" for param in params(config)],
        }
        there = self.located_at in names.get(self.level, [self.located_at])
        there = there and (not self.tuned or isinstance(config, ViTConfig))
        return there and all(getattr(config, name, None) == value for name, value in self.needs.items())

    def apply(self, runtime: Runtime, model: Any) -> None:
        """Spoil the weights of a built model, where this fault is one of the weights."""
        if self.weights is not None:
            spoilt = runtime.weights(model)
            self.weights(spoilt)
            runtime.load_weights(model, spoilt)


@contextmanager
def planted(fault: Fault, framework: str) -> Iterator[None]:
    """The framework's backend with the fault's edits in it, for the time of the context.

    Raises Problem where an edit no longer fits the source.
    """
    edits = fault.edits.get(framework, ())
    with ExitStack() as stack:
        load_backend(framework)
        if fault.process is not None:
            stack.enter_context(fault.process())
        for path in dict.fromkeys(edit.path(framework) for edit in edits):
            original = importlib.import_module(path)
            edited = edited_copy(path, [edit for edit in edits if edit.path(framework) == path])
            _put_in_place(stack, original, edited)
        yield


def edited_copy(path: str, edits: Sequence[Edit]) -> ModuleType:
    """A second copy of a module, made from its source with the edits in it. Raises Problem where one does not fit."""
    spec = importlib.util.find_spec(path)
    source: str = spec.loader.get_source(path)  # type: ignore[union-attr]
    for edit in edits:
        if edit.old not in source:
            raise Problem(f"{path} does not hold {edit.old!r} any more; bring tests/mutants up to date.")
        source = source.replace(edit.old, edit.new)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def _put_in_place(stack: ExitStack, original: ModuleType, edited: ModuleType) -> None:
    """What a module defines, replaced wherever our modules hold it: under any name for functions and classes.

    Methods of classes that the frameworks' modules share are replaced in the class too: others have been derived from it.
    """
    for kind, name, method in _other_methods(original, edited):
        stack.enter_context(patch.object(kind, name, method))
    defined = {
        id(value): vars(edited)[name]
        for name, value in vars(original).items()
        if getattr(value, "__module__", None) == original.__name__ and callable(value) and name in vars(edited)
    }
    values = {
        name: value
        for name, value in vars(original).items()
        if isinstance(value, (float, tuple, np.ndarray)) and not name.startswith("__") and name in vars(edited)
    }
    for module in [module for name, module in sys.modules.items() if name.startswith("polymae.") and module]:
        for name, value in list(vars(module).items()):
            if id(value) in defined:
                stack.enter_context(patch.object(module, name, defined[id(value)]))
            elif name in values and values[name] is value:
                stack.enter_context(patch.object(module, name, vars(edited)[name]))


def _other_methods(original: ModuleType, edited: ModuleType) -> Iterator[tuple[type, str, FunctionType]]:
    """Methods with other code in the edited module, of classes that belong to no framework; none that calls super()."""
    if not set(original.__name__.split(".")).isdisjoint(FRAMEWORKS):
        return
    for kind in [value for value in vars(original).values() if isinstance(value, type)]:
        if kind.__module__ != original.__name__:
            continue
        for name, method in vars(vars(edited)[kind.__name__]).items():
            before = vars(kind).get(name)
            if not isinstance(method, FunctionType) or not isinstance(before, FunctionType):
                continue
            if not method.__code__.co_freevars and _meaning(method) != _meaning(before):
                yield kind, name, method


def _meaning(function: FunctionType) -> tuple[Any, ...]:
    """What a function does, without the line numbers in its code."""
    code = function.__code__
    constants = [str(constant) for constant in code.co_consts if not isinstance(constant, CodeType)]
    return code.co_code, code.co_names, code.co_varnames, constants
