"""Record one run of one framework as a trace. Runs inside the framework's own process (see worker.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config, MAEConfig, keep_length
from ...backends.initial import initial_weights
from ...backends.naming import Arrays
from ...backends.presets import model_config
from ...backends.runtime import Runtime, load_backend
from ...convert.checkpoint import content_hash, open_checkpoint
from ...convert.choice import model_of
from ...convert.targets import is_native
from ...files.errors import Problem
from .. import OF_ONE_RUN
from ..faults import plant
from ..judging.kernels import NoisyTaps, operations, parse_noise
from ..judging.levels import expected
from .environment import neutralise, recorded_environment
from .injected import injected_losses
from .inputs import Inputs, digest, read_inputs
from .preprocessing import image_digests, preprocessed
from .trace import require_folder, selects, write_trace
from .training import optimizer_steps, training_curve, training_digest

Named = Iterator[tuple[str, NDArray[Any]]]


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
    levels: tuple[str, ...] = OF_ONE_RUN
    taps: tuple[str, ...] | None = None  # patterns of the tensors to write; None: all
    images: tuple[Path, ...] = ()  # for the level inputs; none: those of the demo
    allow_tf32: bool = False  # let a GPU round what it multiplies to 11 bits
    threads: int = 1  # one: sums in the same order whatever the machine
    seed: int = 0
    twin: int | None = None  # NumPy only: sum every matrix product in the order of this seed
    kernel_noise: str | None = None  # NumPy only: relative noise behind operations, in u: "softmax=10.9"
    fault: str | None = None  # plant this fault of compare/faults/


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
    """Load the weights, run the framework and write the trace, tensor by tensor. Raises Problem for what cannot be run."""
    if run.framework != "numpy" and (run.twin is not None or run.kernel_noise is not None):
        raise Problem(f"--twin and --kernel-noise are for NumPy, not {run.framework}; leave them out.")
    if run.allow_tf32 and run.device == "cpu":
        raise Problem("--allow-tf32 is for a GPU (--device cuda) or an Ascend; leave it out.")
    if run.out.is_dir():
        raise Problem(f"{run.out} is a folder; give the path of a trace to write, ending in .npz.")
    require_folder(run.out.parent)
    config = chosen_config(run.weights, run.model, run.norm_pix_loss)
    if isinstance(config, MAEConfig):
        keep_length(config.num_patches, run.mask_ratio)  # raises before a framework is imported
    _require_matches(run, config)
    inputs = read_inputs(run.inputs, config)
    neutralise()
    with plant(run.fault, run.framework, config) as planted:
        runtime = load_backend(run.framework)
        runtime.setup(run.device, run.threads, run.seed, run.allow_tf32)
        model, source = _model(run, runtime, config)
        planted.apply(runtime, model)
        manifest = {
            "framework": run.framework,
            "config": {"kind": type(config).__name__, **asdict(config)},
            "mask_ratio": run.mask_ratio,
            "dtype": run.dtype,
            "device": run.device,
            "levels": run.levels,
            "taps": run.taps,
            "seed": run.seed,
            "environment": recorded_environment(runtime, run.device, model, run.dtype),
            "inputs": {name: digest(array) for name, array in inputs.items()},
            "images": image_digests(run.images, config) if "inputs" in run.levels else None,
            "training": training_digest(config) if {"optimizer", "curve"} & set(run.levels) else None,
            "source": source,
            "weights": _digests(runtime.weights(model)),
            "twin": run.twin,
            "kernel_noise": run.kernel_noise,
            "fault": run.fault,
        }
        tensors = _tensors(run, runtime, model, inputs, config)
        write_trace(run.out, manifest, ((name, array) for name, array in tensors if selects(run.taps, name)))


def _tensors(run: Run, runtime: Runtime, model: Any, inputs: Inputs, config: Config) -> Named:
    """Every tensor of the run's levels, by name; each is computed or given away when the one before it is written."""
    if "inputs" in run.levels:
        yield from preprocessed(run.images, config, run.dtype)
    yield from _emptied("input/", _round_trip(runtime, model, inputs))
    with _order(run):
        if {"forward", "loss", "gradients"} & set(run.levels):
            found = runtime.run(model, inputs, run.mask_ratio, "gradients" in run.levels, **_spoilt(run, config))
            yield from _emptied("", found.taps)
            yield from _emptied("dy/", found.dy)
            yield from _emptied("grad/", found.gradients)
        if "loss" in run.levels:
            yield from injected_losses(runtime, model)
        if "optimizer" in run.levels:
            yield from optimizer_steps(runtime, config, run.device, run.dtype)
        if "curve" in run.levels:
            yield from training_curve(runtime, config, run.device, run.dtype)


def _emptied(prefix: str, arrays: dict[str, NDArray[Any]]) -> Named:
    """Give away what a dictionary holds, so that no tensor stays in memory for longer than it has to."""
    for name in list(arrays):
        yield prefix + name, arrays.pop(name)


def _digests(weights: dict[str, NDArray[Any]]) -> dict[str, str]:
    return {name: digest(array.astype(np.float32)) for name, array in _emptied("", weights)}


def _require_matches(run: Run, config: Config) -> None:
    """Raise Problem, with the nearest names, for a pattern of --taps that no tensor of these levels has."""
    known = [tap.name for _, tap in expected(config, run.levels)]
    for pattern in run.taps or ():
        if not any(selects([pattern], name) for name in known):
            near = get_close_matches(pattern, known, n=3, cutoff=0.3) or known[:3]
            raise Problem(
                f"--taps {pattern!r} matches none of the {len(known)} tensors of the levels {', '.join(run.levels)}. "
                f"Nearest names: {', '.join(near)}."
            )


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
    from ...backends.numpy.sums import summed_in_chains

    return summed_in_chains(run.twin)


def _spoilt(run: Run, config: Config) -> dict[str, Any]:
    """What makes NumPy's run a noisy one; nothing for every other."""
    if run.kernel_noise is None:
        return {}
    known = operations(config)
    noise = parse_noise(run.kernel_noise, set(known.values()))
    return {"recorder": partial(NoisyTaps, noise, known)}


def _round_trip(runtime: Runtime, model: Any, inputs: Inputs) -> Inputs:
    """The inputs as the framework holds them, back in NumPy and in their first type."""
    return {
        name: runtime.to_numpy(runtime.from_numpy(array, model)).astype(array.dtype) for name, array in inputs.items()
    }
