"""The words for what is wrong with a checkpoint: every difference at once, and what it probably means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ..backends.config import Config
from ..backends.presets import PRESETS
from ..backends.spec import Param, Shape, differences
from .dialects.contents import expected_params
from .identify import Identified
from .tensors import Tensor

_MOST_KINDS = 12  # of unknown tensors, named at once
_PUBLISHED = "https://dl.fbaipublicfiles.com/mae/"


def layout_problems(
    expected: Iterable[Param], actual: Mapping[str, Tensor], identified: Identified, dtypes: Collection[str]
) -> list[str]:
    """A sentence for each difference in names, shapes and dtypes, with the file's own names where they are others."""
    wanted = {param.name: param for param in expected if param.name not in identified.problems}
    shapes = {name: tensor.shape for name, tensor in actual.items()}
    found = [*identified.problems.values()]
    for sentence in differences({name: param.shape for name, param in wanted.items()}, shapes):
        name = sentence.partition(": ")[2].split(" ")[0]
        if sentence.startswith("shape: "):
            sentence = _mis_shaped(name, shapes[name], wanted[name].shape)
        found.append(sentence + _in_file(name, wanted.get(name), identified))
    by_dtype: dict[str, list[str]] = {}
    for name, tensor in actual.items():
        if name in wanted and tensor.dtype not in dtypes:
            by_dtype.setdefault(tensor.dtype, []).append(name)
    for dtype, names in by_dtype.items():
        listed = ", ".join(names) if len(names) <= 8 else f"{len(names)} tensors, the first being {names[0]},"
        verb = "is" if len(names) == 1 else "are"
        found.append(f"dtype: {listed} {verb} {dtype}, expected one of {', '.join(dtypes)}; save as float32")
    return found


def _mis_shaped(name: str, there: Shape, wanted: Shape) -> str:
    if there == wanted[::-1]:
        return f"transposed: {name} is {there}, expected {wanted}; the file stores it the other way round"
    others = [preset for preset, config in PRESETS.items() if _shapes(config).get(name) == there]
    of_another = f"; that is the shape in {', '.join(others[:3])}" if others else ""
    return f"shape: {name} is {there}, expected {wanted}{of_another}"


def _in_file(name: str, param: Param | None, identified: Identified) -> str:
    """What the file calls, or would call, a tensor; nothing where that is its name in the spec."""
    reading, spelling = identified.readings.get(name), identified.dialect.spellings.get(identified.contents)
    if reading is not None:
        names = reading.names
    elif param is not None and spelling is not None and name not in identified.dialect.derived:
        names = tuple(identified.prefix + n for n in spelling.spell(param).names)
    else:
        return ""
    return "" if names == (name,) else f" (in the file: {', '.join(names)})"


# What every model here has.
_ESSENTIAL = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")


def oddities(identified: Identified) -> list[str]:
    """A sentence for what a file holds that no model here has, and for what it lacks that every model has."""
    kinds = Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in identified.strangers)
    listed = [f"{kind} ({count} tensors)" if count > 1 else kind for kind, count in kinds.items()]
    more = f" and {len(listed) - _MOST_KINDS} more kinds" if len(listed) > _MOST_KINDS else ""
    found = [f"unknown: {', '.join(listed[:_MOST_KINDS])}{more}: no model here has such tensors"] if listed else []
    there = {*identified.readings, *identified.problems, *identified.dialect.derived}
    lacking = [name for name in _ESSENTIAL if name not in there]
    return [*found, *([f"missing: {', '.join(lacking)}, which every model here has"] if lacking else [])]


def report(path: Path, found: list[str], model: str | None, own: Config | None, config: Config) -> str:
    """All problems in one message; only the first ones where the file is plainly of another model."""
    shown = found
    hint = ""
    if own is not None and _shapes(own) != _shapes(config):
        hint = f" Its shapes are those of {model}: is that the model you mean?" if model else ""
        shown = [*found[:6], f"... and {len(found) - 6} more"] if len(found) > 7 else found
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    return f"{path} does not fit ({count}).{hint}\n  " + "\n  ".join(shown)


def needs_decoder(path: Path, model: str | None, count: int) -> str:
    """What to say where an autoencoder is asked for and the file holds an encoder alone."""
    size = next((s for s in ("base", "large", "huge") if model and s in model), "<size>")
    return (
        f"{path} holds an encoder without a decoder ({count} tensors), as the published "
        f"mae_pretrain_vit_{size}.pth does; a masked autoencoder needs both. Use "
        f"{_PUBLISHED}pretrain/mae_pretrain_vit_{size}_full.pth (normalised pixels) or "
        f"{_PUBLISHED}visualize/mae_visualize_vit_{size}.pth (raw pixels), "
        "or convert the encoder alone (convert_weights --encoder-only)."
    )


def _shapes(config: Config) -> dict[str, Shape]:
    return {param.name: param.shape for param in expected_params(config)}
