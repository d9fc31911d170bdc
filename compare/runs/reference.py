"""Reference curves: a recipe's first steps by the float64 oracle and its float32 twins, and the whole of it in float32.

A reference is one JSON file. Those of named recipes come with the package (references/); benchmarks/references.py makes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files.atomic import replacing
from ...files.errors import Problem
from ...training.reading import read_any_recipe
from ...training.recipe import Common, tree_of
from .run import Run

FORMAT = 1
REFERENCES = Path(__file__).parent / "references"
_DATA = ("images", "fingerprint", "first_batch")

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """The curves of one recipe on one data set.

    oracle, oracle_norm: losses and gradient norms of float64 NumPy [n]. twins, twin_norms: those of float32 twins, which
    sum in another order each. whole: losses [m] of a run in float32. lr: learning rates [m] of its steps. epochs: its mean
    loss in each epoch [e]. seeds: the same of runs with other seeds, [s, e]. made: the versions and machine that made it.
    """

    name: str
    recipe: Common
    data: Mapping[str, Any]
    oracle: Curve
    oracle_norm: Curve
    twins: Sequence[Curve]
    twin_norms: Sequence[Curve]
    lr: Curve
    whole: Curve
    epochs: Curve
    seeds: Curve
    made: Mapping[str, str]

    @property
    def per_epoch(self) -> int:
        """The steps of an epoch."""
        return self.lr.size // max(self.epochs.size, 1)


def named() -> list[str]:
    """The references that come with the package."""
    return sorted(path.stem for path in REFERENCES.glob("*.json"))


def read_reference(name: str | Path) -> Reference:
    """A reference by its name, or of a file. Raises Problem, with the nearest name, where there is none."""
    path = REFERENCES / f"{name}.json" if str(name) in named() else Path(name)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["format"] != FORMAT:
            raise Problem(f"{path} is a reference of format {tree['format']}, and this version reads {FORMAT}.")
        curves = {key: np.array(tree[key], np.float64) for key in ("oracle", "oracle_norm", "lr", "whole", "epochs")}
        twins, norms = ([np.array(curve, np.float64) for curve in tree[key]] for key in ("twins", "twin_norms"))
        seeds = np.array(tree["seeds"], np.float64).reshape(-1, curves["epochs"].size)
        recipe = read_any_recipe(tree["recipe"])
        if not twins or any(curve.shape != curves["oracle"].shape for curve in (curves["oracle_norm"], *twins, *norms)):
            raise ValueError("its twins are not as long as its oracle")
        return Reference(
            str(tree["name"]), recipe, {key: tree["data"][key] for key in _DATA}, twins=twins, twin_norms=norms, seeds=seeds,
            made=dict(tree["made"]), **curves,
        )  # fmt: skip
    except (FileNotFoundError, IsADirectoryError):
        near = get_close_matches(str(name), named(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise Problem(
            f"There is no reference {str(name)!r}, and no file of that name; there are {', '.join(named()) or 'none'}.{hint}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise Problem(
            f"{path} is not a reference ({problem!r}); give a name ({', '.join(named())}), or a file that "
            "benchmarks/references.py wrote."
        ) from None


def reference_of(
    name: str, oracle: Run, twins: Sequence[Run], whole: Run, seeds: Sequence[Run], made: Mapping[str, str]
) -> Reference:
    """The reference of these runs; oracle and twins are cut to the shortest of them. Raises Problem for unequal runs."""
    steps = min(run.steps.size for run in (oracle, *twins))
    for run in (oracle, *twins, whole, *seeds):
        if not np.array_equal(run.steps, np.arange(1, run.steps.size + 1)):
            raise Problem(f"{run.path} lacks steps; a reference is made of runs that have them all from the first.")
    for run in (*twins, whole):
        if any(run.data.get(key) != oracle.data.get(key) for key in _DATA):
            raise Problem(f"{run.path} was fed with other data than {oracle.path}; make both again from one data set.")
    count = max(whole.epoch_means) + 1
    for run in seeds:
        if run.steps.size != whole.steps.size:
            raise Problem(
                f"{run.path} has {run.steps.size} steps, and {whole.path} has {whole.steps.size}; go on with it."
            )
    return Reference(
        name, whole.recipe, {key: oracle.data[key] for key in _DATA}, oracle.loss[:steps], oracle.grad_norm[:steps],
        [twin.loss[:steps] for twin in twins], [twin.grad_norm[:steps] for twin in twins], whole.lr, whole.loss,
        _means(whole, count), np.array([_means(run, count) for run in seeds]).reshape(-1, count), made,
    )  # fmt: skip


def _means(run: Run, count: int) -> Curve:
    return np.array([run.epoch_means[epoch] for epoch in range(count)])


def write_reference(path: Path, reference: Reference) -> None:
    """Write a reference's file; every number in it is read again with the same bits."""
    tree = {
        "format": FORMAT, "name": reference.name, "made": dict(reference.made), "recipe": tree_of(reference.recipe),
        "data": dict(reference.data),
        "oracle": reference.oracle.tolist(), "oracle_norm": reference.oracle_norm.tolist(),
        "twins": [curve.tolist() for curve in reference.twins], "twin_norms": [curve.tolist() for curve in reference.twin_norms],
        "lr": reference.lr.tolist(), "whole": reference.whole.tolist(), "epochs": reference.epochs.tolist(),
        "seeds": reference.seeds.tolist(),
    }  # fmt: skip
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in tree.items()]
    with replacing(path) as new:
        new.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
