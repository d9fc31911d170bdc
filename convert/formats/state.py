"""Finding the weights in an unpickled file: a state dict, alone or beside what training saves with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensors import CheckpointProblem, State, Tensor
from .checks import bounded_count, proper_name, shown
from .pickle_values import Global, Record

ORDERED_DICT = Global("collections", "OrderedDict")
# Under which key training scripts keep the state dict.
WRAPPERS = ("model", "state_dict")
# Tensors may share their bytes (tied weights, expanded ones), but not so that a small file becomes a large model.
_MOST_SHARING = 16


def as_mapping(value: Any) -> dict[Any, Any] | None:
    """The items of a dict or an OrderedDict; None for anything else."""
    if isinstance(value, Record) and value.of == ORDERED_DICT:
        return value.items
    return value if isinstance(value, dict) else None


def find_state(
    value: Any, to_tensor: Callable[[str, Any], Tensor | None], where: str, size: Callable[[], int]
) -> State:
    """The tensors in an unpickled value, and the names of what lies beside them.

    to_tensor gives None for what is not a tensor. size: gives the bytes stored, asked last.
    Raises CheckpointProblem where there is no state dict.
    """
    outer = as_mapping(value)
    if outer is None:
        raise CheckpointProblem(
            f"{where} holds no dict of tensors but a single {_kind(value)}; save model.state_dict() and try again."
        )
    wrappers = [key for key in WRAPPERS if as_mapping(outer.get(key)) is not None]
    if len(wrappers) > 1:
        raise CheckpointProblem(
            f"{where} holds state dicts under {' and '.join(map(repr, wrappers))}; save the one you mean to a file."
        )
    extras: list[str] = []
    if wrappers:
        extras = [shown(str(key)) for key in outer if key != wrappers[0]]
        outer = as_mapping(outer[wrappers[0]]) or {}
    bounded_count(len(outer), where)
    tensors: dict[str, Tensor] = {}
    for name, stored in outer.items():
        tensor = to_tensor(shown(str(name)), stored)
        if tensor is None:
            extras.append(shown(str(name)))
        else:
            tensors[proper_name(name, where)] = tensor
    if not tensors:
        raise CheckpointProblem(
            f"{where} holds no tensors, only {', '.join(extras[:8]) or 'an empty dict'}; is it the right file?"
        )
    needed = sum(tensor.nbytes for tensor in tensors.values())
    if needed > _MOST_SHARING * size():
        raise CheckpointProblem(
            f"{where} is no honest checkpoint: its tensors share their bytes so that {size():,} bytes would become {needed:,}."
        )
    return State(tensors, tuple(extras), under=wrappers[0] if wrappers else None)


def _kind(value: Any) -> str:
    return str(value.of) if isinstance(value, Record) else type(value).__name__
