"""A preflight: every work in processes of the framework's, the oracle's beside it, and the checks on their files."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.interpreters import interpreter
from ...backends.presets import preset_name
from ...data.dataset import Dataset
from ...data.datasets import open_dataset
from ...files.errors import Problem
from ...training import checkpoints
from ...training.recipe import Recipe
from ...training.run import STEPS as LINES
from ...training.run import read_lines
from ..limits.findings import Finding, Judgement
from ..options import LARGEST_SEED, Comparison
from ..record.child import record_batch
from ..report.report import About
from ..run import TWINS
from ..trace import Outcome, Trace
from ..verdict import judge_traces
from . import checks
from .data_checks import Expected, check_batches, check_normalisation, first_batches, wrong_noise
from .jobs import PROGRAM, STEPS, Job, step_tensors, write_recipe
from .names import CHECKS, NEEDS
from .result import Check, Preflight
from .trial import stopped_at, trial_recipe
from .work import memory_limit

LEVELS = ("forward", "loss", "gradients", "curve")  # of the trace of the real step
IMAGES = 2  # of the batch of the real step
PLACES = 16  # images of each of the first batches that are looked at
AFTER = 3  # steps that a resumed run goes on for
FIRST = 6  # steps of the loop where nothing is resumed
# The fields in which a job of the oracle differs.
ORACLE: dict[str, Any] = {"framework": "numpy", "device": "cpu", "dtype": "float64", "threads": 1}
PATIENCE = 600.0  # seconds until the first checkpoints of the run that is killed


@dataclass(frozen=True)
class Flight:
    """The options of a preflight. threads: None: as many as there are cores. wanted: names of CHECKS. seconds: for measuring.

    program: the command of the framework's interpreter; the oracle's processes always run this package's own.
    """

    framework: str
    data: Path
    recipe: Recipe
    recipe_name: str = "official-base"
    device: str = "cpu"
    threads: int | None = None
    wanted: tuple[str, ...] = CHECKS
    seconds: float = 60.0
    python: str | None = None
    program: Sequence[str] = PROGRAM
    scratch: Path | None = None


def preflight(flight: Flight) -> Preflight:
    """Try a recipe before it is trained. Raises Problem for data that cannot be read; a later failure is a check."""
    began = time.monotonic()
    recipe = flight.recipe
    dataset = open_dataset(flight.data, recipe.data.data_format, recipe.data.split)
    if len(dataset) < recipe.batch.batch_size:
        raise Problem(
            f"The batch size is {recipe.batch.batch_size}, and {dataset.path} holds {len(dataset)} images, which fill no "
            f"batch. A batch size of at most {len(dataset)} fits: --set batch_size={len(dataset)}"
        )
    with tempfile.TemporaryDirectory(prefix="polymae-preflight-", dir=flight.scratch) as folder:
        trying = Trying(flight, dataset, Path(folder).resolve())
        results = trying.all()
    subject = {
        "framework": flight.framework, "device": flight.device, "recipe": flight.recipe_name,
        "model": preset_name(recipe.config), "data": f"{flight.data} ({len(dataset):,} images)",
        "batch": f"{recipe.batch.batch_size} images a step",
    }  # fmt: skip
    return Preflight(subject, tuple(results), time.monotonic() - began)


class Trying:
    """One preflight at work in a folder: the jobs of its processes, and the checks on their files."""

    def __init__(self, flight: Flight, dataset: Dataset, folder: Path):
        self.flight, self.recipe, self.dataset, self.folder = flight, flight.recipe, dataset, folder
        self.needed = {work for name in flight.wanted for work in NEEDS[name]}
        self.places = min(PLACES, self.recipe.batch.batch_size)
        self.expected = Expected(self.recipe, dataset, self.places)
        self.tried = trial_recipe(self.recipe, dataset, folder)
        self.outcomes: dict[str, Outcome] = {}
        self.resumed_at = 0
        self.model = folder / "model.json"
        self.model.write_text(json.dumps(asdict(self.recipe.config)))
        threads = flight.threads or _cores()
        self.base = Job(
            flight.framework, folder / "out", folder / "inputs.npz", work="", model=str(self.model), device=flight.device,
            threads=threads, seed=self.recipe.seed % (LARGEST_SEED + 1), data=flight.data.absolute(),
            recipe=write_recipe(folder / "recipe.json", self.recipe), mask_ratio=self.recipe.mask_ratio,
            places=self.places, seconds=flight.seconds,
        )  # fmt: skip

    def all(self) -> list[Check]:
        """Every requested check, in order."""
        with ThreadPoolExecutor(1) as pool:
            oracle = pool.submit(lambda: self.run(self.oracle_jobs(), PROGRAM))
            try:
                self.run(self.jobs())
                if "killed" in self.needed:
                    self._train()
                oracle.result()
            except BaseException:
                self.stop.set()
                raise
        if "measure" in self.needed:  # alone on the machine
            self.run([self._job("measure")])
        return [self.checked(name) for name in CHECKS if name in self.flight.wanted]

    def jobs(self) -> list[Job]:
        """The jobs of one process of the framework, in this order; the oracle's has its own jobs."""
        jobs = [self._job(work) for work in ("environment", "batches", "optimizer") if work in self.needed]
        if "step" in self.needed and self._inputs():
            jobs.append(self._step())
        if "train" in self.needed and "killed" not in self.needed:
            jobs.append(self._whole(FIRST))
        return jobs

    @cached_property
    def stop(self) -> threading.Event:
        """Set where everything is to be ended."""
        return threading.Event()

    def _job(self, work: str, **more: Any) -> Job:
        ending = {"batches": ".npz", "step": ".npz"}.get(work, ".json")
        return replace(self.base, **{"work": work, "out": self.folder / f"{work}{ending}", **more})

    def run(
        self, jobs: Sequence[Job], program: Sequence[str] | None = None, stop: threading.Event | None = None
    ) -> None:
        """Work in one process after the other; how it ended is kept by the files' stems."""
        if not jobs:
            return
        flight = self.flight
        python = flight.python or interpreter(jobs[0].framework)
        ended = record_batch(jobs, python, None, stop or self.stop, program or flight.program)
        self.outcomes |= {job.out.stem: outcome for job, outcome in zip(jobs, ended)}
        for job, outcome in zip(jobs, ended):
            if stop is None:
                _say(f"{job.framework:<10} {job.out.stem:<12} {outcome.reason or 'done'}")

    def _step(self) -> Job:
        config = self.recipe.config
        return self._job("step", levels=LEVELS, taps=step_tensors(self.recipe), norm_pix_loss=config.norm_pix_loss)

    def _inputs(self) -> bool:
        """The file of the small batch: the first images and noise as they must be. False where there are none."""
        with self._lock:
            if not self.base.inputs.exists():
                try:
                    imgs, noise = self.expected.imgs[0, :IMAGES], self.expected.noise[0, :IMAGES]
                except Problem as problem:
                    self.outcomes["step"] = Outcome("step", None, str(problem))
                    return False
                np.savez(self.base.inputs, imgs=imgs.astype(np.float32), noise=noise)
        return True

    @cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()

    def oracle_jobs(self) -> list[Job]:
        """The oracle, its twins, and its losses on the batches that the tried loop must begin with."""
        jobs = []
        if "oracle" in self.needed and self._inputs():
            oracle = replace(self._step(), work="reference", out=self.folder / "oracle.npz", **ORACLE)
            jobs.append(oracle)
            for seed in TWINS:
                jobs.append(replace(oracle, dtype="float32", twin=seed, out=self.folder / f"twin{seed}.npz"))
        if "losses" in self.needed:
            path = self.folder / "trial-inputs.npz"
            expected = Expected(self.tried, self.dataset, self.tried.batch.batch_size)
            imgs, noise = (array[:2].reshape(-1, *array.shape[2:]) for array in (expected.imgs, expected.noise))
            np.savez(path, imgs=imgs.astype(np.float32), noise=noise)
            jobs.append(self._job("losses", inputs=path, recipe=self._trial("trial", self.tried), **ORACLE))
        return jobs

    def _trial(self, name: str, recipe: Recipe) -> Path:
        return write_recipe(self.folder / f"{name}-recipe.json", recipe)

    def _whole(self, steps: int) -> Job:
        """So many steps of the loop from the beginning."""
        recipe = self._trial("whole", stopped_at(self.tried, steps))
        return self._job("train", out=self.folder / "whole.json", folder=self.folder / "whole", recipe=recipe)

    def _train(self) -> None:
        """The loop killed and gone on with, and from the beginning to the same step."""
        folder = self.folder / "killed"
        self._kill(
            self._job("train", out=self.folder / "killed.json", folder=folder, recipe=self._trial("killed", self.tried))
        )
        if not checkpoints.steps_of(folder):
            return
        self.resumed_at = checkpoints.steps_of(folder)[-1]
        whole = self.resumed_at + AFTER
        again = self._trial("resumed", stopped_at(self.tried, whole))
        resumed = self._job("train", out=self.folder / "resumed.json", folder=folder, resume=folder, recipe=again)
        self.run(
            [resumed, self._whole(whole)]
        )  # in a new process, in which the resumed one comes first: it has but its folder

    def _kill(self, job: Job) -> None:
        """Train until two checkpoints are there, then end the process by SIGKILL."""
        stop, began = threading.Event(), time.monotonic()
        assert job.folder is not None

        def watch(folder: Path) -> None:
            while not stop.is_set():
                late = time.monotonic() - began > PATIENCE
                if len(checkpoints.steps_of(folder)) > 1 or late or self.stop.is_set():
                    stop.set()
                time.sleep(0.01)

        watcher = threading.Thread(target=watch, args=(job.folder,), daemon=True)
        watcher.start()
        try:
            self.run([job], stop=stop)
        finally:
            stop.set()
            watcher.join()
        _say(f"{job.framework:<10} {'killed':<12} after step {max(checkpoints.steps_of(job.folder), default=0)}")

    def checked(self, name: str) -> Check:
        """One check; a missing file is its reason."""
        files = {"train": "whole", "killed": "resumed"}
        for work in NEEDS[name]:
            stem = files.get(work, work)
            before = "killed" if stem in ("whole", "resumed") else "step"  # that ended where this was to begin
            outcome = self.outcomes.get(stem) or self.outcomes.get(before) or Outcome(stem, None, "it was not begun")
            if outcome.trace is None:
                broken = work == "measure" and name == "memory" and "SIGKILL" in outcome.reason
                reason = f"{stem}: {outcome.reason}"
                return Check(name, "failed" if broken else "could not run", reason)
        try:
            return self._judged(name)
        except Problem as problem:
            return Check(name, "could not run", str(problem))

    def _judged(self, name: str) -> Check:
        recipe = self.recipe
        rules: dict[str, Callable[[], Check]] = {
            "tf32": lambda: checks.check_tf32(self._json("environment")),
            "batches": lambda: check_batches(self._batches, self.expected),
            "normalisation": lambda: check_normalisation(self._batches, self.expected),
            "masks": self._masks,
            "gradients": lambda: self._of_levels("gradients", ("loss", "gradients")),
            "update": lambda: checks.check_update(self._more("update")),
            "optimizer": lambda: checks.check_optimizer(self._json("optimizer"), recipe),
            "schedule": self._schedule,
            "curve": lambda: self._of_levels("curve", ("curve",)),
            "loop": lambda: checks.check_loop(self._lines("whole"), self._json("losses"), self.tried),
            "resume": lambda: checks.check_resume(
                self.folder / "whole", self.folder / "killed", self.tried.config, self.resumed_at,
                [self._lines("whole"), self._lines("killed")],
            ),
            "precision": lambda: checks.check_precision(self._more("precision"), recipe),
            "memory": lambda: checks.check_memory(self._json("measure"), memory_limit(), recipe),
            "speed": lambda: checks.measured_speed(self._json("measure"), recipe),
        }  # fmt: skip
        return rules[name]()

    def _json(self, stem: str) -> Any:
        return json.loads((self.folder / f"{stem}.json").read_text())

    def _more(self, part: str) -> Any:
        """The real step's file beside its trace; None without one."""
        return self._json("step").get(part)

    def _lines(self, stem: str) -> list[dict[str, Any]]:
        return read_lines(self.folder / stem / LINES)

    @cached_property
    def _batches(self) -> Mapping[str, Any]:
        with np.load(self.folder / "batches.npz") as arrays:
            return {name: arrays[name] for name in arrays.files}

    def _schedule(self) -> Check:
        per_epoch = len(self.dataset) // self.tried.batch.batch_size
        rates = [line["lr"] for line in self._lines("whole")]
        return checks.check_schedule(
            self._json("optimizer")["rates"], self.expected.per_epoch, self.recipe, rates, self.tried, per_epoch
        )

    def _masks(self) -> Check:
        if wrong := wrong_noise(self._batches, self.expected):
            return Check("masks", "failed", wrong)
        check = self._of_levels("masks", ("forward",))
        if check.verdict != "passed":
            return check
        count = first_batches(self._batches, "noise").shape[:2]
        return replace(
            check,
            reason=f"the noise of {STEPS} x {count[1]} images is the seed's; the model's mask from it is the oracle's",
        )

    def _of_levels(self, name: str, levels: Sequence[str]) -> Check:
        """The findings of some levels of the real step's trace as one check."""
        judgement = self._judgement
        findings = [finding for finding in judgement.findings if finding.level in levels]
        if judgement.problem or not findings:
            return Check(name, "could not run", judgement.problem or "nothing of it was recorded")
        if missing := [words for words in judgement.coverage if "is missing" in words]:
            return Check(name, "could not run", missing[0])
        figures = {"tensors": len(findings), "worst": max((f.ratio for f in findings), default=0.0)}
        for verdict, kind in (("fault", "failed"), ("not comparable", "could not run")):
            wrong = [finding for finding in findings if finding.verdict == verdict]
            if wrong:
                others = f" ({len(wrong)} of {len(findings)} tensors)" if len(findings) > 1 else ""
                reason = f"{_words(wrong[0])}{others}"
                return Check(name, "failed" if kind == "failed" else "could not run", reason, figures)
        worst = max(findings, key=lambda finding: finding.ratio)
        explained = judgement.explained_by if any(f.verdict == "explained" for f in findings) else ""
        reason = f"{len(findings)} tensors within roundoff of the float64 oracle; nearest to its limit: {_words(worst)}"
        return Check(name, "passed", reason + (f"; explained by {explained}" if explained else ""), figures)

    @cached_property
    def _judgement(self) -> Judgement:
        """The trace of the real step against the oracle's, within the limits of its twins. Raises Problem."""
        for stem in ("oracle", *(f"twin{seed}" for seed in TWINS)):
            if (outcome := self.outcomes[stem]).trace is None:
                raise Problem(f"The NumPy oracle could not be recorded: {outcome.reason}")
        oracle, *twins = (Trace(self.folder / f"{stem}.npz") for stem in ("oracle", *(f"twin{seed}" for seed in TWINS)))
        about = About(preset_name(self.recipe.config), "seeded", "", "the first batch", self.recipe.mask_ratio)
        comparison = Comparison(levels=LEVELS, reference=None)
        report = judge_traces(about, oracle, twins, [self.outcomes["step"]], comparison, self._noisy, lambda: None)
        return report.judgements[0]

    def _noisy(self, noise: Mapping[str, float]) -> Trace | None:
        """The oracle with noise behind the operations whose kernels are known to be inaccurate."""
        text = ",".join(f"{operation}={size}" for operation, size in noise.items())
        levels = tuple(level for level in LEVELS if level != "curve")
        taps = tuple(tap for tap in step_tensors(self.recipe) if not tap.startswith("curve"))
        job = replace(
            self._step(), work="reference", out=self.folder / "noisy.npz", kernel_noise=text, levels=levels, taps=taps, **ORACLE
        )  # fmt: skip
        self.run([job], PROGRAM)
        return Trace(job.out) if self.outcomes["noisy"].trace else None


def _words(finding: Finding) -> str:
    error, limit = finding.measure
    return f"{finding.name} is {error:.3g} u off, limit {limit:.3g}" if limit else f"{finding.name}: {finding.reason}"


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _say(line: str) -> None:
    print(line.rstrip(), file=sys.stderr, flush=True)
