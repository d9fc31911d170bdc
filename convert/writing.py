"""Writing a checkpoint in a framework's own format: streamed, read back, and put in place at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..backends.config import Config
from ..backends.spec import differences
from ..backends.spelling import Arrays, native
from .atomic import replacing
from .checkpoint import content_hash, not_finite, open_checkpoint
from .formats import FORMATS, NATIVE, oneflow
from .shapes import expected_params
from .tensors import Array, CheckpointProblem, Progress, forget_pages, to_bytes


def write_checkpoint(
    framework: str, path: str | Path, config: Config, weights: Arrays, progress: Progress | None = None
) -> str:
    """Write weights, by spec name, as the framework's own loader reads them, and return their content hash.

    weights: float32, all of a model's parameters or exactly its encoder's. torch writes .safetensors where the path
    ends so. The file is read back and compared before it takes the place of an older one.
    Raises CheckpointProblem; then, as after Ctrl-C, what stood at `path` is untouched and nothing else is left.
    """
    if framework not in NATIVE:
        raise CheckpointProblem(f"There is no checkpoint format for {framework!r}; there are {', '.join(NATIVE)}.")
    return _write(format_for(framework, Path(path)), framework, Path(path), config, weights, progress)


def official_checkpoint(path: str | Path, config: Config, weights: Arrays) -> str:
    """Write weights as the published files are: a .pth of {"model": OrderedDict}. Returns their content hash."""
    return _write("pth", "torch", Path(path), config, weights, None)


def default_ending(framework: str) -> str:
    """How a framework's files end; nothing for a folder."""
    return FORMATS[NATIVE[framework][0]].ENDINGS[0]


def format_for(framework: str, path: Path) -> str:
    """Which of a framework's formats a path asks for. Raises CheckpointProblem for another framework's ending."""
    ending = path.suffix.lower()
    for name in NATIVE[framework]:
        if ending in FORMATS[name].ENDINGS:
            return name
    taken = {e for form in FORMATS.values() for e in form.ENDINGS if e}
    wanted = [e for name in NATIVE[framework] for e in FORMATS[name].ENDINGS if e]
    # MindSpore's loader insists on the ending; the others take any, but not one that promises another format.
    if ending in taken or framework == "mindspore":
        raise CheckpointProblem(
            f"{path} does not end as {framework} files do: {' or '.join(wanted) or 'a folder, without such an ending'}."
        )
    return NATIVE[framework][0]


def _write(name: str, framework: str, path: Path, config: Config, weights: Arrays, progress: Progress | None) -> str:
    form, target = (
        FORMATS[name],
        Path(os.path.realpath(path)),
    )  # through symbolic links, as writing to the file itself would go
    _check_weights(config, weights)
    _check_target(target, form.FOLDER)
    arrays: dict[str, Array] = {}
    for param in expected_params(config, len(weights) < len(expected_params(config))):
        spelled = native(framework, param)
        arrays[spelled.name] = weights[param.name].reshape(spelled.shape)

    def step(done: int) -> None:
        forget_pages()
        if progress:
            progress(done)

    try:
        with replacing(target) as new:
            with ThreadPoolExecutor(1) as beside:  # hashing takes as long as writing and leaves Python's lock
                hashed = beside.submit(content_hash, weights)
                form.write(new, arrays, step)
                digest = hashed.result()
            _compare(new, path, weights, step)
    except OSError as problem:
        size = sum(array.nbytes for array in arrays.values()) / 1e6
        raise CheckpointProblem(
            f"Could not write {path}: {problem.strerror or problem}. It needs {size:,.1f} MB; "
            "give a folder with room that you may write to. What stood there before is untouched."
        ) from None
    return digest


def _compare(written: Path, path: Path, weights: Arrays, step: Progress) -> None:
    """Read what was written as any checkpoint is read, and compare every bit."""
    tensors = open_checkpoint(written).tensors
    for name, array in weights.items():
        same = name in tensors and tensors[name].shape == array.shape and tensors[name].dtype == "float32"
        if not same or not _equal(tensors[name].load(), array):
            raise CheckpointProblem(
                f"What was written for {path} does not read back the same ({name}); the disk or the memory is at fault."
            )
        step(array.nbytes)


def _equal(one: Array, other: Array) -> bool:
    return np.array_equal(np.frombuffer(to_bytes(one), np.uint8), np.frombuffer(to_bytes(other), np.uint8))


def _check_weights(config: Config, weights: Arrays) -> None:
    actual = {name: tuple(array.shape) for name, array in weights.items()}
    kinds = [{p.name: p.shape for p in expected_params(config, alone)} for alone in (False, True)]
    found = [] if actual in kinds else differences(kinds[0], actual)
    found += [f"dtype: {n} is {a.dtype}, expected float32" for n, a in weights.items() if a.dtype != np.float32]
    found = found or [sentence for name, array in weights.items() for sentence in not_finite(name, array)]
    if found:
        raise CheckpointProblem(
            f"These weights are not the model's ({len(found)} problems):\n  " + "\n  ".join(found), tuple(found)
        )


def _check_target(target: Path, folder: bool) -> None:
    problem = ""
    try:
        if folder and target.is_dir() and not oneflow.replaceable(target):
            problem = "it is a folder with other things in it, which would be lost; name a new folder"
        elif target.is_dir() and not folder:
            problem = "it is a folder; name a file in it"
        elif target.exists() and not target.is_dir() and (folder or not target.is_file()):
            problem = "there is something else of that name; name another path"
    except OSError as unreadable:
        problem = unreadable.strerror or str(unreadable)
    if problem:
        raise CheckpointProblem(f"Cannot write {target}: {problem}.")
