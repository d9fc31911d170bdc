"""Record one run of one framework as a trace. Runs inside the framework's own process (see worker.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config, MAEConfig, keep_length
from ...backends.runtime import Recorder, Runtime, load_backend, plain
from ...convert.targets import is_native
from ...files.errors import Problem
from ..levels import expected, recorded
from ..levels.curve import training_digest
from ..levels.inputs import image_digests
from ..levels.subject import Named, Subject, emptied
from ..options import Run
from ..trace import Inputs, digest, require_folder, selects, write_trace
from .environment import neutralise, recorded_environment
from .inputs import read_inputs
from .noise import NoisyTaps, operations, parse_noise
from .source import ModelSource, model_source


def _unspoilt(runtime: Runtime, model: Any) -> None:
    """The model as it is."""


def record(
    run: Run,
    spoil: Callable[[Runtime, Any], None] = _unspoilt,
    tensors_of: Callable[[Subject], Iterator[Named]] = recorded,
    source: ModelSource | None = None,
) -> None:
    """Load the weights, run the framework and write the trace, tensor by tensor. Raises Problem for a run that is not possible.

    spoil: is given the runtime and the model before it runs (tests/mutants plants faults so). tensors_of: what is written of
    a subject; by default everything that the run's levels have. source: the run's model and weights, where they are opened
    already; None: opened here.
    """
    if run.framework != "numpy" and (run.twin is not None or run.kernel_noise is not None):
        raise Problem(f"--twin and --kernel-noise are for NumPy, not {run.framework}; leave them out.")
    if run.allow_tf32 and run.device == "cpu":
        raise Problem("--allow-tf32 is for a GPU (--device cuda) or an Ascend; leave it out.")
    if run.out.is_dir():
        raise Problem(f"{run.out} is a folder; give the path of a trace to write, ending in .npz.")
    require_folder(run.out.parent)
    source = source or model_source(run)
    config = source.config
    if isinstance(config, MAEConfig):
        keep_length(config.num_patches, run.mask_ratio)  # raises before a framework is imported
    inputs = read_inputs(run.inputs, config)
    _require_matches(run, config, inputs)
    neutralise()
    runtime = load_backend(run.framework)
    runtime.setup(run.device, run.threads, run.seed, run.allow_tf32)
    model, content = _model(run, runtime, source)
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
        "training": training_digest(config, inputs) if {"optimizer", "curve"} & set(run.levels) else None,
        "source": content,
        "weights": _digests(runtime.weights(model)),
        "twin": run.twin,
        "kernel_noise": run.kernel_noise,
    }
    subject = Subject(run, runtime, model, config, inputs, _recorder(run, config))
    with _order(run):
        tensors = ((name, array) for name, array in tensors_of(subject) if selects(run.taps, name))
        write_trace(run.out, manifest, tensors)


def _digests(weights: dict[str, NDArray[Any]]) -> dict[str, str]:
    return {name: digest(array.astype(np.float32)) for name, array in emptied("", weights)}


def _require_matches(run: Run, config: Config, inputs: Inputs) -> None:
    """Raise Problem, with the nearest names, for a pattern of --taps that no tensor of these levels has."""
    known = [tap.name for _, tap in expected(config, run.levels, inputs)]
    for pattern in run.taps or ():
        if not any(selects([pattern], name) for name in known):
            near = get_close_matches(pattern, known, n=3, cutoff=0.3) or known[:3]
            raise Problem(
                f"--taps {pattern!r} matches none of the {len(known)} tensors of the levels {', '.join(run.levels)}. "
                f"Nearest names: {', '.join(near)}."
            )


def _model(run: Run, runtime: Runtime, source: ModelSource) -> tuple[Any, str]:
    """The model with its weights, and the content hash of its source."""
    weights, content = source.load()
    config, checkpoint = source.config, source.checkpoint
    if checkpoint is None or not is_native(checkpoint, run.framework) or run.dtype != "float32":
        return runtime.build(config, weights, run.device, run.dtype), content
    # The framework's own loader, which its users will call, has to fill every value of the model.
    nothing = {name: np.broadcast_to(np.float32(np.nan), array.shape) for name, array in weights.items()}
    model = runtime.build(config, nothing, run.device, run.dtype)
    runtime.load_file(model, checkpoint.path)
    return model, content


def _order(run: Run) -> Any:
    if run.twin is None:
        return nullcontext()
    from ...backends.numpy.sums import summed_in_chains

    return summed_in_chains(run.twin)


def _recorder(run: Run, config: Config) -> Recorder:
    """The function that makes the dictionaries of a run: noisy ones where it has kernel noise."""
    if run.kernel_noise is None:
        return plain
    known = operations(config)
    return partial(NoisyTaps, parse_noise(run.kernel_noise, set(known.values())), known)
