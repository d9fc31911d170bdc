"""Runs that are stopped in one framework and gone on with in another, beside runs that were not stopped.

    .venv/bin/python benchmarks/resumed.py --data mnist-10k --out docs/benchmarks/resumed.md

100 steps of the recipe small-cpu with a smaller model; stopped after 50 in every framework, gone on with in every one, each
in a process of its own with one thread. Exit status 1 where the same framework does not give the same bits, or where a pair is
further from its first framework's run than 4 times the furthest two uninterrupted runs are from each other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polymae.backends import FRAMEWORKS
from polymae.backends.blas import thread_variables
from polymae.backends.optimization import trainable
from polymae.compare.record.environment import processor
from polymae.convert.checkpoint import open_checkpoint
from polymae.training.reading import read_recipe

STEPS, STOP = 100, 50
MODEL = (
    "model=img_size=28,patch_size=7,in_chans=1,embed_dim=48,depth=2,num_heads=3,decoder_embed_dim=32,decoder_depth=1,"
    "decoder_num_heads=4"
)
SETTINGS = [MODEL, "batch_size=32", "epochs=1", "warmup_epochs=0.08", "tensorboard=false", "knn_every_epochs=null",
            "pictures_every_epochs=null"]  # fmt: skip


def pretrain(framework: str, data: str, out: Path, steps: int, resume: Path | None = None) -> Path:
    """Run the command."""
    begin = ["--resume", str(resume)] if resume else ["--recipe", "small-cpu"]
    settings = [f"steps={steps}"] if resume else [*SETTINGS, f"steps={steps}"]
    subprocess.run(
        [sys.executable, "-m", "polymae", "pretrain", "--framework", framework, "--data", data, "--out", str(out), "--threads",
         "1", *begin, "--set", *settings],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | thread_variables(1),
    )  # fmt: skip
    return out


def losses(run: Path) -> NDArray[np.float64]:
    """The loss of every step [steps]."""
    return np.array([json.loads(line)["loss"] for line in (run / "steps.jsonl").read_text().splitlines()])


def weights(run: Path) -> NDArray[np.float64]:
    """All trained weights after the last step, in one vector."""
    config = read_recipe("small-cpu", SETTINGS).config
    arrays = open_checkpoint(run / "checkpoints/last/weights.safetensors").weights(config)
    return np.concatenate([np.asarray(arrays[param.name], np.float64).ravel() for param in trainable(config)])


def apart(one: Path, other: Path) -> tuple[float, float]:
    """The largest relative distance of losses, and the relative L2 distance of weights after the last step."""
    a, b = losses(one), losses(other)
    assert len(a) == len(b) == STEPS
    v, w = weights(one), weights(other)
    return float(np.max(np.abs(a - b) / np.abs(a))), float(np.linalg.norm(v - w) / np.linalg.norm(v))


def same_bits(one: Path, other: Path) -> bool:
    """Whether two runs have the same losses, weights and moments, bit for bit."""
    files = ("steps.jsonl", "checkpoints/last/weights.safetensors", "checkpoints/last/optimizer.safetensors")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


def main() -> int:
    """Train, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist-10k")
    parser.add_argument("--frameworks", nargs="+", default=list(FRAMEWORKS), choices=FRAMEWORKS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        whole = {name: pretrain(name, args.data, folder / name, STEPS) for name in args.frameworks}
        stopped = {name: pretrain(name, args.data, folder / f"{name}-stopped", STOP) for name in args.frameworks}
        print("uninterrupted runs are done", file=sys.stderr, flush=True)
        between = {pair: apart(whole[pair[0]], whole[pair[1]]) for pair in combinations(args.frameworks, 2)}
        pairs, bits = {}, {}
        for first in args.frameworks:
            for then in args.frameworks:
                run = pretrain(then, args.data, folder / f"{first}-{then}", STEPS, stopped[first])
                pairs[first, then] = apart(whole[first], run)
                bits[first, then] = same_bits(whole[first], run)
                print(first, then, *pairs[first, then], bits[first, then], file=sys.stderr, flush=True)
    furthest = [max(value[i] for value in between.values()) for i in (0, 1)]

    def cell(first: str, then: str) -> str:
        return "same bits" if bits[first, then] else f"{pairs[first, then][0]:.1e}, {pairs[first, then][1]:.1e}"

    names = args.frameworks
    lines = [
        "# Gone on with in another framework", "",
        f"Written by `benchmarks/resumed.py`: {STEPS} steps, stopped after {STOP}. Against the uninterrupted run of the first",
        "framework: the largest relative distance of a step's loss, and the relative L2 distance of the weights at the end.", "",
        f"Machine: {processor()}, one thread.", "",
        f"| stopped in \\ gone on with in | {' | '.join(names)} |", f"|---|{'---|' * len(names)}",
        *(f"| {first} | {' | '.join(cell(first, then) for then in names)} |" for first in names), "",
        "Two runs that were not stopped, in two frameworks:", "", "| | losses | weights |", "|---|---|---|",
        *(f"| {a}, {b} | {x:.1e} | {y:.1e} |" for (a, b), (x, y) in between.items()),
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    if args.out:
        args.out.write_text(text)
    print(text, end="")
    wrong = [name for name in names if not bits[name, name]]
    wrong += [str(pair) for pair, each in pairs.items() if any(each[i] > 4 * furthest[i] for i in (0, 1))]
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
