"""What every framework can do here: what they share is written once; and how one is found without importing the others."""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from numpy.typing import NDArray

from ..files.errors import Problem
from . import FRAMEWORKS
from .averaging import Average, Averaging
from .config import Config, ViTConfig
from .gradient_taps import gradient_taps
from .installing import NEWEST_PYTHON, has_wheels, install_line, installed, spelled
from .interpreters import remembered
from .naming import Arrays, native, to_spec
from .optimization import Optimizer, Settings, trainable

if TYPE_CHECKING:
    from .training import Training


class RuntimeProblem(Problem, RuntimeError):
    """A framework that is missing, broken, or cannot do what was asked; the message says what to do."""


class Recorded(NamedTuple):
    """What one run leaves, by name: taps, and if asked the loss's gradient for each parameter and at gradient_taps."""

    taps: dict[str, NDArray[Any]]
    gradients: dict[str, NDArray[Any]]
    dy: dict[str, NDArray[Any]]


# Makes a dictionary for what a run records: "" for the taps, "dy/" for the gradients at them.
Recorder = Callable[[str], dict[str, Any]]


def plain(prefix: str) -> dict[str, Any]:
    """The recorder of a usual run."""
    return {}


class Watched(NamedTuple):
    """The taps of a run that is differentiated.

    out: takes every tap. names: the taps whose gradients are wanted. dy: takes these gradients.
    """

    out: dict[str, Any]
    names: Collection[str]
    dy: dict[str, Any]


class ShownTaps(dict[str, Any]):
    """A tap dictionary that shows the watched tensors to a framework's autograd when they are recorded."""

    def __init__(self, watched: Watched, show: Callable[[str, Any], Any]):
        super().__init__()
        self.watched, self.show = watched, show

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.watched.names:
            self.show(name, value)
        self.watched.out[name] = value


class _Prefixed(dict[str, Any]):
    """A tap dictionary that records in another, under names that begin with a prefix."""

    def __init__(self, prefix: str, out: dict[str, Any]):
        super().__init__()
        self.prefix, self.out = prefix, out

    def __setitem__(self, name: str, value: Any) -> None:
        self.out[self.prefix + name] = value


@contextmanager
def unfrozen(parameters: Iterable[Any]) -> Iterator[None]:
    """Within this context the frozen ones of these parameters get gradients, too."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad = True
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad = False


Loss = Callable[[Any, Mapping[str, Any], dict[str, Any]], Any]  # of a model, its inputs and where its taps go


class Runtime(ABC):
    """One framework: its devices, its models, their weights, runs and gradients.

    The five runtime.py files fill in what differs; `diff` one against another to see it. Tensor means the framework's own.
    """

    framework: str
    DTYPES: Collection[str]  # what build takes

    @abstractmethod
    def devices(self) -> list[str]:
        """The devices that this process can use, the default first."""

    @abstractmethod
    def setup(self, device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
        """Prepare the process for exact work: TF32 off (unless allowed), deterministic kernels, a seed.

        Raises RuntimeProblem for a device that is not there.
        """

    @abstractmethod
    def environment(self, device: str) -> dict[str, Any]:
        """What numbers may depend on: version, device name, threads, TF32, whether every run gives the same bits, kernels."""

    @abstractmethod
    def build(self, config: Config, weights: Arrays | None = None, device: str = "cpu", dtype: str = "float32") -> Any:
        """A model on a device, ready to be evaluated. weights: arrays by spec name; None gives initial ones.

        Raises RuntimeProblem for a dtype that is not one of DTYPES, SpecError for weights that do not fit.
        """

    @abstractmethod
    def load_weights(self, model: Any, weights: Arrays) -> None:
        """Copy weights, by spec name, into a model. Raises SpecError where they are not exactly its parameters."""

    @abstractmethod
    def load_file(self, model: Any, path: Path) -> None:
        """Load a file of the framework's own format with the framework's own loader, strictly.

        Raises SpecError or RuntimeProblem where the file does not hold the model exactly.
        """

    @abstractmethod
    def named_parameters(self, model: Any) -> dict[str, Any]:
        """The model's parameters as tensors, by their names in the framework's own state dict."""

    @abstractmethod
    def from_numpy(self, array: NDArray[Any], like: Any) -> Any:
        """A tensor on the device of the model `like`; floating point gets the model's dtype."""

    @abstractmethod
    def to_numpy(self, tensor: Any) -> NDArray[Any]:
        """A copy in NumPy."""

    @abstractmethod
    def no_grad(self) -> AbstractContextManager[Any]:
        """A context in which nothing is kept for a backward pass."""

    @abstractmethod
    def differentiate(
        self, loss: Loss, model: Any, inputs: Mapping[str, Any], parameters: Mapping[str, Any], watched: Watched
    ) -> tuple[Any, dict[str, Any]]:
        """The loss [] and its gradient for every parameter given, by the same names; frozen parameters get one, too.

        loss: takes model, inputs and a dictionary for its taps. The gradients at watched.names go into watched.dy.
        """

    @abstractmethod
    def optimizer(self, model: Any, settings: Settings) -> Optimizer:
        """An AdamW or LARS for the model's parameters."""

    @abstractmethod
    def average(self, model: Any, averaging: Averaging) -> Average:
        """The moving average of the model's weights, which begins as they are."""

    @abstractmethod
    def training(self, model: Any, optimizer: Optimizer, **options: Any) -> Training:
        """A model in training by an optimizer; options are Training's."""

    def weights(self, model: Any) -> dict[str, NDArray[Any]]:
        """A copy of the model's weights by spec name."""
        native = {name: self.to_numpy(tensor) for name, tensor in self.named_parameters(model).items()}
        return to_spec(self.framework, model.config, native)

    def run(
        self,
        model: Any,
        inputs: Arrays,
        mask_ratio: float = 0.75,
        gradients: bool = False,
        recorder: Recorder = plain,
    ) -> Recorded:
        """Run a model on NumPy inputs and return its taps and, if asked, the loss's gradients by spec name.

        The frozen position tables get a gradient too: it costs nothing and shows more. recorder: makes the dictionaries
        that the taps and the gradients at them are recorded in, when they are computed.
        """
        tensors = self.tensors(model, inputs)
        loss = partial(forward, mask_ratio=mask_ratio)
        out, dy = recorder(""), recorder("dy/")
        if not gradients:
            with self.no_grad():
                loss(model, tensors, out)
            return Recorded(self._emptied(out), {}, {})
        watched = Watched(out, [tap.name for tap in gradient_taps(model.config)], dy)
        _, derivatives = self.differentiate(loss, model, tensors, self.named_parameters(model), watched)
        spec = to_spec(self.framework, model.config, self._emptied(derivatives))
        return Recorded(self._emptied(out), spec, self._emptied(dy, watched.names))

    def trained(self, model: Any) -> dict[str, Any]:
        """The model's parameters that training changes, as tensors by spec name."""
        parameters = self.named_parameters(model)
        return {param.name: parameters[native(self.framework, param).name] for param in trainable(model.config)}

    def tensors(self, model: Any, inputs: Arrays) -> dict[str, Any]:
        """NumPy inputs as tensors on the model's device."""
        return {name: self.from_numpy(array, model) for name, array in inputs.items()}

    def _emptied(self, tensors: dict[str, Any], names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        """Tensors in NumPy (names: only these, in this order); each leaves its dictionary when its copy is made."""
        return {name: self.to_numpy(tensors.pop(name)) for name in (list(tensors) if names is None else names)}


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
        return cast(Runtime, importlib.import_module(f"..{framework}.runtime", __name__).Backend())
    except ImportError as problem:
        raise RuntimeProblem(f"{framework} is installed but does not import: {problem}. To mend it: {fix}") from problem


def framework_of(model: Any) -> str:
    """The framework of a loaded model. Raises RuntimeProblem for what is none of ours."""
    for kind in type(model).__mro__:
        package, _, rest = kind.__module__.rpartition(f"{__package__}.")
        framework = rest.partition(".")[0]
        if not package and framework in FRAMEWORKS and isinstance(getattr(model, "config", None), get_args(Config)):
            return framework
    raise RuntimeProblem(
        f"{type(model).__module__}.{type(model).__qualname__} is no model of PolyMAE's; load one (polymae.load), or give the "
        "path of its weights, which may be of any framework."
    )


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


def forward(model: Any, inputs: Mapping[str, Any], out: dict[str, Any], mask_ratio: float) -> Any:
    """Run a model on tensors of its own framework, recording every tap in out, and return the loss [] to differentiate.

    An autoencoder takes imgs and noise and is scored by both losses, its own also under the names
    `pixel.*` and `norm_pix.*`; a classifier takes imgs with labels or soft targets, and drop_path or not.
    """
    if isinstance(model.config, ViTConfig):
        return model.forward_loss(model(inputs["imgs"], out, inputs.get("drop_path")), _targets(inputs), out)
    loss, pred, mask = model(inputs["imgs"], inputs["noise"], mask_ratio, out)
    for kind, norm_pix_loss in (("pixel", False), ("norm_pix", True)):
        model.norm_pix_loss = norm_pix_loss
        model.forward_loss(inputs["imgs"], pred, mask, _Prefixed(f"{kind}.", out))
    model.norm_pix_loss = model.config.norm_pix_loss
    return loss


def objective(
    model: Any, inputs: Mapping[str, Any], out: dict[str, Any], mask_ratio: float
) -> tuple[Any, tuple[Any, ...]]:
    """The loss [] that training minimises, of a model on tensors of its own framework; out takes its taps.

    And mean and variance [D] of the batch where a batch norm went by them, else ().
    """
    if not isinstance(model.config, ViTConfig):
        return model(inputs["imgs"], inputs["noise"], mask_ratio, out)[0], ()
    x = model.forward_features(inputs["imgs"], out, inputs.get("drop_path"))
    statistics = None
    if model.config.head_norm:
        statistics = out["head_norm.mean"], out["head_norm.var"] = model.head_norm.statistics(x)
    loss = model.forward_loss(model.forward_head(x, out, statistics), _targets(inputs), out)
    return loss, statistics or ()


def _targets(inputs: Mapping[str, Any]) -> Any:
    return inputs["targets"] if "targets" in inputs else inputs["labels"]
