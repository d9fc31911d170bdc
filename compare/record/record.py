"""Record one run of one framework as a trace. Runs inside the framework's own process (see worker.py)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
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
from ...backends.runtime import Recorder, Runtime, load_backend, plain
from ...convert.checkpoint import content_hash, open_checkpoint
from ...convert.targets import is_native
from ...files.errors import Problem
from ..levels import expected, recorded
from ..levels.curve import training_digest
from ..levels.inputs import image_digests
from ..levels.subject import Subject, emptied
from ..options import Run
from ..trace import digest, require_folder, selects, write_trace
from .environment import neutralise, recorded_environment
from .inputs import read_inputs
from .noise import NoisyTaps, operations, parse_noise


def _unspoilt(runtime: Runtime, model: Any) -> None:
    """The model as it is."""


def chosen_config(weights: Path | None, model: str | None, norm_pix_loss: bool = False) -> Config:
    """The model that `--model` names, or else the preset whose shapes are those of the file."""
    if weights is not None:
        config = open_checkpoint(weights).resolve(model).config
    elif model is not None:
        config = model_config(model)
    else:
        raise Problem("Neither weights nor a model were given; name the model with --model (`polymae models`).")
    if not norm_pix_loss:
        return config
    if not isinstance(config, MAEConfig):
        raise Problem("--norm-pix-loss is for masked autoencoders, and this is a classifier; leave it out.")
    return replace(config, norm_pix_loss=True)


def record(run: Run, spoil: Callable[[Runtime, Any], None] = _unspoilt) -> None:
    """Load the weights, run the framework and write the trace, tensor by tensor. Raises Problem for what cannot be run.

    spoil: is given the runtime and the model before it runs (tests/mutants plants faults so).
    """
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
    runtime = load_backend(run.framework)
    runtime.setup(run.device, run.threads, run.seed, run.allow_tf32)
    model, source = _model(run, runtime, config)
    spoil(runtime, model)
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
    }
    subject = Subject(run, runtime, model, config, inputs, _recorder(run, config))
    with _order(run):
        tensors = ((name, array) for name, array in recorded(subject) if selects(run.taps, name))
        write_trace(run.out, manifest, tensors)


def _digests(weights: dict[str, NDArray[Any]]) -> dict[str, str]:
    return {name: digest(array.astype(np.float32)) for name, array in emptied("", weights)}


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
    weights, source = checkpoint.load(config)
    if is_native(checkpoint, run.framework) and run.dtype == "float32":
        # The framework's own loader, which is what its users will call, has to fill every value of the model.
        nothing = {name: np.broadcast_to(np.float32(np.nan), array.shape) for name, array in weights.items()}
        model = runtime.build(config, nothing, run.device, run.dtype)
        runtime.load_file(model, run.weights)
    else:
        model = runtime.build(config, weights, run.device, run.dtype)
    return model, source


def _order(run: Run) -> Any:
    if run.twin is None:
        return nullcontext()
    from ...backends.numpy.sums import summed_in_chains

    return summed_in_chains(run.twin)


def _recorder(run: Run, config: Config) -> Recorder:
    """What makes the dictionaries of a run: noisy ones where it has kernel noise."""
    if run.kernel_noise is None:
        return plain
    known = operations(config)
    return partial(NoisyTaps, parse_noise(run.kernel_noise, set(known.values())), known)
