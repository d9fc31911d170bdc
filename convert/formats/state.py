"""Finding the weights in an unpickled file: a state dict, alone or beside what training saves with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..tensors import CheckpointProblem, State, Tensor
from .checks import bounded_count, proper_name, shown
from .pickle_values import Global, Record

ORDERED_DICT = Global("collections", "OrderedDict")
_NAMESPACES = (Global("argparse", "Namespace"), Global("types", "SimpleNamespace"))
# Under which key training scripts keep the state dict: the official one and Lightning, PyTorch's tutorial, DeepSpeed.
WRAPPERS = ("model", "state_dict", "model_state_dict", "module")
# Under which they keep what is no model, or another model's average of it.
_NO_MODEL = ("optim", "sched", "scaler", "ema", "rng", "callbacks", "loops")
# Under which they keep their options.
_SETTINGS = ("args", "config", "hyper_parameters")
_PADDLE = "StructuredToParameterName@@"  # a key that paddle.save adds
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
    """The tensors in an unpickled value, and the names of what lies beside them.

    to_tensor gives None for what is not a tensor. size: gives the bytes stored, asked last. unknown: names of classes in
    the file. Several state dicts become one, each under its key. Raises CheckpointProblem where there is none.
    """
    outer = as_mapping(value)
    if outer is None:
        raise CheckpointProblem(f"{where} holds no dict of tensors but a single {_kind(value)}; {_SAVE}.")
    if _PADDLE in outer:
        raise CheckpointProblem(
            f"{where} is Paddle's: it stores the weight of every linear layer the other way round, square ones too, which "
            "no shape shows. In Paddle's Python: numpy.savez('weights.npz', **{n: t.numpy().T if t.ndim == 2 else t.numpy() "
            "for n, t in paddle.load(path).items()}), then convert weights.npz."
        )
    found = _state_dicts(outer, to_tensor, where)
    extras: list[str] = []
    if found:
        extras = [shown(str(key)) for key in outer if not any(keys[0] == key for keys in found)]
    tensors: dict[str, Tensor] = {}
    for keys, mapping in (found or {(): outer}).items():
        bounded_count(len(mapping) + len(tensors), where)
        start = "".join(f"{key}." for key in keys) if len(found) > 1 else ""
        for name, stored in mapping.items():
            tensor = to_tensor(shown(str(name)), stored)
            if tensor is None:
                extras.append(shown(start + str(name)))
            else:
                tensors[start + proper_name(name, where)] = tensor
    if not tensors:
        raise CheckpointProblem(_no_tensors(outer, extras, where))
    _refuse_emptied(tensors, where)
    needed = sum(tensor.nbytes for tensor in tensors.values())
    if needed > _MOST_SHARING * size():
        raise CheckpointProblem(
            f"{where} is no honest checkpoint: its tensors share their bytes so that {size():,} bytes would become {needed:,}."
        )
    under = ".".join(next(iter(found))) if len(found) == 1 else None
    return State(tensors, tuple(extras), under=under, settings=_settings(outer), unknown=unknown)


_SAVE = "save model.state_dict() and try again"


def _state_dicts(outer: dict[Any, Any], to_tensor: ToTensor, where: str) -> dict[tuple[str, ...], dict[Any, Any]]:
    """The state dicts inside a dict, by the keys that lead to them; none where the dict is one itself."""
    inside = {keys: mapping for keys, mapping in _mappings(outer) if _count(mapping, to_tensor)}
    named = {keys: mapping for keys, mapping in inside.items() if keys[-1] in WRAPPERS}
    shallowest = min(map(len, named or inside), default=0)
    chosen = {keys: mapping for keys, mapping in (named or inside).items() if len(keys) == shallowest}
    if not named and chosen and _count(outer, to_tensor) >= max(_count(m, to_tensor) for m in chosen.values()):
        return {}
    return chosen


def _mappings(outer: dict[Any, Any], keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """The dicts in a dict, and in those, under keys that a model may have."""
    for key, value in outer.items():
        mapping = as_mapping(value)
        if mapping is None or not isinstance(key, str) or any(part in key.lower() for part in _NO_MODEL):
            continue
        yield (*keys, key), mapping
        if len(keys) + 1 < _DEEPEST:
            yield from _mappings(mapping, (*keys, key))


def _count(mapping: Mapping[Any, Any], to_tensor: ToTensor) -> int:
    """How many tensors lie in a dict; a damaged one is told where it is read."""
    count = 0
    for name, value in mapping.items():
        try:
            count += to_tensor(shown(str(name)), value) is not None
        except CheckpointProblem:
            count += 1
    return count


def _no_tensors(outer: dict[Any, Any], extras: list[str], where: str) -> str:
    for key in WRAPPERS:
        if isinstance(value := outer.get(key), Record) and as_mapping(value) is None:
            return (
                f"{where} holds a whole {value.of} object under {key!r}, which only the program that it is of can load; there, "
                "save its state_dict()."
            )
    return f"{where} holds no tensors, only {', '.join(extras[:8]) or 'an empty dict'}; is it the right file?"


def _refuse_emptied(tensors: Mapping[str, Tensor], where: str) -> None:
    """DeepSpeed's ZeRO-3 leaves parameters of shape (0,) in mp_rank_00_model_states.pt: their values lie in other files."""
    emptied = [name for name, tensor in tensors.items() if tensor.shape == (0,)]
    if 2 * len(emptied) > len(tensors):
        raise CheckpointProblem(
            f"{where} holds {len(emptied)} empty tensors, as DeepSpeed's ZeRO stage 3 leaves them: the values are spread over "
            "the files of all processes. In the folder of the checkpoints run: python zero_to_fp32.py . pytorch_model.bin"
        )


def _settings(outer: dict[Any, Any]) -> dict[str, Any]:
    """The options that a training script saved, as far as they are plain values."""
    found: dict[str, Any] = {}
    for key in _SETTINGS:
        value = outer.get(key)
        if isinstance(value, Record) and value.of in _NAMESPACES:
            value = value.state
        items = as_mapping(value) or {}
        found |= {k: v for k, v in items.items() if isinstance(k, str) and isinstance(v, (bool, int, float, str))}
    return found


def _kind(value: Any) -> str:
    return str(value.of) if isinstance(value, Record) else type(value).__name__
