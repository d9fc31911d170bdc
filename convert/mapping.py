"""Which tensor of a file goes where, and what is done to it on the way: for people who want to see it before."""

from __future__ import annotations

from .changes import Weights
from .checkpoint import Checkpoint
from .dialects import Dialect
from .shapes import expected_params


def mapping(checkpoint: Checkpoint, weights: Weights, target: Dialect) -> list[tuple[str, str, str, str]]:
    """A row for each of the weights: names in the file, name in the spec with the shape, names in the target, what is done.

    In the spec's order; derived tensors have a dash in place of a name. What is left out of the file comes last.
    """
    rows = [("FROM", "SPEC", "TO", "")]
    spelling = target.spellings.get(weights.contents)
    for param in expected_params(weights.config, weights.contents):
        reading = checkpoint.identified.readings.get(param.name)
        if param.name not in weights.tensors:
            continue
        names, layout = spelling.spell(param) if spelling else ((), None)
        if param.name in target.derived:
            names, layout = (), None
        done = [f"as {reading.layout} reversed"] if reading and reading.layout else []
        done += ["joined"] if reading and len(reading.names) > 1 else []
        done += [f"as {layout}"] if layout else []
        done += ["cut"] if len(names) > 1 else []
        shape = "x".join(map(str, weights.tensors[param.name].shape))
        rows.append(
            (
                ", ".join(reading.names) if reading else "-",
                f"{param.name} {shape}",
                ", ".join(names) or "-",
                "; ".join(done),
            )
        )
    for spec, reading in checkpoint.identified.readings.items():
        if spec not in weights.tensors:
            rows.append((", ".join(reading.names), spec, "-", "left out"))
    return rows
