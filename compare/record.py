"""Record one run of one framework as a trace. Runs inside the framework's own process (see worker.py)."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.config import Config, MAEConfig, keep_length
from ..backends.errors import Problem
from ..backends.initial import initial_weights
from ..backends.presets import model_config
from ..backends.runtime import Runtime, load_backend
from ..backends.spec import taps
from ..backends.spelling import Arrays
from ..convert.checkpoint import content_hash, open_checkpoint
from ..convert.choice import model_of
from ..convert.targets import is_native
from .faults import plant
from .inputs import Inputs, digest, read_inputs
from .kernels import NoisyTaps, parse_noise
from .trace import write_trace


@dataclass(frozen=True)
class Run:
    """What to record."""

    framework: str
    out: Path
    inputs: Path
    weights: Path | None = None  # None: initial weights from the seed
    model: str | None = None  # None: the preset that fits the file's shapes
    device: str = "cpu"
    dtype: str = "float32"
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False
    gradients: bool = False
    threads: int = 1  # one: sums in the same order whatever the machine
    seed: int = 0
    twin: int | None = None  # NumPy only: sum every matrix product in the order of this seed
    kernel_noise: str | None = None  # NumPy only: relative noise behind operations, in u: "softmax=10.9"
    fault: str | None = None  # plant this fault of compare/faults.py


def chosen_config(weights: Path | None, model: str | None, norm_pix_loss: bool = False) -> Config:
    """The model that `--model` names, or else the preset whose shapes are those of the file."""
    if weights is not None:
        _, config = model_of(open_checkpoint(weights), model)
    elif model is not None:
        config = model_config(model)
    else:
        raise Problem("Neither weights nor a model were given; name the model with --model (`polymae models`).")
    if not norm_pix_loss:
        return config
    if not isinstance(config, MAEConfig):
        raise Problem("--norm-pix-loss is for masked autoencoders, and this is a classifier; leave it out.")
    return replace(config, norm_pix_loss=True)


def record(run: Run) -> None:
    """Load the weights, run the framework once and write the trace. Raises Problem for what cannot be run."""
    if run.framework != "numpy" and (run.twin is not None or run.kernel_noise is not None):
        raise Problem(f"--twin and --kernel-noise are for NumPy, not {run.framework}; leave them out.")
    if run.out.is_dir():
        raise Problem(f"{run.out} is a folder; give the path of a trace to write, ending in .npz.")
    require_folder(run.out.parent)
    config = chosen_config(run.weights, run.model, run.norm_pix_loss)
    if isinstance(config, MAEConfig):
        keep_length(config.num_patches, run.mask_ratio)  # raises before a framework is imported
    inputs = read_inputs(run.inputs, config)
    with plant(run.fault, run.framework, config) as planted:
        runtime = load_backend(run.framework)
        runtime.setup(run.device, run.threads, run.seed)
        model, source = _model(run, runtime, config)
        planted.apply(runtime, model)
        loaded = {name: array.astype(np.float32) for name, array in runtime.weights(model).items()}
        with _order(run):
            found, gradients = runtime.run(model, inputs, run.mask_ratio, run.gradients, **_spoilt(run, config))
    tensors = {f"input/{name}": array for name, array in _round_trip(runtime, model, inputs).items()}
    tensors |= found | {f"grad/{name}": array for name, array in gradients.items()}
    manifest = {
        "framework": run.framework,
        "config": {"kind": type(config).__name__, **asdict(config)},
        "mask_ratio": run.mask_ratio,
        "dtype": run.dtype,
        "device": run.device,
        "gradients": run.gradients,
        "seed": run.seed,
        "environment": runtime.environment(run.device),
        "inputs": {name: digest(array) for name, array in inputs.items()},
        "source": source,
        "weights": {name: digest(array) for name, array in loaded.items()},
        "twin": run.twin,
        "kernel_noise": run.kernel_noise,
        "fault": run.fault,
    }
    write_trace(run.out, manifest, tensors.items())


def require_folder(folder: Path) -> None:
    """Say now, not after minutes of work, that nothing can be written to a folder (which may not exist yet)."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise Problem(f"Cannot write to {folder}: {there} is not a folder that you may write to; give another.")


def _model(run: Run, runtime: Runtime, config: Config) -> tuple[Any, str]:
    """The model with its weights, and the content hash of what it was given."""
    if run.weights is None:
        initial: Arrays = initial_weights(config, run.seed)
        return runtime.build(config, initial, run.device, run.dtype), content_hash(initial)
    checkpoint = open_checkpoint(run.weights)
    weights = checkpoint.weights(config)
    if is_native(checkpoint, run.framework) and run.dtype == "float32":
        # The framework's own loader, which is what its users will call, has to fill every value of the model.
        nothing = {name: np.broadcast_to(np.float32(np.nan), array.shape) for name, array in weights.items()}
        model = runtime.build(config, nothing, run.device, run.dtype)
        runtime.load_file(model, run.weights)
    else:
        model = runtime.build(config, weights, run.device, run.dtype)
    return model, content_hash(weights)


def _order(run: Run) -> Any:
    if run.twin is None:
        return nullcontext()
    from ..backends.numpy.layers import permuted_contractions

    return permuted_contractions(run.twin)


def _spoilt(run: Run, config: Config) -> dict[str, Any]:
    """What makes NumPy's run a noisy one; nothing for every other."""
    if run.kernel_noise is None:
        return {}
    operations = {tap.name: tap.operation for tap in taps(config) if not tap.exact}
    return {"out": NoisyTaps(parse_noise(run.kernel_noise, set(operations.values())), operations)}


def _round_trip(runtime: Runtime, model: Any, inputs: Inputs) -> Inputs:
    """The inputs as the framework holds them, back in NumPy and in their first type."""
    return {
        name: runtime.to_numpy(runtime.from_numpy(array, model)).astype(array.dtype) for name, array in inputs.items()
    }
