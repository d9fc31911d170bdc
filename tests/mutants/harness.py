"""The models in which faults are planted, recorded and judged: what `make power` works with."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from polymae.backends import FRAMEWORKS
from polymae.compare.limits.findings import Judgement
from polymae.compare.offline import weights_of
from polymae.compare.options import LEVELS, Comparison
from polymae.compare.record.child import record_batch
from polymae.compare.report.report import About
from polymae.compare.run import TWINS
from polymae.compare.trace import Outcome, Trace
from polymae.compare.verdict import judge_traces
from polymae.files.errors import Problem

from . import FAULTS
from .models import MODELS, planted_in, write_subject
from .recording import Mutant

# The levels that are recorded for a fault of each; all of them have inputs of their own.
OF_ONE_PASS = ("weights", "forward", "loss", "gradients")
PROGRAM = (str(Path(__file__).with_name("child.py")),)
RECORDED = dict.fromkeys((*OF_ONE_PASS, "environment"), OF_ONE_PASS) | {
    level: (level,) for level in ("inputs", "optimizer", "curve")
}
# Of a framework whose runs end at the level of their fault.
SHORT = RECORDED | {level: OF_ONE_PASS[: OF_ONE_PASS.index(level) + 1] for level in ("forward", "loss")}
SHORT["weights"] = SHORT["forward"]  # they are faults of the outputs as well
CORRECT = "none"  # the name of the run without a fault
ROOM = 4_000_000_000  # bytes of traces that wait to be judged


class Bench:
    """Every fault's model, recorded by the oracle; frameworks are judged in any order, from any thread.

    Use as a context manager. folder: where files go. time_limit: as record_batch has it. fresh: with the weights that
    training starts from, which hide some faults. models: in which they are planted. short: the frameworks whose runs with a
    fault end at its level, without the gradients behind it. steps: of the level curve; None: as many as a comparison has.
    Raises Problem where the oracle cannot be recorded.
    """

    def __init__(
        self,
        folder: Path,
        faults: Sequence[str] = tuple(FAULTS),
        time_limit: float | None = None,
        fresh: bool = False,
        models: Sequence[str] = MODELS,
        short: Collection[str] = (),
        steps: int | None = None,
    ):
        self.files, self.stop = ExitStack(), threading.Event()
        self.opened: dict[Path, Trace] = {}
        self.record = partial(record_batch, time_limit=time_limit, stop=self.stop, program=PROGRAM)
        subjects = [Subject(folder / str(i), model, faults, fresh, short, steps) for i, model in enumerate(models)]
        self.subjects = [subject for subject in subjects if subject.levels]
        references = [run for subject in self.subjects for run in subject.references]
        for outcome in self.record(references):
            if outcome.trace is None:
                raise Problem(f"The NumPy oracle could not be recorded: {outcome.reason}")

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop.set()  # for workers of other threads, where one has failed
        self.files.close()

    def judged(self, framework: str, keep: bool = False) -> Iterator[tuple[str, dict[str, Judgement]]]:
        """Each model, and the judgement of its every fault, and of the correct run, by name. keep: their traces, too."""
        runs = {
            (subject, name): subject.run(framework, name)
            for subject in self.subjects
            for name in (CORRECT, *subject.faults(framework))
        }
        found: dict[str, dict[str, Judgement]] = {subject.model: {} for subject in self.subjects}
        planted = list(runs)
        several = self._together()
        for part in (planted[i : i + several] for i in range(0, len(planted), several)):
            outcomes = dict(zip(part, self.record([runs[one] for one in part])))
            alike: dict[tuple[Subject, tuple[str, ...]], list[Outcome]] = {}
            for (subject, name), outcome in outcomes.items():
                alike.setdefault((subject, subject.levels_of(framework, name)), []).append(replace(outcome, label=name))
            for (subject, levels), labelled in alike.items():
                judgements = self._judgements(subject, labelled, levels)
                found[subject.model] |= {judgement.label: judgement for judgement in judgements}
            if not keep:
                for one in part:
                    runs[one].out.unlink(missing_ok=True)
        yield from found.items()

    def _together(self) -> int:
        """How many traces fit into ROOM at the same time: one of base/16 has 0.9 GB."""
        # The oracle's, in float64, is the largest.
        largest = max((subject.base.out.stat().st_size for subject in self.subjects), default=1)
        return max(1, ROOM // largest)

    def _judgements(self, subject: Subject, outcomes: Sequence[Outcome], levels: Sequence[str]) -> list[Judgement]:
        oracle, *twins = (self._reference(run.out) for run in subject.references)
        about = About(subject.model, str(subject.base.weights), "", "", subject.base.mask_ratio)

        def noisy(noise: Mapping[str, float]) -> Trace | None:
            run = subject.noisy(noise)
            (outcome,) = [Outcome("", run.out)] if run.out.exists() else self.record([run])
            return self._reference(outcome.trace) if outcome.trace else None

        comparison = Comparison(levels=tuple(levels), reference=None)
        weights = partial(weights_of, oracle, subject.base.weights)
        return judge_traces(about, oracle, twins, outcomes, comparison, noisy, weights).judgements

    def _reference(self, path: Path) -> Trace:
        """A trace that all frameworks are judged with, opened once."""
        if path not in self.opened:
            self.opened[path] = Trace(path)
            self.files.callback(self.opened[path].close)
        return self.opened[path]


class Subject:
    """One model in which faults are planted: its files, and what is to be recorded of it."""

    def __init__(
        self,
        folder: Path,
        model: str,
        faults: Sequence[str],
        fresh: bool = False,
        short: Collection[str] = (),
        steps: int | None = None,
    ):
        self.model, self.folder, self.wanted, self.short = model, folder, faults, short
        planted = {name for framework in FRAMEWORKS for name in self.faults(framework)}
        recorded = {level for name in planted for level in RECORDED[FAULTS[name].level]}
        self.levels = tuple(level for level in LEVELS if level in recorded)
        folder.mkdir()
        weights, inputs = write_subject(folder, model)
        self.base = Mutant(
            framework="numpy",
            out=folder / "oracle.npz",
            inputs=inputs,
            weights=None if fresh else weights,
            model=model,
            dtype="float64",
            levels=self.levels,
            steps=steps,
        )
        twin = replace(self.base, dtype="float32")
        self.references = [
            self.base,
            *(replace(twin, out=folder / f"twin{seed}.npz", twin=seed) for seed in TWINS),
        ]

    def faults(self, framework: str) -> list[str]:
        """The names of the faults that are planted in this model of this framework."""
        return [name for name in planted_in(self.model, framework) if name in self.wanted]

    def levels_of(self, framework: str, name: str) -> tuple[str, ...]:
        """The levels that are recorded for a fault, or for the correct run."""
        if name == CORRECT:
            return self.levels
        return (SHORT if framework in self.short else RECORDED)[FAULTS[name].level]

    def run(self, framework: str, name: str) -> Mutant:
        """A framework's run with a fault, or without one."""
        number = [CORRECT, *FAULTS].index(name)
        return replace(
            self.base, framework=framework, dtype="float32", out=self.folder / f"{framework}{number}.npz",
            levels=self.levels_of(framework, name), fault=None if name == CORRECT else name,
        )  # fmt: skip

    def noisy(self, noise: Mapping[str, float]) -> Mutant:
        """The oracle's run with noise behind its kernels."""
        text = ",".join(f"{operation}={size}" for operation, size in noise.items())
        return replace(self.base, out=self.folder / f"{text}.npz", kernel_noise=text)
