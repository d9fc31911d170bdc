"""How often a correct run is called wrong, and how near to their limits correct runs come.

    .venv/bin/python benchmarks/false_alarms.py --seeds 50 --out docs/benchmarks/false-alarms.md

Every seed gives other weights, as training leaves them, other images and other masks; forward pass, losses and gradients
of the small model are judged in every framework. Exit status 1 where a correct run is called wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from polymae.backends import FRAMEWORKS
from polymae.backends.presets import model_config
from polymae.compare.faults.subjects import trained_weights
from polymae.compare.judging.findings import Judgement
from polymae.compare.offline import weights_of
from polymae.compare.recording.batch import record_batch
from polymae.compare.recording.inputs import random_inputs
from polymae.compare.recording.record import Run
from polymae.compare.recording.trace import Trace
from polymae.compare.reporting.report import About
from polymae.compare.run import TWINS
from polymae.compare.verdict import Comparison, judge_traces
from polymae.convert.writing import write_checkpoint

MODEL = "mae_vit_test_patch8"
LEVELS = ("weights", "forward", "loss", "gradients")
TOGETHER = 10  # seeds that are on disk at the same time: 60 MB each


@dataclass
class Tally:
    """What became of one framework's runs: verdicts, and the tensor that came nearest to its limit."""

    verdicts: Counter[str] = field(default_factory=Counter)
    nearest: tuple[float, str, int] = (0.0, "", 0)  # error over limit, tensor, seed
    alone: tuple[float, str, int] = (0.0, "", 0)  # the same of an operation on its own inputs
    wrong: list[str] = field(default_factory=list)

    def add(self, seed: int, judgement: Judgement) -> None:
        """Count one run."""
        self.verdicts[judgement.verdict] += 1
        if judgement.verdict not in ("exact", "roundoff", "explained"):
            first = judgement.first_wrong
            self.wrong.append(f"seed {seed}: {judgement.problem or (first and f'{first.name}: {first.reason}')}")
        for finding in judgement.findings:
            if finding.limit:
                self.nearest = max(self.nearest, (finding.error / finding.limit, finding.name, seed))
            if finding.introduced_limit:
                self.alone = max(self.alone, (finding.introduced / finding.introduced_limit, finding.name, seed))


def main() -> int:
    """Run, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--frameworks", nargs="+", default=FRAMEWORKS, choices=FRAMEWORKS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    tallies = {framework: Tally() for framework in args.frameworks}
    for start in range(0, args.seeds, TOGETHER):
        seeds = range(start, min(start + TOGETHER, args.seeds))
        with tempfile.TemporaryDirectory(prefix="polymae-") as folder:
            for framework, seed, judgement in _judged(Path(folder), seeds, args.frameworks):
                tallies[framework].add(seed, judgement)
        print(f"{seeds.stop} of {args.seeds} seeds", file=sys.stderr, flush=True)
    text = _table(args.seeds, tallies)
    print(text, end="")
    if args.out:
        args.out.write_text(text)
    return int(any(tally.wrong for tally in tallies.values()))


def _judged(folder: Path, seeds: range, frameworks: list[str]) -> Iterator[tuple[str, int, Judgement]]:
    config = model_config(MODEL)
    oracles: dict[int, Run] = {}
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        np.savez(place / "inputs.npz", **random_inputs(config, seed=seed))
        write_checkpoint("torch", place / "weights.pth", config, trained_weights(config, seed))
        oracles[seed] = Run(
            "numpy",
            place / "oracle.npz",
            place / "inputs.npz",
            place / "weights.pth",
            MODEL,
            dtype="float64",
            levels=LEVELS,
        )

    def beside(run: Run, name: str, **changes: object) -> Run:
        return replace(run, out=run.out.with_name(f"{name}.npz"), dtype="float32", **changes)  # type: ignore[arg-type]

    twins = {seed: [beside(run, f"twin{twin}", twin=twin) for twin in TWINS] for seed, run in oracles.items()}
    record_batch([*oracles.values(), *(run for runs in twins.values() for run in runs)])
    for framework in frameworks:
        runs = {seed: beside(run, framework, framework=framework) for seed, run in oracles.items()}
        for (seed, run), outcome in zip(runs.items(), record_batch(list(runs.values()))):
            oracle = Trace(oracles[seed].out)
            report = judge_traces(
                About(MODEL, "", "", "", run.mask_ratio), oracle, [Trace(twin.out) for twin in twins[seed]], [outcome],
                Comparison(levels=LEVELS, reference=None), _noisy(oracles[seed]), partial(weights_of, oracle, run.weights),
            )  # fmt: skip
            yield framework, seed, report.judgements[0]


def _noisy(oracle: Run) -> Callable[[Mapping[str, float]], Trace | None]:
    def record(noise: Mapping[str, float]) -> Trace | None:
        text = ",".join(f"{operation}={size}" for operation, size in noise.items())
        (outcome,) = record_batch([replace(oracle, out=oracle.out.with_name("noisy.npz"), kernel_noise=text)])
        return Trace(outcome.trace) if outcome.trace else None

    return record


def _table(seeds: int, tallies: dict[str, Tally]) -> str:
    lines = [
        "# False alarms",
        "",
        f"Written by `benchmarks/false_alarms.py --seeds {seeds}`: correct runs of `{MODEL}`, weights as after training, forward",
        "pass, losses and gradients. Ratios are error over limit: above 1 would be a fault.",
        "",
        "| framework | runs | roundoff | explained | called wrong | nearest to its limit, end to end | nearest alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for framework, tally in tallies.items():
        good = tally.verdicts["roundoff"] + tally.verdicts["exact"]
        ends = [f"{ratio:.2f} (`{name}`, seed {seed})" for ratio, name, seed in (tally.nearest, tally.alone)]
        counts = [str(n) for n in (tally.verdicts.total(), good, tally.verdicts["explained"], len(tally.wrong))]
        lines.append(f"| {' | '.join([framework, *counts, *ends])} |")
    wrong = [f"- {framework}, {line}" for framework, tally in tallies.items() for line in tally.wrong]
    return "\n".join([*lines, *(["", *wrong] if wrong else []), ""])


if __name__ == "__main__":
    raise SystemExit(main())
