"""The jobs of a preflight's processes: JSON in and out, as a run that is recorded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ...backends.spec import params
from ...files.errors import Problem
from ...training.reading import recipe_of
from ...training.recipe import Recipe
from ..options import Run

PROGRAM = ("-m", "polymae.compare.preflight.child")
WORKERS = (0, 2)  # threads of the loader whose batches must be alike
STEPS = 3  # of which batches are looked at
CURVE = 20  # steps of the small model
# The tensors in a trace of the real step beside the gradients.
TENSORS = ("mask", "ids_restore", "loss", "curve/*")


@dataclass(frozen=True, kw_only=True)
class Job(Run):
    """One piece of work in a framework's process. The file `out` holds its outcome.

    work: its name (compare/preflight/work.py). recipe: a JSON file. data: of the run. places: images of each batch that are
    looked at. seconds: that measuring may take. folder, resume: of a training.
    """

    work: str
    recipe: Path
    data: Path
    places: int = 16
    seconds: float = 60.0
    folder: Path | None = None
    resume: Path | None = None


def as_job(run: Run) -> Job:
    """A run that is one of these. Raises Problem for another."""
    if not isinstance(run, Job):
        raise Problem(f"A preflight's process was asked for a {type(run).__name__}; it takes a Job.")
    return run


def write_recipe(path: Path, recipe: Recipe) -> Path:
    """A recipe as JSON, for a process; returns the path."""
    path.write_text(json.dumps(asdict(recipe)))
    return path


def read_job_recipe(job: Job) -> Recipe:
    """The recipe of a job."""
    return recipe_of(json.loads(job.recipe.read_text()), str(job.recipe), Recipe)


def step_tensors(recipe: Recipe) -> tuple[str, ...]:
    """The tensors that a trace of the real step holds, as patterns: frozen parameters have no gradient."""
    return (*TENSORS, *(f"grad/{param.name}" for param in params(recipe.config) if param.trainable))
