"""What every backend's runtime.py offers, and how a backend is found without importing the others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from numpy.typing import NDArray

from ..files.errors import Problem
from . import FRAMEWORKS
from .config import Config, ViTConfig
from .installing import NEWEST_PYTHON, has_wheels, install_line, installed, spelled
from .interpreters import remembered
from .naming import Arrays
from .optimization import Optimizer, Settings
from .spec import NoTaps


class Recorded(NamedTuple):
    """What one run leaves, by name: taps, and if asked the loss's gradient for each parameter and at gradient_taps."""

    taps: dict[str, NDArray[Any]]
    gradients: dict[str, NDArray[Any]]
    dy: dict[str, NDArray[Any]]


class WatchedTaps(dict[str, Any]):
    """A tap dictionary that shows some tensors to the framework's autograd at the moment they are recorded."""

    def __init__(self, names: Collection[str], watch: Callable[[str, Any], None]):
        super().__init__()
        self.names, self.watch = frozenset(names), watch

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.names:
            self.watch(name, value)
        super().__setitem__(name, value)


class RuntimeProblem(Problem, RuntimeError):
    """A framework that is missing, broken, or cannot do what was asked; the message says what to do."""


class Runtime(Protocol):
    """One backend. The docstrings are in backends/torch/runtime.py; the other four mean the same."""

    DTYPES: Collection[str]

    def devices(self) -> list[str]: ...
    def setup(self, device: str = ..., threads: int | None = ..., seed: int = ..., allow_tf32: bool = ...) -> None: ...
    def environment(self, device: str) -> dict[str, Any]: ...
    def build(self, config: Config, weights: Arrays | None = ..., device: str = ..., dtype: str = ...) -> Any: ...
    def load_weights(self, model: Any, weights: Arrays) -> None: ...
    def load_file(self, model: Any, path: Path) -> None: ...
    def weights(self, model: Any) -> dict[str, NDArray[Any]]: ...
    def from_numpy(self, array: NDArray[Any], like: Any) -> Any: ...
    def to_numpy(self, tensor: Any) -> NDArray[Any]: ...
    def run(
        self, model: Any, inputs: Arrays, mask_ratio: float = ..., gradients: bool = ..., **extra: Any
    ) -> Recorded: ...
    def optimizer(self, model: Any, settings: Settings) -> Optimizer: ...
    def train_step(self, model: Any, optimizer: Any, inputs: Arrays, mask_ratio: float, lr: float) -> float: ...


def load_backend(framework: str) -> Runtime:
    """Import one backend. Raises RuntimeProblem, saying what to type, where its framework is missing or broken."""
    if framework not in FRAMEWORKS:
        near = get_close_matches(framework, FRAMEWORKS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise RuntimeProblem(f"Unknown framework {framework!r}; there are {', '.join(FRAMEWORKS)}.{hint}")
    fix = install_line("core" if framework == "numpy" else framework)  # NumPy's needs SciPy
    if not installed(framework):
        remedy = _elsewhere(framework) or f"To install it: {fix}"
        raise RuntimeProblem(f"{framework} is not installed in this environment. {remedy}")
    try:
        return cast(Runtime, importlib.import_module(f"..{framework}.runtime", __name__))
    except ImportError as problem:
        raise RuntimeProblem(f"{framework} is installed but does not import: {problem}. To mend it: {fix}") from problem


def _elsewhere(framework: str) -> str:
    """Where a framework can run, that is not here, as a sentence; "" where it is to be installed here."""
    if python := remembered().get(framework):
        return f"It is in another one: {python} runs it."
    if has_wheels(framework):
        return ""
    version, newest = spelled(sys.version_info[:2]), spelled(NEWEST_PYTHON[framework])
    return (
        f"It has no wheels for Python {version}, but for {newest} at most. `{install_line(framework)}` makes an environment, "
        f"where compare, record and doctor run it; your own scripts run with what `polymae env path {framework}` prints."
    )


def require_device(runtime: Runtime, framework: str, device: str) -> None:
    """Raise RuntimeProblem where a framework cannot use a device here."""
    if device != "cpu" and device not in (there := runtime.devices()):  # asking for others can take seconds
        raise RuntimeProblem(f"{framework} sees no {device!r} here; it has {', '.join(there)}.")


def require_dtype(framework: str, dtypes: Collection[str], dtype: str) -> None:
    """Raise RuntimeProblem for a dtype that a framework does not run here."""
    if dtype not in dtypes:
        raise RuntimeProblem(f"{framework} runs {', '.join(dtypes)} here, not {dtype!r}.")


def forward(model: Any, inputs: Mapping[str, Any], mask_ratio: float, out: dict[str, Any]) -> Any:
    """Run a model on tensors of its own framework, recording every tap, and return the loss to differentiate.

    An autoencoder takes imgs and noise and is scored by both losses, its own also under the names
    `pixel.*` and `norm_pix.*`; a classifier takes imgs and labels.
    """
    if isinstance(model.config, ViTConfig):
        return objective(model, inputs, mask_ratio, out)
    loss, pred, mask = model(inputs["imgs"], inputs["noise"], mask_ratio, out)
    for kind, norm_pix_loss in (("pixel", False), ("norm_pix", True)):
        scored: dict[str, Any] = {}
        model.norm_pix_loss = norm_pix_loss
        model.forward_loss(inputs["imgs"], pred, mask, scored)
        out[f"{kind}.target"], out[f"{kind}.loss"] = scored["target"], scored["loss"]
    model.norm_pix_loss = model.config.norm_pix_loss
    return loss


def objective(model: Any, inputs: Mapping[str, Any], mask_ratio: float, out: dict[str, Any] | None = None) -> Any:
    """The loss [] that training minimises, of a model on tensors of its own framework; out records its taps."""
    out = NoTaps() if out is None else out
    if isinstance(model.config, ViTConfig):
        return model.forward_loss(model(inputs["imgs"], out), inputs["labels"], out)
    return model(inputs["imgs"], inputs["noise"], mask_ratio, out)[0]
