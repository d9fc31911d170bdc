"""The runs that a reference of `polymae runs compare` is made of, and the reference.

    .venv/bin/python benchmarks/references.py --data train.npz --runs RUNS
    .venv/bin/python benchmarks/references.py --data train.npz --runs RUNS --only oracle --steps 200
    .venv/bin/python benchmarks/references.py --data train.npz --runs RUNS --write

The recipe's first steps are trained by the float64 oracle and by float32 twins, which add in chains of another order each; the
whole of it by one framework in float32, with the recipe's seed and with others. A run that was stopped is gone on with, and one
that is complete is left. When all are there, the reference is written; --write writes it from what is there.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from polymae.backends.numpy.sums import summed_in_chains
from polymae.compare.record.environment import processor
from polymae.compare.runs.reference import REFERENCES, reference_of, write_reference
from polymae.compare.runs.run import read_run
from polymae.files.version import __version__
from polymae.training.checkpoints import facts_of, steps_of
from polymae.training.pretrain import Request, resumed, run_request
from polymae.training.reading import read_recipe

QUIET = ("tensorboard=false", "pictures_every_epochs=null", "knn_every_epochs=null", "save_every_epochs=1", "workers=0")
TWINS = 3
SEEDS = 3  # other than the recipe's


def main() -> int:
    """Make the missing runs, and write the reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="small-cpu")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=124, help="of oracle and twins")
    parser.add_argument("--framework", default="torch", help="of the whole runs")
    parser.add_argument("--only", help="one of the runs: oracle, twin1, ..., whole, seed1, ...")
    parser.add_argument("--write", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help="the reference's file (default: among those of the package)")
    args = parser.parse_args()
    for name, settings, dtype in () if args.write else wanted(args.recipe, args.steps):
        if args.only in (None, name):
            train(args, name, settings, dtype)
    if not args.only:
        write(args)
    return 0


def wanted(recipe: str, steps: int) -> Iterator[tuple[str, list[str], str]]:
    """Name, settings and dtype of every run."""
    yield "oracle", [f"steps={steps}"], "float64"
    for twin in range(1, TWINS + 1):
        yield f"twin{twin}", [f"steps={steps}"], "float32"
    yield "whole", [], "float32"
    for other in range(1, SEEDS + 1):
        yield f"seed{other}", [f"seed={read_recipe(recipe).seed + other}"], "float32"


def train(args: argparse.Namespace, name: str, settings: list[str], dtype: str) -> None:
    """Do a run, or go on with it; one that is complete is left."""
    out = args.runs / name
    framework = args.framework if name.startswith(("whole", "seed")) else "numpy"
    recipe = read_recipe(args.recipe, [*QUIET, *settings])
    if steps_of(out):
        request = resumed(out, [*QUIET, *settings], recipe=args.recipe, threads=1)
    else:
        request = Request(framework, args.data, out, recipe, threads=1, dtype=dtype)
    with summed_in_chains(int(name[4:])) if name.startswith("twin") else nullcontext():
        run_request(request, show=True)


def write(args: argparse.Namespace) -> None:
    """Make the reference of the runs."""
    runs = {name: read_run(args.runs / name) for name, _, _ in wanted(args.recipe, args.steps)}
    whole = args.runs / "whole" / "checkpoints"
    versions = facts_of(whole / str(steps_of(whole.parent)[-1])).versions
    made = {
        "oracle": f"NumPy {np.__version__}, float64",
        "twins": f"{TWINS} of float32",
        "whole run": ", ".join(f"{name} {version}" for name, version in versions.items() if name != "polymae"),
        "PolyMAE": __version__,
        "processor": f"{processor()}, {platform.system()}",
    }
    twins, seeds = ([runs[name] for name in runs if name.startswith(kind)] for kind in ("twin", "seed"))
    path = args.out or REFERENCES / f"{args.recipe}.json"
    write_reference(path, reference_of(args.recipe, runs["oracle"], twins, runs["whole"], seeds, made))
    print(path)


if __name__ == "__main__":
    raise SystemExit(main())
