"""The part of a file's names that is the model: without wrappers, and without the other parts of a larger model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from ..files.errors import option
from .tensors import CheckpointProblem

T = TypeVar("T")
FileNames = Mapping[str, str]  # the file's own names, by the names without prefix and wrappers

# The wrappers that DistributedDataParallel, torch.compile, FSDP and activation checkpointing put before and into names.
_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_DEEPEST = 4
# A decoder's own names, wherever its part lies.
_DECODER = ("decoder_", "mask_token")
_ENTRANCE = re.compile(r"(.*\.)?patch_embed[\w.]*\.weight")  # every encoder begins with it
_MOST_NAMED = 6


def unwrapped(names: Collection[str]) -> dict[str, str]:
    """The file's own names, by the same names without wrappers; unchanged if two would become one."""
    shorter = {_WRAPPERS.sub("", name): name for name in names}
    return shorter if len(shorter) == len(names) else {name: name for name in names}


def under(file_names: FileNames, prefix: str, where: str) -> dict[str, str]:
    """The names under a requested prefix (--prefix). Raises CheckpointProblem if there are none."""
    start = f"{prefix.strip('.')}."
    for names in (file_names, {name: name for name in file_names.values()}):
        if inner := {name.removeprefix(start): names[name] for name in names if name.startswith(start)}:
            return inner
    raise CheckpointProblem(
        f"No tensor in {where} has a name that begins with {start!r}; there are {grouped(file_names)}. Name one "
        f"of these with {option('--prefix')}.",
        code="bad-argument",
    )


def find_part(
    file_names: FileNames, fitting: Callable[[FileNames], list[T]], where: str
) -> tuple[dict[str, str], list[T]]:
    """The names of the part that is a model, and its fits: of the whole if there are any, else the highest part that does.

    fitting: gives the fits of such names, none if they are of no model. An autoencoder's decoder may be another part
    beside its encoder. Raises CheckpointProblem if several parts are models.
    """
    for depth in range(_DEEPEST + 1):
        parts: dict[str, dict[str, str]] = {}
        for name, name_in_file in file_names.items():
            start, rest = _split(name, depth)
            if rest:
                parts.setdefault(start, {})[rest] = name_in_file
        models = {start: kinds for start, inner in parts.items() if (kinds := fitting(inner))}
        if len(models) > 1:
            models = {s: k for s, k in models.items() if any(map(_ENTRANCE.fullmatch, parts[s]))} or models
        if len(models) > 1:
            listed = ", ".join(f"{start!r} ({len(parts[start])} tensors)" for start in models)
            raise CheckpointProblem(
                f"{where} holds several models, under {listed}; name one with {option('--prefix')}.", code="ambiguous"
            )
        for start, kinds in models.items():
            return _with_decoder(parts, start), kinds
    return {}, []


def _split(name: str, depth: int) -> tuple[str, str]:
    """The first components of a name with the dot behind them, and the rest; no rest if there are too few."""
    parts = name.split(".", depth)
    return (".".join([*parts[:depth], ""]), parts[depth]) if len(parts) > depth else ("", "")


def _with_decoder(parts: Mapping[str, dict[str, str]], start: str) -> dict[str, str]:
    """A part; if it has no decoder, with those beside it that are nothing but a decoder."""
    inner = parts[start]
    if any(name.startswith(_DECODER) for name in inner):
        return inner
    return inner | {
        name: name_in_file
        for other, names in parts.items()
        if other != start and all(name.startswith(_DECODER) for name in names)
        for name, name_in_file in names.items()
    }


def prefix_of(file_names: FileNames) -> str:
    """The beginning of every name in the file; "" if it differs."""
    starts = {
        name_in_file.removesuffix(name) if name_in_file.endswith(name) else ""
        for name, name_in_file in file_names.items()
    }
    return starts.pop() if len(starts) == 1 else ""


def grouped(names: Collection[str]) -> str:
    """Names by their first component, with their count, for people."""
    counts = Counter(name.partition(".")[0] + ("." if "." in name else "") for name in names)
    listed = [f"{start} ({count} tensors)" if count > 1 else start for start, count in counts.most_common(_MOST_NAMED)]
    more = len(counts) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")
