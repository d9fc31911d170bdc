"""Few labels: a pre-trained encoder beside a drawn one, fine-tuned, probed and by nearest neighbours, in every framework.

    .venv/bin/python benchmarks/few_labels.py --data mnist-10k --out docs/benchmarks/few-labels.md

For each seed an encoder is pre-trained once (recipe small-cpu, PyTorch), and another is drawn. Each framework begins with the
same weights and takes the same batches, so that its accuracies should differ by no more than those of PyTorch under the kernels
of another CPU ("twins"), or by one digit. Exit status 1 where pre-training does not win, or where a framework is further off.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from kernel_settings import HERE, under

from polymae.backends import FRAMEWORKS
from polymae.backends.blas import thread_variables
from polymae.backends.initial import initial_weights
from polymae.compare.record.environment import processor
from polymae.convert.writing import write_checkpoint
from polymae.training.reading import read_recipe

TWINS = ("Prescott, SSE4.1", "SkylakeX, AVX-512")  # those that this CPU has, beside its usual kernels
DIGIT = 100 / 2000  # one of those that are measured on, in percent
BEGINNINGS = ("drawn", "pre-trained")
MEASURES = {
    "fine-tuned": "150 steps of `small-cpu-finetune`, 10 labels of each digit",
    "probed": "200 steps of `small-cpu-linprobe`, 50 labels of each digit",
    "nearest": "`polymae knn`, 8,000 labels",
}


class Measured(NamedTuple):
    """A measurement of one encoder. runner: a framework, or PyTorch under the kernels of a setting."""

    runner: str
    measure: str
    beginning: str
    seed: int


def main() -> int:
    """Train, measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist-10k")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frameworks", nargs="+", default=list(FRAMEWORKS), choices=FRAMEWORKS)
    parser.add_argument("--measures", nargs="+", default=list(MEASURES), choices=MEASURES)
    parser.add_argument(
        "--runs", type=Path, help="folder in which the runs stay; those that it holds are not done again"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = _Work(args.runs or Path(place), args.data)
        top1: dict[Measured, float] = {}
        for seed in range(args.seeds):
            for runner, setting in [*((name, HERE[0]) for name in args.frameworks), *_twins(args.frameworks)]:
                for measure in args.measures:
                    for beginning in BEGINNINGS:
                        one = Measured(runner, measure, beginning, seed)
                        with under(setting):
                            top1[one] = work.top1(one)
                        print(*one, f"{top1[one]:.2f}", file=sys.stderr, flush=True)
                if args.out:
                    args.out.write_text(_page(top1))
    text = _page(top1)
    print(text, end="")
    return int("NO" in text)


def _twins(frameworks: Iterable[str]) -> list[tuple[str, str]]:
    return [(f"torch, {name}", name) for name in TWINS if name in HERE] if "torch" in frameworks else []


class _Work:
    """The runs, in a folder: each is done once."""

    def __init__(self, folder: Path, data: str):
        self.folder, self.data = folder, data
        folder.mkdir(parents=True, exist_ok=True)

    def top1(self, one: Measured) -> float:
        """Top-1 in percent on the 2,000 digits that nothing was trained on."""
        out = self.folder / "-".join(str(part).replace(", ", "-") for part in one)
        done = out.with_name(f"{out.name}.json")  # a name may hold a point
        if not done.exists():
            shutil.rmtree(out, ignore_errors=True)  # of a run that was not finished
            framework = one.runner.split(",")[0]
            common = ["--framework", framework, "--data", self.data, "--weights", str(self.encoder(one)), "--json"]
            if one.measure == "nearest":
                command = ["knn", *common, "-m", read_recipe("small-cpu").model, "--mean", "0.1307", "--std", "0.3081",
                           "--threads", "1"]  # fmt: skip
            else:
                name, epochs = {"fine-tuned": ("finetune", 150), "probed": ("linprobe", 50)}[one.measure]
                once = [f"{setting}={epochs}" for setting in ("evaluate_every_epochs", "save_every_epochs")]
                command = [name, *common, "--out", str(out), "--recipe", f"small-cpu-{name}", "--threads", "1", "--set",
                           f"seed={one.seed}", *once]  # fmt: skip
            done.write_text(_polymae(command))
        top1: float = json.loads(done.read_text())["top1"]
        return top1

    def encoder(self, one: Measured) -> Path:
        """The autoencoder that a measurement begins with."""
        path = self.folder / f"{one.beginning}-{one.seed}"
        if one.beginning == "drawn":
            path = path.with_suffix(".pth")
            if not path.exists():
                config = read_recipe("small-cpu").config
                write_checkpoint("torch", path, config, initial_weights(config, one.seed))
        elif not path.exists():
            with under(HERE[0]):
                _polymae(["pretrain", "--framework", "torch", "--data", self.data, "--out", str(path), "--recipe",
                          "small-cpu", "--threads", "1", "--set", f"seed={one.seed}"])  # fmt: skip
        return path


def _polymae(command: list[str]) -> str:
    """The last line that a command printed."""
    done = subprocess.run(
        [sys.executable, "-m", "polymae", *command], check=True, stdout=subprocess.PIPE, text=True,
        env=os.environ | thread_variables(1),
    )  # fmt: skip
    return done.stdout.strip().splitlines()[-1]


def _page(top1: dict[Measured, float]) -> str:
    lines = [
        "# Few labels",
        "",
        "Written by `benchmarks/few_labels.py`: top-1 in percent on 2,000 digits of MNIST, for each seed and their mean. An",
        "encoder of `small-cpu`, pre-trained on 8,000 digits without labels by PyTorch, or as it is drawn; then in each",
        "framework the same batches.",
        "",
        f"Machine: {processor()}, one thread. Twins: PyTorch under the kernels of other CPUs.",
    ]
    for measure in dict.fromkeys(one.measure for one in top1):
        lines += ["", f"## {measure}: {MEASURES[measure]}", ""]
        lines += [
            f"| runner | {' | '.join(f'{name} | mean' for name in BEGINNINGS)} | pre-training wins |",
            "|---|---|---|---|---|---|",
        ]
        for runner in dict.fromkeys(one.runner for one in top1):
            of = {name: [top1[one] for one in top1 if one[:3] == (runner, measure, name)] for name in BEGINNINGS}
            if not all(of.values()):
                continue
            cells = (f"{' '.join(f'{value:.2f}' for value in of[name])} | {mean(of[name]):.2f}" for name in BEGINNINGS)
            wins = all(after > before for before, after in zip(*of.values()))
            lines.append(f"| {runner} | {' | '.join(cells)} | {'at each seed' if wins else 'NO'} |")
        lines += ["", *_distances(top1, measure)]
    return "\n".join(lines) + "\n"


def _distances(top1: dict[Measured, float], measure: str) -> list[str]:
    """How far frameworks and twins are from PyTorch, over seeds and beginnings."""
    away: dict[bool, list[float]] = {False: [], True: []}
    for one, value in top1.items():
        torch = top1.get(one._replace(runner="torch"))
        if one.measure == measure and one.runner != "torch" and torch is not None:
            away["," in one.runner].append(abs(value - torch))
    if not all(away.values()):
        return []
    others, twins = (max(away[twin]) for twin in (False, True))
    fits = (
        "no further than its twins, or one digit" if others < max(twins, DIGIT) + 1e-9 else "NO: further than its twins"
    )
    return [
        f"From PyTorch, at most: the other frameworks {others:.2f}, its twins {twins:.2f} ({fits}); means {mean(away[False]):.2f}"
        f" and {mean(away[True]):.2f}."
    ]


if __name__ == "__main__":
    raise SystemExit(main())
