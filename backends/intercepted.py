"""The computation of anybody's own reference, intercepted: products summed in chains, noise behind its operations.

NumPy's operations are intercepted by a class of arrays, PyTorch's below autograd (<framework>/intercepted.py). Those of
other frameworks cannot be.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from .numpy.intercepted import ChainedArray
from .numpy.sums import summed_in_chains

FRAMEWORKS = ("torch",)  # those with an intercepted.py beside NumPy's


def _modules() -> Iterator[Any]:
    """The interception of every framework that is in use; none is imported for it."""
    for name in FRAMEWORKS:
        if name in sys.modules:
            yield import_module(f".{name}.intercepted", __package__)


@contextmanager
def chains(seed: int) -> Iterator[Callable[[], int]]:
    """Within this context float32 products are summed in one chain each; calls give how many there were so far.

    seed: of the order of their terms. NumPy's only where they are of arrays from `chained_array`.
    """
    with ExitStack() as stack:
        stack.enter_context(summed_in_chains(seed))
        modes = [stack.enter_context(module.Chains.entered()) for module in _modules()]
        before = ChainedArray.products
        yield lambda: ChainedArray.products - before + sum(mode.products for mode in modes)


def chained_array(array: NDArray[Any]) -> NDArray[Any]:
    """A view of an array whose products, and those of arrays computed from it, can be summed in chains."""
    return array.view(ChainedArray)


@contextmanager
def noise(sizes: Mapping[str, float], coherent: bool = False) -> Iterator[Callable[[], set[str]]]:
    """Within this context there is relative noise behind some operations; calls give which of them were met so far.

    sizes: in units of roundoff, by operation, as backends/operations.py names them, and "<operation> backward".
    coherent: one sign for all elements, as of a kernel that errs to one side.
    """
    with ExitStack() as stack:
        modes = [stack.enter_context(module.Noise(sizes, coherent)) for module in _modules()]
        yield lambda: set().union(*(mode.met for mode in modes))
