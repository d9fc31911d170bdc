"""How often a correct run is called wrong, and how near to their limits correct runs come, under many CPUs' kernels.

    .venv/bin/python benchmarks/false_alarms.py --seeds 50 --out docs/benchmarks/false-alarms.md
    .venv/bin/python benchmarks/false_alarms.py --model wide --seeds 5 --out docs/benchmarks/false-alarms-wide.md
    .venv/bin/python benchmarks/false_alarms.py --model mae_vit_base_patch16 --seeds 3 --out docs/benchmarks/false-alarms-base.md

Every seed gives other weights, as training leaves them, other images and other masks; forward pass, losses and gradients are
judged in every framework, under every setting of kernel_settings.py that gives it other kernels. The oracle and its twins are
recorded once for each seed: the twins' bits do not depend on the kernels. Exit status 1 where a correct run is called wrong.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from kernel_settings import HERE, read_by, under, variables_table

from polymae.backends import FRAMEWORKS
from polymae.backends.presets import model_config
from polymae.compare.limits.findings import Judgement
from polymae.compare.offline import weights_of
from polymae.compare.options import Comparison, Run
from polymae.compare.record.child import record_batch
from polymae.compare.record.environment import processor
from polymae.compare.record.inputs import random_inputs
from polymae.compare.report.report import About
from polymae.compare.run import TWINS
from polymae.compare.trace import Trace
from polymae.compare.verdict import judge_traces
from polymae.convert.writing import write_checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from mutants.models import trained_weights

MODEL = "mae_vit_test_patch8"
# Sums as long as in base/16 (512, 768, 2048 and 3072 terms) in a model that runs in seconds.
WIDE = "img_size=64,patch_size=8,embed_dim=768,depth=3,num_heads=12,decoder_embed_dim=512,decoder_depth=4,decoder_num_heads=16"
LEVELS = ("weights", "forward", "loss", "gradients")
COLUMNS = (
    "framework", "runs", "settings, kernels", "roundoff", "explained", "called wrong", "nearest to its limit, end to end",
    "nearest alone",
)  # fmt: skip
TOGETHER = {MODEL: 10}  # seeds that are on disk at the same time: 60 MB each; of other models one


@dataclass
class Tally:
    """The outcome of one framework's runs: verdicts, and the tensor that came nearest to its limit."""

    verdicts: Counter[str] = field(default_factory=Counter)
    nearest: tuple[float, str, str] = (0.0, "", "")  # error over limit, tensor, seed and setting
    alone: tuple[float, str, str] = (0.0, "", "")  # the same of an operation on its own inputs
    wrong: list[str] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)
    operations: dict[str, float] = field(
        default_factory=dict
    )  # the nearest of each kind of operation on its own inputs

    def add(self, where: str, judgement: Judgement) -> None:
        """Count one run. where: its seed and setting."""
        self.verdicts[judgement.verdict] += 1
        self.kernels.add(str(judgement.environment.get("kernels", {}).get("product")))
        if judgement.verdict not in ("exact", "roundoff", "explained"):
            first = judgement.first_wrong
            self.wrong.append(f"{where}: {judgement.problem or (first and f'{first.name}: {first.reason}')}")
        for finding in judgement.findings:
            if finding.limit:
                self.nearest = max(self.nearest, (finding.error / finding.limit, finding.name, where))
            if finding.introduced_limit:
                ratio = finding.introduced / finding.introduced_limit
                self.alone = max(self.alone, (ratio, finding.name, where))
                self.operations[finding.operation] = max(ratio, self.operations.get(finding.operation, 0.0))


def main() -> int:
    """Run, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL, help=f"as for polymae compare, or wide (default: {MODEL})")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--frameworks", nargs="+", default=FRAMEWORKS, choices=FRAMEWORKS)
    parser.add_argument("--settings", nargs="+", default=HERE, choices=HERE)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = WIDE if args.model == "wide" else args.model
    tallies = {framework: Tally() for framework in args.frameworks}
    together = TOGETHER.get(model, 1)
    for start in range(0, args.seeds, together):
        seeds = range(start, min(start + together, args.seeds))
        with tempfile.TemporaryDirectory(prefix="polymae-") as folder:
            for framework, where, judgement in _judged(Path(folder), model, seeds, args.frameworks, args.settings):
                tallies[framework].add(where, judgement)
        print(f"{seeds.stop} of {args.seeds} seeds", file=sys.stderr, flush=True)
        text = _table(model, seeds.stop, args.settings, tallies)
        if args.out:
            args.out.write_text(text)
    print(text, end="")
    return int(any(tally.wrong for tally in tallies.values()))


def _judged(
    folder: Path, model: str, seeds: range, frameworks: list[str], settings: list[str]
) -> Iterator[tuple[str, str, Judgement]]:
    oracles = {seed: _oracle(folder / str(seed), model, seed) for seed in seeds}

    def beside(run: Run, name: str, **changes: object) -> Run:
        return replace(run, out=run.out.with_name(f"{name}.npz"), dtype="float32", **changes)  # type: ignore[arg-type]

    twins = {seed: [beside(run, f"twin{twin}", twin=twin) for twin in TWINS] for seed, run in oracles.items()}
    with under(settings[0]):
        record_batch([*oracles.values(), *(run for runs in twins.values() for run in runs)])
    for framework in frameworks:
        for setting in _different(framework, settings):
            with under(setting):
                outcomes = record_batch([beside(run, framework, framework=framework) for run in oracles.values()])
            for (seed, run), outcome in zip(oracles.items(), outcomes):
                oracle = Trace(run.out)
                report = judge_traces(
                    About(model, "", "", "", run.mask_ratio), oracle, [Trace(twin.out) for twin in twins[seed]], [outcome],
                    Comparison(levels=LEVELS, reference=None), _noisy(run), partial(weights_of, oracle, run.weights),
                )  # fmt: skip
                yield framework, f"seed {seed}, {setting}", report.judgements[0]


def _different(framework: str, settings: list[str]) -> list[str]:
    """The settings that give a framework kernels which those before them do not."""
    return list({read_by(framework, setting): setting for setting in reversed(settings)}.values())[::-1]


def _oracle(place: Path, model: str, seed: int) -> Run:
    config = model_config(model)
    place.mkdir()
    np.savez(place / "inputs.npz", **random_inputs(config, seed=seed))
    write_checkpoint("torch", place / "weights.pth", config, trained_weights(config, seed))
    return Run(
        "numpy",
        place / "oracle.npz",
        place / "inputs.npz",
        weights=place / "weights.pth",
        model=model,
        dtype="float64",
        levels=LEVELS,
    )


def _noisy(oracle: Run) -> Callable[[Mapping[str, float]], Trace | None]:
    def record(noise: Mapping[str, float]) -> Trace | None:
        text = ",".join(f"{operation}={size}" for operation, size in noise.items())
        run = replace(oracle, out=oracle.out.with_name(f"{text}.npz"), kernel_noise=text)
        if not run.out.exists():
            (outcome,) = record_batch([run])
            if outcome.trace is None:
                return None
        return Trace(run.out)

    return record


def _table(model: str, seeds: int, settings: list[str], tallies: dict[str, Tally]) -> str:
    lines = [
        "# False alarms",
        "",
        f"Written by `benchmarks/false_alarms.py --model {'wide' if model == WIDE else model} --seeds {seeds}`: correct",
        "runs, weights as after training, forward pass, losses and gradients, under the kernels of many CPUs. Ratios are error",
        "over limit: above 1 would be a fault. Limits behind a kernel that is known to be inaccurate include its error.",
        "",
        f"Machine: {processor()}, Python {platform.python_version()}, NumPy {np.__version__}, one thread.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for framework, tally in tallies.items():
        good = tally.verdicts["roundoff"] + tally.verdicts["exact"]
        ends = [f"{ratio:.2f} (`{name}`, {where})" for ratio, name, where in (tally.nearest, tally.alone)]
        kernels = f"{len(_different(framework, settings))}, {len(tally.kernels)}"
        counts = [str(n) for n in (good, tally.verdicts["explained"], len(tally.wrong))]
        lines.append(f"| {' | '.join([framework, str(tally.verdicts.total()), kernels, *counts, *ends])} |")
    lines += ["", "Nearest to its limit on its own inputs, by operation:", "", *_operations(tallies)]
    lines += ["", *variables_table(settings)]
    lines += ["", "Kernels: how many different products of 2,048 terms these settings gave.", ""]
    lines += [f"- {framework}, {line}" for framework, tally in tallies.items() for line in tally.wrong]
    return "\n".join(lines).rstrip() + "\n"


def _operations(tallies: dict[str, Tally]) -> list[str]:
    """A table: a row for each kind of operation, those nearest to their limits first, and a column for each framework."""
    nearest: dict[str, float] = {}
    for tally in tallies.values():
        for operation, ratio in tally.operations.items():
            nearest[operation] = max(ratio, nearest.get(operation, 0.0))
    rows = [f"| operation | {' | '.join(tallies)} |", f"|---|{'---|' * len(tallies)}"]
    for operation in sorted(nearest, key=lambda name: -nearest[name]):
        cells = (f"{tally.operations.get(operation, 0.0):.2f}" for tally in tallies.values())
        rows.append(f"| {operation} | {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
