"""Which names a pickle may mention: those that are known to run code are refused, unknown ones are kept as names.

Nothing is looked up, whatever the name. But a file that is harmless here must not run code in a framework's own loader
afterwards, and a training file's callbacks and configurations are no reason to refuse the weights beside them
(docs/decisions/names-in-pickles.md).
"""

from __future__ import annotations

import sys
from collections.abc import Collection

from ..tensors import CheckpointProblem
from .pickle_values import Global

# Where Python's own pickler finds the functions that people know under another name.
_KNOWN_AS = {"posix": "os", "nt": "os", "__builtin__": "builtins"}
_PYTHON_2 = {"__builtin__", "copy_reg", "commands", "exceptions", "distutils", "imp"}  # and those that left since 3.10
_STANDARD = sys.stdlib_module_names | _PYTHON_2
_BUILTINS = (
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range", "set", "slice",
    "str", "tuple",
)  # fmt: skip
# The names in Python's own library that hold values, or that pickle builds plain objects with.
_HOLDS_VALUES = frozenset(
    [f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS]
    + ["__builtin__.unicode", "__builtin__.long", "_codecs.encode", "argparse.Namespace", "types.SimpleNamespace"]
    + [f"collections.{name}" for name in ("OrderedDict", "defaultdict", "Counter", "deque", "ChainMap", "UserDict")]
    + [f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")]
    + [f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows", "PurePosix")]
    + ["decimal.Decimal", "fractions.Fraction", "uuid.UUID", "functools.partial", "random.Random"]
    + ["copyreg._reconstructor", "copy_reg._reconstructor"]
)
# The names in other packages that load, compile or fetch if a pickle calls them.
_RUNS = (
    "torch.hub", "torch.load", "torch.serialization", "torch.storage._load_from_bytes", "torch.package", "torch.jit",
    "torch.fx.graph_module", "torch._dynamo", "torch._inductor", "torch.distributed.rpc", "torch.utils.bottleneck",
    "torch.utils.cpp_extension", "torch.utils.collect_env", "torch.utils._config_module", "torch.testing",
    "numpy.load", "numpy.testing", "numpy.f2py", "numpy.distutils", "dill", "cloudpickle", "joblib", "pip", "setuptools",
    "pkg_resources", "pytest", "IPython", "requests", "urllib3", "aiohttp", "httpx", "paramiko", "fsspec", "pandas.read_pickle",
    "pandas.io",
)  # fmt: skip


_MOST_TOLD = 100  # unknown names


class Names:
    """The names in one pickle. known: those that a checkpoint of its format mentions; `unknown` collects the others."""

    def __init__(self, known: Collection[str]):
        self.known, self._unknown = known, dict[str, None]()

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names that were met and are not known, in order."""
        return tuple(self._unknown)

    def meet(self, symbol: Global, where: str) -> None:
        """Note a name. Raises CheckpointProblem for one that runs code when a framework loads the file."""
        if str(symbol) in self.known or str(symbol) in _HOLDS_VALUES:
            return
        if _runs_code(symbol):
            raise _refused(symbol, where)
        if len(self._unknown) < _MOST_TOLD:
            self._unknown[_spelled(symbol)] = None


def _runs_code(symbol: Global) -> bool:
    """Whether a name that is not known may run code: of Python's own library, of _RUNS, or behind a class."""
    full, (package, *_) = str(symbol), symbol.module.split(".")
    if package in _STANDARD:
        return True
    hidden = any(part.startswith("__") for part in full.split(".")[1:])
    return hidden or not full.isprintable() or any(full == name or full.startswith(f"{name}.") for name in _RUNS)


def _spelled(symbol: Global) -> str:
    return (str(symbol) if str(symbol).isprintable() else ascii(str(symbol)))[:200]


def _refused(symbol: Global, where: str) -> CheckpointProblem:
    known = (
        f" ({_KNOWN_AS[symbol.module]}.{symbol.name})"
        if symbol.module in _KNOWN_AS and symbol.name.isprintable()
        else ""
    )
    return CheckpointProblem(
        f"{where}: refused to load {_spelled(symbol)}{known[:200]}. It can run code where a framework loads the file, and "
        "weights need no such name; nothing in it was run here. Where the file is your own, save the state dict alone "
        "(torch.save(model.state_dict(), path)); otherwise ask its author for that, or for a .safetensors file.",
        code="runs-code",
    )
