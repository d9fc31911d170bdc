"""Preflights of a tiny model on a few made images, with and without a planted fault."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from preflight_faults import FAULTS

from polymae.compare.preflight.jobs import PROGRAM, Job
from polymae.compare.preflight.names import CHECKS
from polymae.compare.preflight.result import Check
from polymae.compare.preflight.running import Flight, Trying
from polymae.compare.record.child import record_batch
from polymae.data.datasets import open_dataset
from polymae.training.reading import read_recipe

CHILD = str(Path(__file__).with_name("preflight_child.py"))
MODEL = (
    "img_size=16,patch_size=4,in_chans=1,embed_dim=16,depth=1,num_heads=2,"
    "decoder_embed_dim=16,decoder_depth=1,decoder_num_heads=2"
)
SETTINGS = (
    f"model={MODEL}", "mean=[0.3]", "std=[0.4]", "crop=shift", "shift=1", "flip=0.5", "blr=0.1", "epochs=4", "warmup_epochs=1",
    "batch_size=6", "clip_grad=0.05", "save_every_epochs=null", "pictures_every_epochs=null", "tensorboard=false",
    "compiled=false",
)  # fmt: skip


def made_images(folder: Path, count: int = 21) -> Path:
    """A data set of images that no two are alike, none of a single value."""
    path = folder / "images.npz"
    np.savez(path, imgs=np.random.default_rng(0).integers(0, 256, (count, 16, 16), dtype=np.uint8))
    return path


@dataclass(frozen=True, kw_only=True)
class Mutant(Job):
    """A job in which a fault is planted."""

    fault: str = "none"


def found_by(framework: str, folder: Path, faults: Sequence[str]) -> dict[str, Check]:
    """The check that has to find each fault, by the fault's name; all are planted in turn in one process."""
    dataset = open_dataset(made_images(folder))
    tries: dict[str, Trying] = {}
    for number, fault in enumerate(faults):
        (folder / str(number)).mkdir()
        given = flight(framework, folder, FAULTS[fault].located_at, program=(CHILD,))
        tries[fault] = Trying(given, dataset, folder / str(number))
    # The oracle is right whatever is planted: what it leaves is made once.
    (folder / "oracle").mkdir()
    oracle = Trying(flight(framework, folder, "gradients", "loop"), dataset, folder / "oracle")
    oracle.run(oracle.oracle_jobs(), PROGRAM)
    mutants = [
        (trying, Mutant(**{one.name: getattr(job, one.name) for one in fields(Job)}, fault=fault))
        for fault, trying in tries.items()
        for job in trying.jobs()
    ]
    ended = record_batch([mutant for _, mutant in mutants], program=(CHILD,))
    for (trying, mutant), outcome in zip(mutants, ended):
        trying.outcomes[mutant.out.stem] = outcome
    for trying in tries.values():
        for stem, outcome in oracle.outcomes.items():
            trying.outcomes[stem] = outcome
            if outcome.trace is not None:
                shutil.copy(outcome.trace, trying.folder)
    return {fault: trying.checked(FAULTS[fault].located_at) for fault, trying in tries.items()}


def flight(
    framework: str, folder: Path, *wanted: str, fault: str | None = None, settings: tuple[str, ...] = (), **more: Any
) -> Flight:
    """A preflight of a framework; wanted: names of checks, none for all."""
    program = more.pop("program", (CHILD, fault) if fault else PROGRAM)
    recipe = read_recipe(None, (*SETTINGS, *settings))
    options = {"threads": 1, "seconds": 2.0, "scratch": folder, "recipe_name": "made", **more}
    return Flight(framework, made_images(folder), recipe, wanted=wanted or CHECKS, program=program, **options)
