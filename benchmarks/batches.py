"""Whether 1,000 batches are the same bytes in every framework, for any workers, parts of a batch and resumes.

    .venv/bin/python benchmarks/batches.py --data mnist-10k --out docs/benchmarks/batches.md

`polymae pretrain` runs with the recipe small-cpu and batches of 8, its real loop; in place of the gradients the tensors that the
framework was given are brought back and hashed. Exit status 1 where any digest differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from polymae.backends import FRAMEWORKS
from polymae.compare.record.environment import processor

STEPS = 1000
SETTINGS = ["batch_size=8", "epochs=12", "tensorboard=false", "save_every_epochs=null", "knn_every_epochs=null",
            "pictures_every_epochs=null"]  # fmt: skip


class Hashing:
    """Takes the place of Training: hashes each step's tensors, the parts of a batch put together."""

    def __init__(self, runtime: Any, model: Any, optimizer: Any, **options: Any):
        self.runtime, self.model, self.optimizer = runtime, model, optimizer
        self.parts: list[dict[str, Any]] = []
        self.digests: list[str] = []

    def accumulate(self, inputs: Any, share: float = 1.0, scale: float = 1.0) -> float:
        tensors = self.runtime.tensors(self.model, {name: inputs[name] for name in ("imgs", "noise")})
        self.parts.append({name: self.runtime.to_numpy(tensor) for name, tensor in tensors.items()})
        return 1.0

    def update(self, lr: float, scale: float = 1.0) -> float:
        whole = hashlib.sha256()
        for name in self.parts[0]:
            whole.update(np.concatenate([part[name] for part in self.parts]).tobytes())
        self.parts = []
        self.digests.append(whole.hexdigest())
        return 1.0


def child(request: dict[str, Any]) -> None:
    """Run one part of a run, and print the digests of its steps."""
    from polymae.backends.runtime import load_backend
    from polymae.training import pretrain
    from polymae.training.reading import read_recipe

    kind = type(load_backend(request["framework"]))
    made: list[Hashing] = []

    def training(self: Any, model: Any, optimizer: Any, **options: Any) -> Hashing:
        made.append(Hashing(self, model, optimizer))
        return made[-1]

    recipe = read_recipe("small-cpu", [*SETTINGS, *request["settings"]])
    out = Path(request["out"])
    resume = out if out.exists() else None
    of_run = pretrain.Request(request["framework"], Path(request["data"]), out, recipe, resume=resume, threads=1)
    with patch.object(kind, "training", training):
        pretrain.run_request(of_run)
    print("\n" + json.dumps(made[0].digests), flush=True)
    os._exit(0)  # OneFlow may hang at its exit


def digests(framework: str, data: str, stops: list[int], *settings: str) -> list[str]:
    """The digests of all steps of a run that is ended and gone on with at some of them."""
    hashes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for stop in [*stops, STEPS]:
            request = {
                "framework": framework,
                "data": data,
                "out": f"{folder}/run",
                "settings": [*settings, f"steps={stop}"],
            }
            done = subprocess.run(
                [sys.executable, __file__, "--child", json.dumps(request)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            hashes += json.loads(done.stdout.splitlines()[-1])
    return hashes


def main() -> int:
    """Hash, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist-10k")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(json.loads(args.child))
    stops = sorted(random.Random(0).sample(range(1, STEPS), 5))
    cases: dict[str, tuple[str, list[int], tuple[str, ...]]] = {
        f"{name}, 2 workers": (name, [], ("workers=2",)) for name in FRAMEWORKS
    }
    cases |= {f"numpy, {n} workers": ("numpy", [], (f"workers={n}",)) for n in (0, 1, 3)}
    cases |= {f"numpy, in {n} parts": ("numpy", [], (f"accumulate={n}",)) for n in (2, 4)}
    cases |= {f"numpy, gone on with at {', '.join(map(str, stops))}": ("numpy", stops, ())}
    rows: list[tuple[str, str, bool, int]] = []
    first: list[str] = []
    for words, (framework, at, settings) in cases.items():
        hashes = digests(framework, args.data, at, *settings)
        first = first or hashes
        assert len(hashes) == STEPS, (words, len(hashes))
        whole = hashlib.sha256("".join(hashes).encode()).hexdigest()
        rows.append((words, whole[:16], hashes == first, len(set(hashes))))
        print(*rows[-1], file=sys.stderr, flush=True)
    lines = [
        "# Batches",
        "",
        f"Written by `benchmarks/batches.py --data {Path(args.data).name}`: SHA-256 of the images and masking noise",
        f"of {STEPS} steps, as each framework's tensors hold them.",
        "",
        f"Machine: {processor()}, NumPy {np.__version__}.",
        "",
        "| run | digest | equal | different batches |",
        "|---|---|---|---|",
    ]
    lines += [f"| {words} | {digest} | {'yes' if same else '**no**'} | {n} |" for words, digest, same, n in rows]
    text = "\n".join(lines) + "\n"
    if args.out:
        args.out.write_text(text)
    print(text, end="")
    return int(not all(same and count == STEPS for _, _, same, count in rows))


if __name__ == "__main__":
    raise SystemExit(main())
