"""The words for a checkpoint's problems: every difference at once, and its probable cause."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..backends.config import Config, MAEConfig
from ..backends.presets import PRESETS
from ..backends.spec import Param, Shape, differences
from ..files.errors import option
from .dialects import OF_CLASSIFIERS, expected_params
from .identify import Identified, relative
from .tensors import Array, CheckpointProblem, Tensor, cast, of_array

_MOST_KINDS = 12  # of unknown tensors, named at once
_FEW = 12  # differences from a named model that are worth listing
_PUBLISHED = "https://dl.fbaipublicfiles.com/mae/"
_ESSENTIAL = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")  # every model here has them
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def layout_problems(
    expected: Iterable[Param], actual: Mapping[str, Tensor], identified: Identified, dtypes: Collection[str]
) -> list[str]:
    """A sentence for each difference in names, shapes and dtypes, with the file's own names if they are others."""
    wanted = {param.name: param for param in expected if param.name not in identified.problems}
    shapes = {name: tensor.shape for name, tensor in actual.items()}
    problems = [*identified.problems.values()]
    for sentence in differences({name: param.shape for name, param in wanted.items()}, shapes):
        name = sentence.partition(": ")[2].split(" ")[0]
        if sentence.startswith("shape: "):
            sentence = _mis_shaped(name, shapes[name], wanted[name].shape)
        problems.append(sentence + _in_file(name, wanted.get(name), identified))
    by_dtype: dict[str, list[str]] = {}
    for name, tensor in actual.items():
        if name in wanted and tensor.dtype not in dtypes:
            by_dtype.setdefault(tensor.dtype, []).append(name)
    for dtype, names in by_dtype.items():
        listed = ", ".join(names) if len(names) <= 8 else f"{len(names)} tensors, the first being {names[0]},"
        verb = "is" if len(names) == 1 else "are"
        problems.append(f"dtype: {listed} {verb} {dtype}, expected one of {', '.join(dtypes)}; save as float32")
    return problems


def _mis_shaped(name: str, actual: Shape, wanted: Shape) -> str:
    if actual == wanted[::-1]:
        return f"transposed: {name} is {actual}, expected {wanted}; the file stores it the other way round"
    others = [preset for preset, config in PRESETS.items() if _shapes(config).get(name) == actual]
    of_another = f"; that is the shape in {', '.join(others[:3])}" if others else ""
    return f"shape: {name} is {actual}, expected {wanted}{of_another}"


def _in_file(name: str, param: Param | None, identified: Identified) -> str:
    """The file's name of a tensor, whether it is there or not; "" if that is its name in the spec."""
    reading, spelling = identified.readings.get(name), identified.dialect.spellings.get(identified.contents)
    if reading is not None:
        names = reading.names
    elif param is not None and spelling is not None and name not in identified.dialect.derived:
        names = tuple(identified.prefix + n for n in spelling.spell(param).names)
    else:
        return ""
    return "" if names == (name,) else f" (in the file: {', '.join(names)})"


def oddities(identified: Identified) -> list[str]:
    """A sentence for the tensors that no model here has, and one for lacking tensors that every model has."""
    kinds = Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in identified.strangers)
    listed = [f"{kind} ({count} tensors)" if count > 1 else kind for kind, count in kinds.items()]
    more = f" and {len(listed) - _MOST_KINDS} more kinds" if len(listed) > _MOST_KINDS else ""
    problems = [f"unknown: {', '.join(listed[:_MOST_KINDS])}{more}: no model here has such tensors"] if listed else []
    known = {*identified.readings, *identified.problems, *identified.dialect.derived}
    lacking = [name for name in _ESSENTIAL if name not in known]
    return [*problems, *([f"missing: {', '.join(lacking)}, which every model here has"] if lacking else [])]


def report(path: Path, problems: Sequence[str], model: str | None, shown: Config | None, config: Config) -> str:
    """All problems in one message; only the first ones if the file is plainly of another model.

    model, shown: the model that the file shows by itself, if any; config: the expected one.
    """
    listed = list(problems)
    hint = ""
    if shown is not None and _shapes(shown) != _shapes(config):
        hint = f" Its shapes are those of {model}: is that the model you mean?" if model else ""
        listed = [*problems[:6], f"... and {len(problems) - 6} more"] if len(problems) > 7 else listed
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{path} does not fit ({count}).{hint}\n  " + "\n  ".join(listed)


def needs_decoder(path: Path, model: str | None, count: int) -> str:
    """The message for a file that holds an encoder alone, if an autoencoder is requested."""
    size = next((s for s in ("base", "large", "huge") if model and s in model), "<size>")
    return (
        f"{path} holds an encoder without a decoder ({count} tensors), as the published "
        f"mae_pretrain_vit_{size}.pth does; a masked autoencoder needs both. Use "
        f"{_PUBLISHED}pretrain/mae_pretrain_vit_{size}_full.pth (normalised pixels) or "
        f"{_PUBLISHED}visualize/mae_visualize_vit_{size}.pth (raw pixels), "
        "or convert the encoder alone (convert_weights --encoder-only)."
    )


def unknown_model(identified: Identified) -> str:
    """The message for a file of which nothing tells the model."""
    where, shapes, contents = identified.where, identified.spec_shapes, identified.contents
    if odd := oddities(identified):
        looks_like = relative(identified.shapes)
        listed = "\n  ".join([*odd, *identified.problems.values(), *([looks_like] if looks_like else [])])
        return f"{where} is of no model here:\n  {listed}"
    problems: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        if isinstance(preset, MAEConfig) != (contents in OF_CLASSIFIERS):
            expected = expected_params(preset, contents)
            known = {p.name: p.shape for p in expected if p.name not in identified.dialect.derived}
            problems[name] = differences(known, shapes)
    nearest = min(problems, key=lambda name: len(problems[name]))
    if len(problems[nearest]) <= _FEW:
        listed = "\n  ".join([*problems[nearest], *identified.problems.values()])
        return f"{where} is of no named model. It is nearest to {nearest}, but for:\n  {listed}"
    return (
        f"{where} has the shapes of no named model; say which it is with {option('-m')}. If one is close, name it to "
        "see every difference; if it is your own, put in what does not show in a file: "
        f"{option('-m')} '{_settings_for(shapes)}'"
    )


def _settings_for(shapes: Mapping[str, Shape]) -> str:
    """The text that `--model` needs for these shapes, with a question mark for settings that they do not show, as head counts."""
    D, C, p, _ = [*shapes.get("patch_embed.proj.weight", ()), 0, 0, 0, 0][:4]
    patches = max([*shapes.get("pos_embed", ()), 0, 0][1] - 1, 0)
    side = math.isqrt(patches)
    settings: dict[str, object] = {
        "img_size": side * p if side and side**2 == patches else "?",
        "patch_size": p,
        "in_chans": C,
        "embed_dim": D,
    }
    settings |= {"depth": _depth(shapes, "blocks."), "num_heads": "?"}
    if "decoder_embed.bias" in shapes:
        settings["decoder_embed_dim"] = shapes["decoder_embed.bias"][0]
        settings |= {"decoder_depth": _depth(shapes, "decoder_blocks."), "decoder_num_heads": "?"}
    if "head.bias" in shapes:
        settings |= {"num_classes": shapes["head.bias"][0], "pooling": "gap" if "fc_norm.weight" in shapes else "cls"}
    return ",".join(f"{key}={value}" for key, value in settings.items())


def _depth(shapes: Mapping[str, Shape], stack: str) -> int:
    return len({name.split(".")[1] for name in shapes if name.startswith(stack)})


def overflow_problem(path: Path, dtype: str, tensors: Mapping[str, Tensor]) -> CheckpointProblem:
    """The problem of finite tensors with values beyond a requested dtype: which these are, and which dtypes hold them all.

    tensors: by spec name, in the file's own dtype. Loads one after the other.
    """
    problems, largest = [], 0.0
    for name, tensor in tensors.items():
        sizes = np.abs(cast(tensor, "float64").load())
        count = int((~_fits(sizes, dtype)).sum())
        largest = max(largest, float(sizes.max(initial=0)))
        if count:
            problems.append(
                f"too large: {name} has {count:,} of {sizes.size:,} values beyond {dtype}, up to {sizes.max():g}"
            )
    holds = " or ".join(other for other in _FLOATS if _fits(np.array([largest]), other).all())
    return CheckpointProblem(
        f"{path} holds values that do not fit {dtype}, in {len(problems)} tensors; {holds} holds them all (--dtype).\n  "
        + "\n  ".join(problems),
        tuple(problems),
        code="not-expressible",
    )


def _fits(sizes: Array, dtype: str) -> Array:
    """Which float64 values stay finite in another dtype: booleans in the array's shape."""
    return np.isfinite(cast(cast(of_array(sizes), dtype), "float64").load())


def _shapes(config: Config) -> dict[str, Shape]:
    return {param.name: param.shape for param in expected_params(config)}
