"""Finding the state dict in an unpickled file, alone or beside the rest of a training's state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from ..tensors import CheckpointProblem, State, Tensor
from .checks import bounded_count, proper_name, shown
from .pickle_values import Global, Record

ORDERED_DICT = Global("collections", "OrderedDict")
_NAMESPACES = (Global("argparse", "Namespace"), Global("types", "SimpleNamespace"))
# The keys of state dicts in training scripts: the official one and Lightning, PyTorch's tutorial, DeepSpeed.
WRAPPERS = ("model", "state_dict", "model_state_dict", "module")
# Parts of the keys of everything that is no model, or an average of it.
_NO_MODEL = ("optim", "sched", "scaler", "ema", "rng", "callbacks", "loops")
# The keys of their options.
_SETTINGS = ("args", "config", "hyper_parameters")
_PADDLE = "StructuredToParameterName@@"  # a key that paddle.save adds
_MOST_DICTS = 1000  # to be searched, at each depth
_DEEPEST = 3  # keys above a state dict: {"app": {"model": ...}}
# Tensors may share their bytes (tied weights, expanded ones), but not so that a small file becomes a large model.
_MOST_SHARING = 16

ToTensor = Callable[[str, Any], "Tensor | None"]


def as_mapping(value: Any) -> dict[Any, Any] | None:
    """The items of a dict or an OrderedDict; None for anything else."""
    if isinstance(value, Record) and value.of == ORDERED_DICT:
        return value.items
    return value if isinstance(value, dict) else None


def find_state(
    value: Any, to_tensor: ToTensor, where: str, size: Callable[[], int], unknown: tuple[str, ...] = ()
) -> State:
    """The tensors in an unpickled value, and the names of everything beside them.

    to_tensor: gives None for a value that is no tensor. size: gives the number of stored bytes, and is called last. unknown:
    names of classes in the file. Several state dicts become one, each under its key. Raises CheckpointProblem without one.
    """
    outer = as_mapping(value)
    if outer is None:
        raise CheckpointProblem(
            f"{where} holds no dict of tensors but a single {_kind(value)}; save model.state_dict() and try again.",
            code="not-a-checkpoint",
        )
    if _PADDLE in outer:
        raise CheckpointProblem(
            f"{where} is Paddle's: it stores the weight of every linear layer the other way round, square ones too, which "
            "no shape shows. In Paddle's Python: numpy.savez('weights.npz', **{n: t.numpy().T if t.ndim == 2 else t.numpy() "
            "for n, t in paddle.load(path).items()}), then convert weights.npz.",
            code="unsupported",
        )
    state_dicts = _state_dicts(outer, to_tensor)
    extras: list[str] = []
    if state_dicts:
        taken = {keys[0] for keys in state_dicts}
        extras = [shown(str(key)) for key in outer if key not in taken]
    tensors: dict[str, Tensor] = {}
    for keys, mapping in (state_dicts or {(): outer}).items():
        bounded_count(len(mapping) + len(tensors), where)
        start = "".join(f"{key}." for key in keys) if len(state_dicts) > 1 else ""
        for name, stored in mapping.items():
            tensor = to_tensor(shown(str(name)), stored)
            if tensor is None:
                extras.append(shown(start + str(name)))
            else:
                tensors[start + proper_name(name, where)] = tensor
    if not tensors:
        raise _no_tensors(outer, extras, where)
    _refuse_emptied(tensors, where)
    needed = sum(tensor.nbytes for tensor in tensors.values())
    if needed > _MOST_SHARING * size():
        raise CheckpointProblem(
            f"{where} is no honest checkpoint: its tensors share their bytes so that {size():,} bytes would become {needed:,}.",
            code="too-large",
        )
    wrapper = ".".join(next(iter(state_dicts))) if len(state_dicts) == 1 else None
    return State(tensors, tuple(extras), wrapper=wrapper, settings=_settings(outer), unknown=unknown)


def _state_dicts(outer: dict[Any, Any], to_tensor: ToTensor) -> dict[tuple[str, ...], dict[Any, Any]]:
    """The state dicts inside a dict, by the keys that lead to them; none if the dict is one itself."""
    counts: dict[int, int] = {}  # a dict may be there a thousand times

    def count(mapping: dict[Any, Any]) -> int:
        if id(mapping) not in counts:
            counts[id(mapping)] = _count(mapping, to_tensor)
        return counts[id(mapping)]

    level: dict[tuple[str, ...], dict[Any, Any]] = {(): outer}
    for _ in range(_DEEPEST):
        level = dict(islice(_inner(level), _MOST_DICTS))
        state_dicts = {keys: mapping for keys, mapping in level.items() if count(mapping)}
        if named := {keys: mapping for keys, mapping in state_dicts.items() if keys[-1] in WRAPPERS}:
            return named
        if state_dicts:
            return state_dicts if count(outer) < max(map(count, state_dicts.values())) else {}
    return {}


def _inner(
    level: Mapping[tuple[str, ...], dict[Any, Any]],
) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """The dicts in dicts, under keys that a model may have."""
    for keys, outer in level.items():
        for key, value in outer.items():
            mapping = as_mapping(value)
            if mapping is not None and isinstance(key, str) and not any(part in key.lower() for part in _NO_MODEL):
                yield (*keys, key), mapping


def _count(mapping: Mapping[Any, Any], to_tensor: ToTensor) -> int:
    """How many tensors lie in a dict. A damaged one counts; its error is raised when it is read."""
    count = 0
    for name, value in mapping.items():
        try:
            count += to_tensor(shown(str(name)), value) is not None
        except CheckpointProblem:
            count += 1
    return count


def _no_tensors(outer: dict[Any, Any], extras: list[str], where: str) -> CheckpointProblem:
    for key in WRAPPERS:
        if isinstance(value := outer.get(key), Record) and as_mapping(value) is None:
            return CheckpointProblem(
                f"{where} holds a whole {value.of} object under {key!r}, which only the program that it is of can load; there, "
                "save its state_dict().",
                code="unsupported",
            )
    only = ", ".join(extras[:8]) or "an empty dict"
    return CheckpointProblem(f"{where} holds no tensors, only {only}; is it the right file?", code="not-a-checkpoint")


def _refuse_emptied(tensors: Mapping[str, Tensor], where: str) -> None:
    """DeepSpeed's ZeRO-3 leaves parameters of shape (0,) in mp_rank_00_model_states.pt: their values lie in other files."""
    emptied = [name for name, tensor in tensors.items() if tensor.shape == (0,)]
    if 2 * len(emptied) > len(tensors):
        raise CheckpointProblem(
            f"{where} holds {len(emptied)} empty tensors, as DeepSpeed's ZeRO stage 3 leaves them: the values are spread over "
            "the files of all processes. In the folder of the checkpoints run: python zero_to_fp32.py . pytorch_model.bin",
            code="unsupported",
        )


def _settings(outer: dict[Any, Any]) -> dict[str, Any]:
    """The options that a training script saved, if they are plain values."""
    settings: dict[str, Any] = {}
    for key in _SETTINGS:
        value = outer.get(key)
        if isinstance(value, Record) and value.of in _NAMESPACES:
            value = value.state
        items = as_mapping(value) or {}
        settings |= {k: v for k, v in items.items() if isinstance(k, str) and isinstance(v, (bool, int, float, str))}
    return settings


def _kind(value: Any) -> str:
    return str(value.of) if isinstance(value, Record) else type(value).__name__
