"""A preflight passes where everything is right, and names the check that finds each planted fault, with status 1."""

from __future__ import annotations

from pathlib import Path

import pytest
from preflight_faults import FAULTS, LISTED
from preflights import flight, found_by
from untested import require

from polymae.compare.preflight.names import CHECKS
from polymae.compare.preflight.running import preflight

# Of the frameworks that start slowly.
OTHERS = ("betas swapped", "masks drawn by the model", "TF32 on", "wrong mean")
# A run that is killed has a process of its own.
KILLED = [fault.name for fault in LISTED if fault.located_at == "resume"]
NAMES = [fault.name for fault in LISTED if fault.name not in KILLED]


def test_all_is_right(framework: str, tmp_path: Path) -> None:
    found = preflight(flight(framework, tmp_path))
    verdicts = {check.name: check.verdict for check in found.checks}
    assert verdicts == dict.fromkeys(CHECKS, "passed") | {"speed": "measured"}, found.checks
    assert found.exit_status == 0
    assert found.headline.startswith("Ready")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("polymae-preflight")]


def test_each_planted_fault_is_found(framework: str, tmp_path: Path) -> None:
    names = NAMES if framework in ("numpy", "torch") else OTHERS
    # MindSpore takes its threads once in a process, and this fault loads its runtime.py a second time.
    names = [name for name in names if (framework, name) != ("mindspore", "TF32 on")]
    found = found_by(framework, tmp_path, names)
    assert {name: check.verdict for name, check in found.items()} == dict.fromkeys(names, "failed"), found
    assert {name: check.name for name, check in found.items()} == {name: FAULTS[name].located_at for name in names}


def test_tf32_is_found_in_mindspore(tmp_path: Path) -> None:
    require("mindspore")
    found = preflight(flight("mindspore", tmp_path, "tf32", fault="TF32 on"))
    assert [(check.name, check.verdict) for check in found.checks] == [("tf32", "failed")], found.checks


# They are the loop's, which all frameworks share.
@pytest.mark.parametrize(("framework", "name"), [*(("numpy", name) for name in KILLED), ("torch", KILLED[0])])
def test_a_fault_of_resuming_is_found(framework: str, name: str, tmp_path: Path) -> None:
    require(framework)
    found = preflight(flight(framework, tmp_path, "resume", fault=name))
    assert [(check.name, check.verdict) for check in found.checks] == [("resume", "failed")], found.checks
    assert found.exit_status == 1
    assert "resume" in found.headline


def test_the_program_that_plants_finds_nothing_where_it_plants_nothing(tmp_path: Path) -> None:
    require("numpy")
    found = preflight(flight("numpy", tmp_path, fault="none"))
    assert found.exit_status == 0, found.checks


def test_every_check_but_those_of_the_machine_finds_a_planted_fault() -> None:
    """The others are tested by their numbers (test_preflight_checks.py)."""
    assert set(CHECKS) - {fault.located_at for fault in LISTED} == {"precision", "memory", "speed"}


def test_parts_of_a_batch_have_the_gradients_of_the_whole(tmp_path: Path) -> None:
    require("torch")
    found = preflight(flight("torch", tmp_path, "gradients", "update", "loop", settings=("accumulate=2",)))
    assert found.exit_status == 0, found.checks


def test_the_mistakes_of_a_recipe_are_no_faults(tmp_path: Path) -> None:
    require("numpy")
    mistakes = ("cutmix=1.0", "decayed=all", "shape=cosine_from_start")
    checks = ("batches", "normalisation", "optimizer", "schedule", "update", "loop")
    found = preflight(flight("numpy", tmp_path, *checks, settings=mistakes))
    assert {check.name: check.verdict for check in found.checks} == dict.fromkeys(checks, "passed"), found.checks


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_is_measured(precision: str, tmp_path: Path) -> None:
    require("torch")
    (found,) = preflight(flight("torch", tmp_path, "precision", settings=(f"precision={precision}",))).checks
    assert found.verdict == "passed"
    assert 0 < found.figures["gradients"] < 0.5


def test_a_precision_that_the_framework_has_not_cannot_run(tmp_path: Path) -> None:
    require("numpy")
    found = preflight(flight("numpy", tmp_path, "precision", settings=("precision=bfloat16",)))
    assert [check.verdict for check in found.checks] == ["could not run"]
    assert "not in bfloat16" in found.checks[0].reason
    assert found.exit_status == 2
