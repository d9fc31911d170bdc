"""Public names of a package that are imported at first use, so that importing the package is instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562).

    package: its name. modules: by public name the module that has it, relative to the package (".checkpoint"); a submodule
    itself where the two have the same name ("hub": ".hub").
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(modules[name], package)
        return module if modules[name] == f".{name}" else getattr(module, name)

    def names() -> list[str]:
        return sorted(modules)

    return get, names
