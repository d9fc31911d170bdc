"""Each check of a preflight by numbers that are made: what passes, what fails, what is said; the laws beside other formulas."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preflights import SETTINGS, flight, made_images

from polymae.backends.optimization import decay_of
from polymae.backends.presets import model_config
from polymae.backends.spec import params
from polymae.cli import main
from polymae.compare.preflight import checks, law
from polymae.compare.preflight.names import CHECKS, NEEDS
from polymae.compare.preflight.page import write_files
from polymae.compare.preflight.result import Check, Preflight
from polymae.compare.preflight.running import preflight
from polymae.compare.preflight.work import WORK, sampled_steps
from polymae.data import draws
from polymae.data.images import normalise
from polymae.files.errors import Problem
from polymae.training.reading import named, read_recipe
from polymae.training.recipe import Recipe

RECIPE = read_recipe(None, SETTINGS)
ENVIRONMENT = {"framework": "torch", "version": "2", "device": "cpu", "threads": 1, "tf32": False, "variables": {}}


def test_every_check_needs_works_that_there_are() -> None:
    assert tuple(NEEDS) == CHECKS
    assert {work for works in NEEDS.values() for work in works} - {"oracle", "killed"} <= set(WORK)


def test_the_laws_of_order_and_noise_are_those_of_the_data() -> None:
    for seed, epoch, place in ((0, 0, 0), (7, 3, 11), (2**63 + 1, 799, 1_281_166)):
        assert np.array_equal(law.order(seed, epoch, 100), draws.order(seed, epoch, 100))
        assert np.array_equal(law.noise(seed, epoch, place, 49), draws.mask_noise(seed, epoch, place, 49))


def test_the_law_of_pixels_is_that_of_the_data() -> None:
    recipe = read_recipe("official-base")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    assert np.abs(law.standardised(pixels, recipe) - normalise(pixels, "float64")).max() < 1e-15


@pytest.mark.parametrize("name", named(Recipe))
def test_the_law_of_rates_is_that_of_every_recipe(name: str) -> None:
    recipe = read_recipe(name)
    for per_epoch in (1, 7, 312):
        schedule = recipe.schedule_of(per_epoch)
        for step in sampled_steps(recipe, per_epoch):
            assert law.rate(recipe, per_epoch, step) == pytest.approx(schedule.rate(step), rel=1e-12, abs=1e-20)


def test_the_law_of_decay_is_the_rule_of_every_family() -> None:
    for name in ("mae_vit_test_patch8", "libai_mae_vit_test_patch8", "mae_vit_base_patch16"):
        config = model_config(name)
        decay = decay_of(config, RECIPE.settings)
        for param in params(config):
            if param.trainable:
                assert (decay[param.name] > 0) == law.decays(param.name, len(param.shape), RECIPE), param.name


@pytest.mark.parametrize("decayed", ["official", "all", "first_groups"])
def test_the_law_of_decay_knows_the_mistakes(decayed: str) -> None:
    recipe = read_recipe(None, (*SETTINGS, f"decayed={decayed}"))
    decay = decay_of(recipe.config, recipe.settings)
    shapes = {param.name: param.shape for param in params(recipe.config)}
    assert {name: law.decays(name, len(shapes[name]), recipe) for name in decay} == {n: d > 0 for n, d in decay.items()}


def test_the_law_of_cutmix_is_that_of_the_data() -> None:
    recipe = read_recipe("flyegle", ["seed=3"])
    assert recipe.mixing is not None
    for epoch, position in itertools.product((0, 5), range(50)):
        rows, columns = law.cut(recipe, epoch, position, 30, 44)
        box = recipe.mixing.drawn(draws.generator(3, "mix", epoch, position), 30, 44).box
        assert (rows.start, rows.stop, columns.start, columns.stop) == box


@pytest.mark.parametrize(
    "change",
    [
        {"tf32": True},
        {"float32_matmul_precision": "high"},
        {"variables": {"NVIDIA_TF32_OVERRIDE": "1"}},
        {"variables": {"ONEFLOW_EP_CUDA_ENABLE_TF32_EXECUTION": "1"}},
        {"variables": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}},
    ],
)
def test_anything_that_rounds_to_fewer_bits_fails(change: dict[str, Any]) -> None:
    assert checks.check_tf32(ENVIRONMENT).verdict == "passed"
    assert checks.check_tf32(ENVIRONMENT | {"variables": {"NVIDIA_TF32_OVERRIDE": "0"}}).verdict == "passed"
    assert checks.check_tf32(ENVIRONMENT | change).verdict == "failed"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("norm", 1e-3, "norm"), ("m", 0.5, "first moments"), ("v", (2.0, "x"), "second"), ("weights", (math.nan, "x"), "weights")],
)  # fmt: skip
def test_an_update_that_is_off_fails(name: str, value: Any, words: str) -> None:
    right = {
        "norm": 0.0, "m": 0.0, "v": (0.5, "x"), "weights": (0.5, "x"), "lr": 1.0, "clipped_to": 1.0, "gradient_norm": 1.0,
    }  # fmt: skip
    assert checks.check_update(right).verdict == "passed"
    found = checks.check_update(right | {name: value})
    assert found.verdict == "failed"
    assert words in found.reason


def test_a_loss_on_another_batch_fails() -> None:
    lines = [{"loss": 1.0}, {"loss": 0.5}]
    assert checks.check_loop(lines, [1.0 + 1e-7, 0.5], RECIPE).verdict == "passed"
    assert checks.check_loop(lines, [1.0, 0.501], RECIPE).verdict == "failed"
    assert checks.check_loop([{"loss": math.nan}, lines[1]], [1.0, 0.5], RECIPE).verdict == "failed"
    # Without a warm-up the first step has changed the weights.
    cold = replace(RECIPE, schedule=replace(RECIPE.schedule, warmup_epochs=0.0))
    assert checks.check_loop(lines, [1.0, 0.7], cold).verdict == "passed"


def test_mixed_precision_beyond_its_roundoff_fails() -> None:
    mixed = replace(RECIPE, computing=replace(RECIPE.computing, precision="bfloat16"))
    assert checks.check_precision(None, RECIPE).verdict == "passed"
    assert checks.check_precision({"loss": 1e-3, "gradients": 0.02}, mixed).verdict == "passed"
    assert checks.check_precision({"loss": 0.1, "gradients": 0.02}, mixed).verdict == "failed"
    assert checks.check_precision({"loss": 1e-3, "gradients": 1.0}, mixed).verdict == "failed"
    assert checks.check_precision({"loss": math.nan, "gradients": 0.0}, mixed).verdict == "failed"


def measured(*rows: tuple[int, float], whole: int = 64) -> dict[str, Any]:
    steps = [{"images": images, "seconds": 0.1 * images, "memory": memory} for images, memory in rows]
    return {"before": 1e9, "steps": steps, "whole": whole, "problem": "", "loader": {"images": 100, "seconds": 1.0}}


def test_memory_is_measured_or_continued_from_smaller_batches() -> None:
    found = checks.check_memory(measured((2, 2e9), (64, 5e9)), 10_000_000_000, RECIPE)
    assert found.verdict == "passed"
    assert found.figures["measured"]
    found = checks.check_memory(measured((2, 2e9), (8, 3.2e9)), 100_000_000_000, RECIPE)
    assert found.figures["bytes"] == pytest.approx(3.2e9 + 56 * 0.2e9)
    assert not found.figures["measured"]


def test_a_batch_that_does_not_fit_fails_with_advice() -> None:
    recipe = replace(RECIPE, batch=replace(RECIPE.batch, batch_size=64))
    found = checks.check_memory(measured((2, 1.4e9), (8, 2.6e9)), 8_000_000_000, recipe)
    assert found.verdict == "failed"
    # 0.2 GB an image above 1 GB, of 6.4 GB: 27 images at a time.
    assert "micro_batch_size=27" in found.reason


def test_a_device_that_is_full_fails_with_advice() -> None:
    recipe = replace(RECIPE, batch=replace(RECIPE.batch, batch_size=64))
    full = measured((2, 1.4e9), (8, 2.6e9)) | {"problem": "32 images: CUDA out of memory"}
    found = checks.check_memory(full, 100_000_000_000, recipe)
    assert found.verdict == "failed"
    assert "micro_batch_size=8" in found.reason


def test_speed_says_how_long_training_waits() -> None:
    slow = measured((64, 5e9)) | {"loader": {"images": 5, "seconds": 1.0}}
    found = checks.measured_speed(slow, RECIPE)
    assert found.verdict == "measured"
    assert found.figures["waiting"] == pytest.approx(0.5)
    assert checks.measured_speed(measured((64, 5e9)), RECIPE).figures["waiting"] == 0


def test_a_rate_of_the_next_step_is_named() -> None:
    rates = {str(step): law.rate(RECIPE, 3, step) for step in range(12)}
    loop = [law.rate(RECIPE, 3, step) for step in range(6)]
    assert checks.check_schedule(rates, 3, RECIPE, loop, RECIPE, 3).verdict == "passed"
    ahead = {str(step): law.rate(RECIPE, 3, step + 1) for step in range(11)}
    for found in (
        checks.check_schedule(ahead, 3, RECIPE, loop, RECIPE, 3),
        checks.check_schedule(rates, 3, RECIPE, loop[1:], RECIPE, 3),
    ):
        assert found.verdict == "failed"
        assert "that of step 1" in found.reason


def outcome(*verdicts: Any) -> Preflight:
    found = tuple(Check(name, verdict, f"<{name}>") for name, verdict in zip(CHECKS, verdicts))
    return Preflight({"framework": "torch", "recipe": "made"}, found, 1.0)


def test_the_status_is_that_of_the_worst_check() -> None:
    assert outcome("passed", "measured").exit_status == 0
    assert outcome("passed", "could not run").exit_status == 2
    assert outcome("could not run", "failed").exit_status == 1
    assert outcome().exit_status == 2
    assert "tf32" in outcome("failed").headline


def test_the_page_and_its_numbers_are_written(tmp_path: Path) -> None:
    page, numbers = write_files(outcome("passed", "failed"), tmp_path / "new")
    text = page.read_text()
    assert "&lt;batches&gt;" in text
    assert "✗" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert json.loads(numbers.read_text())["status"] == 1


def test_the_command_prints_and_returns_the_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(made_images(tmp_path))
    arguments = ["--framework", "numpy", "--data", data, "--only", "tf32,batches", "--threads", "1", "--set", *SETTINGS]
    assert main(["preflight", *arguments, "--out", str(tmp_path / "page")]) == 0
    told = capsys.readouterr().out
    assert "Ready: 2 checks passed" in told
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["preflight.html", "preflight.json"]
    assert main(["preflight", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == 0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["--only", "tf33"], "tf32"),
        (["--set", "epoch=3"], "epochs"),
        (["--data", "nowhere"], "There is no nowhere"),
        (["--set", "batch_size=22"], "batch_size=21"),
    ],
)
def test_what_cannot_be_tried_is_said(
    changed: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(made_images(tmp_path))
    given = ["preflight", "--framework", "numpy", "--data", data, "--set", *SETTINGS, *changed]
    assert main(given) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert not said.out


def test_a_framework_that_does_not_start_could_not_run(tmp_path: Path) -> None:
    found = preflight(flight("numpy", tmp_path, "tf32", "memory", python=str(tmp_path / "nothing")))
    assert [check.verdict for check in found.checks] == ["could not run", "could not run"]
    assert "does not start" in found.checks[0].reason
    assert found.exit_status == 2


def test_a_process_that_is_killed_for_its_memory_fails(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    found = preflight(flight("numpy", tmp_path, "memory", "speed", python=str(python)))
    assert [check.verdict for check in found.checks] == ["failed", "could not run"]


def test_a_broken_image_cannot_be_tried_unless_it_is_skipped(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(1).integers(0, 256, (8, 16, 16), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:90])
    for skip, status in (("false", 2), ("true", 0)):
        tried = flight("numpy", tmp_path, "batches", "normalisation", settings=(f"skip_broken={skip}", "workers=0"))
        found = preflight(replace(tried, data=folder))
        assert found.exit_status == status, found.checks


def test_a_job_of_another_kind_is_refused() -> None:
    from polymae.compare.options import Run
    from polymae.compare.preflight.jobs import as_job

    with pytest.raises(Problem, match="takes a Job"):
        as_job(Run("numpy", Path("a"), Path("b")))
