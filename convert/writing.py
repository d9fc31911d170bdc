"""Writing a checkpoint: streamed tensor by tensor, read back and compared by its hash, and put in place at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from einops import EinopsError

from ..backends.config import Config, MAEConfig
from ..backends.naming import Arrays
from ..backends.spec import differences
from ..files.atomic import flush, replacing, start_flush
from .checkpoint import open_checkpoint
from .dialects import DIALECTS, OF_CLASSIFIERS, Contents, Dialect, expected_params
from .formats import FOLDERS, FORMATS
from .hashing import UNKNOWN, Hashed, hash_tensors
from .huggingface import FILE as HF_CONFIG
from .huggingface import write_config
from .layouts import Sizes, shape_after, sizes_of, to_layout
from .provenance import NOTE, Provenance, replacing_beside
from .targets import format_for, target_of
from .tensors import Array, CheckpointProblem, Progress, State, Tensor, of_array
from .transform import WeightSet, as_computed, refuse_inexpressible

# Raised whenever the same weights are written differently (a layout, a name, metadata that loaders read): files of older
# versions in the cache are then made again.
CONVERTER_VERSION = 1
_FLUSHED_AT_ONCE = 1 << 27  # bytes; smaller portions did not help


class NotFiniteProblem(CheckpointProblem):
    """The weights to be written have NaN or infinite values."""


def write_checkpoint(
    framework: str,
    path: str | Path,
    config: Config,
    weights: Arrays,
    progress: Progress | None = None,
    source: Mapping[str, Any] | None = None,
) -> str:
    """Write weights, by spec name, as the framework's own loader reads them, and return their content hash.

    weights: all of a model's parameters or exactly its encoder's, of one floating dtype. torch writes .safetensors if the
    path ends so. source: where the weights are from; given, it is noted with the configuration as their provenance. The file is
    read back and compared before it takes the place of an older one.
    Raises CheckpointProblem; then, as after Ctrl-C, an older file at `path` is untouched and nothing else is left.
    """
    target = target_of(framework)
    form = format_for(framework, Path(path))

    def about(hashed: Hashed) -> Provenance:
        return Provenance(hashed.content, target.dialect, config, source=source or {})

    noted = None if source is None else about
    return write_weights(_checked(config, weights), DIALECTS[target.dialect], form, Path(path), noted, progress)


def official_checkpoint(path: str | Path, config: Config, weights: Arrays) -> str:
    """Write weights as the published files are: a .pth of {"model": OrderedDict}. Returns their content hash."""
    return write_weights(_checked(config, weights), DIALECTS["polymae"], "pth", Path(path), None)


def write_weights(
    weights: WeightSet,
    dialect: Dialect,
    form: str,
    path: Path,
    about: Callable[[Hashed], Provenance] | None = None,
    progress: Progress | None = None,
) -> str:
    """Write weights in a dialect and a format, and return their content hash.

    about: gives the provenance, which is stored in the file or beside it, once the weights are hashed. progress counts their
    bytes three times: hashed, written, read back. Raises CheckpointProblem as write_checkpoint.
    """
    refuse_inexpressible(dialect, weights)
    target = Path(os.path.realpath(path))  # through symbolic links, as writing to the file itself would go
    _check_target(target, form)
    step = progress or (lambda done: None)
    room = FORMATS[form].HAS_ROOM

    def texts(hashed: Hashed) -> dict[str, str]:
        note = {NOTE: about(hashed).text()} if about and room else {}
        return note | _fixed_texts(weights, dialect, form)

    try:
        with replacing_beside(target) as put_beside, replacing(target) as new, ThreadPoolExecutor(1) as beside_writing:
            # Hashing takes as long as writing and leaves Python's lock. Values that are not finite show at its end.
            hashing = beside_writing.submit(hash_tensors, weights.tensors, step, workers=1)
            state = State(
                spelled(weights, dialect), (), _under(dialect, form), texts(UNKNOWN), lambda: texts(_finite(hashing))
            )
            FORMATS[form].write(new, state, _flushing(new, step))
            hashed = _finite(hashing)
            note = about(hashed).text() if about and not room else ""
            flushing = beside_writing.submit(flush, new)  # the disk works while the file is read back
            _compare(new, path, dialect, weights, hashed, step)
            flushing.result()
            put_beside(note)
    except OSError as problem:
        size = sum(tensor.nbytes for tensor in weights.tensors.values()) / 1e6
        raise CheckpointProblem(
            f"Could not write {path}: {problem.strerror or problem}. It needs {size:,.1f} MB; "
            "give a folder with room that you may write to. What stood there before is untouched.",
            code="cannot-write",
        ) from None
    return hashed.content


def _flushing(path: Path, step: Progress) -> Progress:
    """As `step`, and starts a flush to disk after every 128 MB."""
    waiting = 0

    def written(done: int) -> None:
        nonlocal waiting
        waiting += done
        if waiting >= _FLUSHED_AT_ONCE:
            start_flush(path)
            waiting = 0
        step(done)

    return written


def _finite(hashing: Future[Hashed]) -> Hashed:
    hashed = hashing.result()
    if hashed.not_finite:
        raise NotFiniteProblem(_not_the_models(hashed.not_finite), hashed.not_finite, code="not-finite")
    return hashed


def _not_the_models(problems: Sequence[str]) -> str:
    return f"These weights are not the model's ({len(problems)} problems):\n  " + "\n  ".join(problems)


def spelled(weights: WeightSet, dialect: Dialect) -> dict[str, Tensor]:
    """The tensors by the dialect's names and in its layouts, in the spec's order, not loaded.

    Raises CheckpointProblem if the dialect's program derives a tensor and would derive another one.
    """
    tensors: dict[str, Tensor] = {}
    spelling = dialect.spellings[weights.contents]
    for param in expected_params(weights.config, weights.contents):
        tensor = weights.tensors.get(param.name)
        if tensor is None or param.name in dialect.derived:
            continue
        names, layout = spelling.spell(param)
        sizes = sizes_of(weights.config, param.name)
        parts = len(names)
        for i, name in enumerate(names):
            shape: tuple[int, ...] | None = tensor.shape
            if parts > 1:
                shape = (tensor.shape[0] // parts, *tensor.shape[1:])
            elif layout:
                shape = shape_after(layout, tensor.shape)
            if shape is None:
                raise ValueError(f"{param.name} {tensor.shape} does not fit the layout {layout} of {dialect.name}")
            tensors[name] = Tensor(shape, tensor.dtype, partial(_load_part, tensor, i, parts, layout, sizes))
    if dialect.supply is not None:
        tensors |= dialect.supply(weights.config, weights.tensors)
    return tensors


def _load_part(tensor: Tensor, i: int, parts: int, layout: str | None, sizes: Sizes) -> Array:
    array = tensor.load()
    if parts > 1:
        length = array.shape[0] // parts
        return array[i * length : (i + 1) * length]
    return to_layout(array, layout, sizes) if layout else array


def _under(dialect: Dialect, form: str) -> str | None:
    return {"pth": dialect.wrapper, "oneflow": dialect.folder}.get(form)


def _fixed_texts(weights: WeightSet, dialect: Dialect, form: str) -> dict[str, str]:
    texts = dict(dialect.metadata) if form == "safetensors" else {}
    if dialect.config_file and form == "shards":
        dtype = next(iter(weights.tensors.values())).dtype
        config = as_computed(dialect, weights)
        texts[HF_CONFIG] = write_config(config, weights.contents, weights.function, dtype, weights.config_text)
    return texts


def _compare(new: Path, path: Path, dialect: Dialect, weights: WeightSet, hashed: Hashed, step: Progress) -> None:
    """Read the new file back as any checkpoint is read, and compare the hash of every tensor."""
    try:
        actual = hash_tensors(open_checkpoint(new, dialect.name).tensors_of(weights.config), step, finite=False).tensors
    except EinopsError as problem:
        actual = {str(problem): ""}
    if actual != hashed.tensors:
        wrong = [name for name in {**hashed.tensors, **actual} if actual.get(name) != hashed.tensors.get(name)]
        raise CheckpointProblem(
            f"What was written for {path} does not read back the same ({wrong[0]}); the disk or the memory is at fault.",
            code="cannot-write",
        )


def _checked(config: Config, weights: Arrays) -> WeightSet:
    actual = {name: tuple(array.shape) for name, array in weights.items()}
    both: tuple[Contents, ...] = ("mae", "encoder") if isinstance(config, MAEConfig) else OF_CLASSIFIERS
    kinds: dict[Contents, Mapping[str, tuple[int, ...]]] = {
        contents: {p.name: p.shape for p in expected_params(config, contents)} for contents in both
    }
    contents = next((kind for kind, shapes in kinds.items() if shapes == actual), None)
    sentences = [] if contents else differences(next(iter(kinds.values())), actual)
    sentences += [f"dtype: {n} is {a.dtype}, expected float32" for n, a in weights.items() if a.dtype.kind != "f"]
    if sentences or contents is None:
        raise CheckpointProblem(_not_the_models(sentences), tuple(sentences), code="does-not-fit")
    return WeightSet(config, contents, {name: of_array(array) for name, array in weights.items()})


def _check_target(target: Path, form: str) -> None:
    folder, problem = FORMATS[form].FOLDER, ""
    try:
        if folder and target.is_dir() and not FOLDERS[form].replaceable(target):
            problem = "it is a folder with other things in it, which would be lost; name a new folder"
        elif target.is_dir() and not folder:
            problem = "it is a folder; name a file in it"
        elif target.exists() and not target.is_dir() and (folder or not target.is_file()):
            problem = "there is something else of that name; name another path"
    except OSError as unreadable:
        problem = unreadable.strerror or str(unreadable)
    if problem:
        raise CheckpointProblem(f"Cannot write {target}: {problem}.", code="cannot-write")
