"""The functions of every modules.py: somebody's module, its weights set, its parts watched, differentiated."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from ..files.errors import Problem
from . import FRAMEWORKS


class Modules(Protocol):
    """One framework's modules. The docstrings are in backends/torch/modules.py; the other three mean the same."""

    def named_modules(self, module: Any) -> dict[str, Any]: ...
    def tensors(self, module: Any) -> dict[str, Any]: ...
    def is_trained(self, tensor: Any) -> bool: ...
    def set_dtype(self, module: Any, dtype: str) -> None: ...
    def set_tensor(self, tensor: Any, array: NDArray[Any]) -> None: ...
    def to_tensor(self, module: Any, array: NDArray[Any]) -> Any: ...
    def watch(self, module: Any, seen: Callable[[Any], None]) -> Callable[[], None]: ...
    def differentiate(self, function: Callable[[], Any], tensors: list[Any]) -> tuple[Any, list[Any]]: ...


def modules_of(module: Any) -> Modules:
    """The modules.py of the framework that a module is of. Raises Problem where that is none of ours."""
    for kind in type(module).__mro__:
        framework = kind.__module__.partition(".")[0]
        if framework in FRAMEWORKS and framework != "numpy":  # whose models are functions
            return cast(Modules, importlib.import_module(f"..{framework}.modules", __name__))
    known = ", ".join(name for name in FRAMEWORKS if name != "numpy")
    raise Problem(
        f"A {type(module).__name__} is no module of {known}; give parity a function of your own that takes arrays by "
        "name and returns tensors by name."
    )
