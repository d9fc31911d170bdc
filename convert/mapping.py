"""Which tensor of a file goes where, and what is done to it on the way: for people who want to see it before."""

from __future__ import annotations

from itertools import zip_longest

from .checkpoint import Checkpoint
from .dialects import Dialect
from .dialects.contents import expected_params
from .layouts import inverse
from .transform import WeightSet


def mapping(checkpoint: Checkpoint, weights: WeightSet, target: Dialect) -> list[tuple[str, str, str, str]]:
    """A row for each of the weights: names in the file, name in the spec with the shape, names in the target, what is done.

    In the spec's order; parts of one tensor stand in rows of their own, derived tensors have a dash in place of a name.
    Layouts are patterns as einops has them. What is left out of the file comes last.
    """
    rows = [("FROM", "SPEC", "TO", "")]
    spelling = target.spellings.get(weights.contents)
    for param in expected_params(weights.config, weights.contents):
        if param.name not in weights.tensors:
            continue
        reading = checkpoint.identified.readings.get(param.name)
        names, layout = spelling.spell(param) if spelling and param.name not in target.derived else ((), None)
        done = [f"laid out {inverse(reading.layout)}"] if reading and reading.layout else []
        done += ["joined"] if reading and len(reading.names) > 1 else []
        done += [f"laid out {layout}"] if layout else []
        done += ["cut in parts"] if len(names) > 1 else []
        done += ["derived"] if reading is None else []
        shape = "x".join(map(str, weights.tensors[param.name].shape))
        sources = reading.names if reading else ("-",)
        columns = (sources, [f"{param.name} {shape}"], names or ("-",), ["; ".join(done)])
        rows += zip_longest(*columns, fillvalue="")
    for spec, reading in checkpoint.identified.readings.items():
        if spec not in weights.tensors:
            rows += [(name, spec, "-", "left out") for name in reading.names]
    return rows
