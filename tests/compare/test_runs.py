"""Runs beside a reference and beside each other: right ones are the same within roundoff, faults part where they begin."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import run_in
from made_runs import PER_EPOCH, STEPS, tiny_recipe, train, write_images, write_tiny_reference
from numpy.typing import NDArray

from polymae.backends import optimization
from polymae.backends.numpy.optimizer import AdamW
from polymae.backends.numpy.training import Training
from polymae.backends.optimization import State
from polymae.cli import main
from polymae.compare.limits.curves import curve_limit, distance
from polymae.compare.limits.metrics import U
from polymae.compare.runs.compare import compare_runs
from polymae.compare.runs.judging import LEAP, MEASURED, PAIR, pair_limit
from polymae.compare.runs.reference import Reference, named, read_reference, write_reference
from polymae.compare.runs.result import Judged
from polymae.data import draws
from polymae.data.batches import Batches
from polymae.files.errors import Problem
from polymae.training import autoencoding, pretrain
from polymae.training.reading import named as recipes
from polymae.training.reading import read_recipe
from polymae.training.recipe import differences

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    return write_images(folder)


@pytest.fixture(scope="module")
def reference(data: Path, folder: Path) -> Path:
    return write_tiny_reference(data, folder)


def judged(run: Path, reference: Path) -> Judged:
    found, _ = compare_runs([run], reference)
    assert found.exit_status == {"exact": 0, "roundoff": 0, "parts": 1, "not comparable": 2}[found.verdict]
    return found.judged[0]


def beside(run: Path, first: Path) -> Judged:
    return compare_runs([first, run])[0].judged[0]


# What is right.


def test_a_right_run_is_the_same_within_roundoff(framework: str, data: Path, folder: Path, reference: Path) -> None:
    out = folder / f"right-{framework}"
    if framework == "numpy":
        train(data, out)
    else:  # in a process of its own: two frameworks do not go together in one
        script = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\nfrom pathlib import Path\n"
        script += (
            f"from made_runs import train\ntrain(Path({str(data)!r}), Path({str(out)!r}), framework={framework!r})"
        )
        run_in(framework, script)
    found = judged(out, reference)
    assert (found.verdict, found.judged, found.parts, found.frameworks) == ("roundoff", STEPS, None, [framework])
    assert found.worst
    assert 0 < found.worst[0] <= found.worst[1]
    assert [epoch.epoch for epoch in found.epochs] == [0, 1, 2]
    assert all(epoch.limit > 0 and epoch.ratio < 0.1 for epoch in found.epochs)
    pair = beside(out, folder / "twin1")
    assert pair.verdict in ("roundoff", "exact")
    assert pair.differences == {}


def test_the_oracle_is_exact_and_equal_runs_are_bit_for_bit(folder: Path, reference: Path) -> None:
    assert judged(folder / "oracle", reference).verdict == "exact"
    found = beside(folder / "whole", folder / "whole")
    assert (found.verdict, found.first_bits, found.worst) == ("exact", None, (0.0, pytest.approx(PAIR / U)))


def test_free_settings_may_differ(data: Path, folder: Path, reference: Path, tmp_path: Path) -> None:
    out = train(data, tmp_path / "run", "accumulate=3", "workers=1", "steps=7", "save_every_steps=2")
    found = judged(out, reference)
    assert (found.verdict, found.judged, len(found.epochs)) == ("roundoff", 7, 1)


def test_a_run_that_was_killed_is_judged_as_far_as_it_came(data: Path, reference: Path, tmp_path: Path) -> None:
    out = train(data, tmp_path / "run", "steps=5")
    for path in sorted((out / "checkpoints").rglob("*"), reverse=True):
        path.unlink() if not path.is_dir() or path.is_symlink() else path.rmdir()
    with (out / "steps.jsonl").open("a") as file:
        file.write('{"step": 6, "epo')
    found = judged(out, reference)
    assert (found.verdict, found.judged, found.frameworks, len(found.notices)) == ("roundoff", 5, [], 1)


# What is wrong: a fault in the program, which the recipe beside the run does not tell.


def another_seed(patch: pytest.MonkeyPatch) -> None:
    right = autoencoding.initial_weights
    patch.setattr(autoencoding, "initial_weights", lambda config, seed: right(config, seed + 1))


def schedule_off_by_one(patch: pytest.MonkeyPatch) -> None:
    right = optimization.Schedule.rate
    patch.setattr(optimization.Schedule, "rate", lambda self, step: right(self, step + 1))


def schedule_off_unseen(patch: pytest.MonkeyPatch) -> None:
    """The update's rate, and not the one that is written."""
    right = AdamW.update
    patch.setattr(AdamW, "update", lambda self, gradients, lr, scale: right(self, gradients, lr + 1e-5, scale))


def other_masks(patch: pytest.MonkeyPatch) -> None:
    """From the second step on: the first batch is that of the reference."""
    right = draws.mask_noise
    rng = np.random.default_rng(0)

    def noise(seed: int, epoch: int, index: int, length: int) -> Any:
        return right(seed, epoch, index, length) if index < 8 else rng.random(length, np.float32)

    patch.setattr(draws, "mask_noise", noise)


def decay_of_vectors(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        optimization, "decay_of", lambda config, settings: {p.name: 0.05 for p in optimization.trainable(config)}
    )


def no_decay_of_tokens(patch: pytest.MonkeyPatch) -> None:
    right = optimization.decay_of
    patch.setattr(
        optimization,
        "decay_of",
        lambda config, settings: {**right(config, settings), "cls_token": 0.0, "mask_token": 0.0},
    )


def a_repeated_batch(patch: pytest.MonkeyPatch) -> None:
    right = Batches.fill

    def fill(self: Batches, arrays: Any, row: int, step: int, place: int) -> None:
        right(self, arrays, row, step - 1 if step == 6 else step, place)

    patch.setattr(Batches, "fill", fill)


def beta_of_another_recipe(patch: pytest.MonkeyPatch) -> None:
    right = AdamW.__init__

    def begin(self: AdamW, runtime: Any, model: Any, settings: Any) -> None:
        right(self, runtime, model, replace(settings, betas=(0.9, 0.999)))

    patch.setattr(AdamW, "__init__", begin)


def gradients_twice(patch: pytest.MonkeyPatch) -> None:
    """AdamW hardly notices; the gradients' norm does."""
    right = Training.gradients

    def gradients(self: Training, inputs: Any, factor: float) -> Any:
        return right(self, inputs, 2 * factor)

    patch.setattr(Training, "gradients", gradients)


# By fault: the step at which it parts, and a word of where to look. The rate of the first step is 0.
FAULTS: dict[Callable[[pytest.MonkeyPatch], None], tuple[int, str]] = {
    another_seed: (1, "first weights"),
    schedule_off_by_one: (2, "learning rate of step 1"),
    schedule_off_unseen: (2, "update"),
    other_masks: (2, "masks of step 2"),
    decay_of_vectors: (3, "decay"),
    no_decay_of_tokens: (4, "decay"),
    a_repeated_batch: (7, "batch and masks of step 7"),
    beta_of_another_recipe: (3, "update"),
    gradients_twice: (1, "gradients"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_parts_at_its_step(
    fault: Callable[[pytest.MonkeyPatch], None], data: Path, folder: Path, reference: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        out = train(data, tmp_path / "run")
    step, words = FAULTS[fault]
    found = judged(out, reference)
    assert (found.verdict, found.parts, found.differences, found.other_data) == ("parts", step, {}, {})
    assert words in found.reason
    pair = beside(out, folder / "whole")
    assert pair.verdict == "parts"
    assert pair.parts in range(step, step + 4)  # without twins more is explained


def zeros(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.zeros_like(array) for name, array in arrays.items()}


def test_moments_that_a_resumed_run_lost(data: Path, folder: Path, reference: Path, tmp_path: Path) -> None:
    out = train(data, tmp_path / "run", "steps=6")
    with pytest.MonkeyPatch.context() as patch:
        right = AdamW.load_state
        patch.setattr(AdamW, "load_state", lambda self, state: right(self, State(0, *map(zeros, state[1:]))))
        pretrain.run_request(pretrain.resumed(out, ["steps=null"]))
    found = judged(out, reference)
    assert (found.verdict, found.parts) == ("parts", 8)
    pair = beside(out, folder / "whole")
    assert (pair.verdict, pair.parts, pair.first_bits) == ("parts", 8, 8)


def test_a_wrong_rate_is_told_where_losses_are_right(data: Path, reference: Path, tmp_path: Path) -> None:
    out = train(data, tmp_path / "run")
    change(out, 12, lr=1e-3)
    found = judged(out, reference)
    assert (found.verdict, found.parts, found.first_rate) == ("parts", None, 12)


def test_the_later_part_is_judged_by_its_epochs(data: Path, reference: Path, folder: Path, tmp_path: Path) -> None:
    """A reference whose oracle was stopped after the first epoch."""
    whole = read_reference(reference)
    first = slice(PER_EPOCH)
    twins, norms = ([curve[first] for curve in curves] for curves in (whole.twins, whole.twin_norms))
    cut = replace(
        whole, oracle=whole.oracle[first], oracle_norm=whole.oracle_norm[first], twins=twins, twin_norms=norms
    )
    write_reference(tmp_path / "cut.json", cut)
    out = train(data, tmp_path / "run")
    assert judged(out, tmp_path / "cut.json").verdict == "roundoff"
    with pytest.MonkeyPatch.context() as patch:
        right = AdamW.update
        patch.setattr(
            AdamW, "update", lambda self, g, lr, scale: right(self, g, lr if self.steps < 4 else -3 * lr, scale)
        )
        wrong = train(data, tmp_path / "wrong")
    found = judged(wrong, tmp_path / "cut.json")
    assert (found.verdict, found.parts, found.judged) == ("parts", None, PER_EPOCH)
    assert [epoch.over for epoch in found.epochs] == [False, True, True]


# What cannot be compared.


def test_another_recipe_is_refused_with_its_differences(data: Path, reference: Path, tmp_path: Path) -> None:
    out = train(data, tmp_path / "run", "weight_decay=0.1", "seed=3", "steps=2")
    found = judged(out, reference)
    assert found.verdict == "not comparable"
    assert list(found.differences.items()) == [("seed", (0, 3)), ("optimizer.weight_decay", (0.05, 0.1))]
    assert found.distances == []


def test_other_data_and_masks_of_another_generator_are_refused(data: Path, reference: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    out = train(write_images(tmp_path / "other", seed=1), tmp_path / "run", "steps=2")
    found = judged(out, reference)
    assert (found.verdict, set(found.other_data)) == ("not comparable", {"fingerprint", "first_batch"})
    with pytest.MonkeyPatch.context() as patch:
        right = draws.mask_noise
        patch.setattr(draws, "mask_noise", lambda seed, *place: right(seed + 1, *place))
        out = train(data, tmp_path / "masks", "steps=2")
    found = judged(out, reference)
    assert (found.verdict, set(found.other_data)) == ("not comparable", {"first_batch"})


def test_recipes_that_differ_beside_each_other(data: Path, folder: Path, tmp_path: Path) -> None:
    out = train(data, tmp_path / "run", "lr=0.02", "epochs=4")
    found = beside(out, folder / "whole")
    assert (found.verdict, found.parts, found.first_rate) == ("parts", 3, 2)
    assert list(found.differences) == ["optimizer.lr", "schedule.epochs"]
    assert "optimizer.lr is 0.02, and was 0.01" in found.reason


def change(run: Path, number: int, **values: Any) -> None:
    """Change values of a step's line."""
    lines = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    lines[number - 1] |= values
    (run / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_folders_without_a_run(data: Path, reference: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    damaged = [train(data, tmp_path / name, "steps=3") for name in ("none", "text", "twice")]
    (damaged[0] / "steps.jsonl").write_text("")
    change(damaged[1], 2, loss="1.0")
    change(damaged[2], 3, step=2)
    absent = tmp_path / "absent"
    found, read = compare_runs([folder / "whole", absent, tmp_path / "empty", *damaged], reference)
    assert [one.verdict for one in found.judged] == ["roundoff", *5 * ["not comparable"]]
    assert found.exit_status == 2
    assert [run.path for run in read] == [folder / "whole"]
    reasons = [one.reason for one in found.judged[1:]]
    for words, reason in zip(("no run's folder", "no step", "no step", "Line 2", "step 2, after step 2"), reasons):
        assert words in reason
    with pytest.raises(Problem, match="no run's folder"):
        compare_runs([absent, folder / "whole"])
    with pytest.raises(Problem, match="alone"):
        compare_runs([folder / "whole"])


def test_a_run_without_a_step_in_common(data: Path, folder: Path, tmp_path: Path) -> None:
    out = train(data, tmp_path / "run")
    kept = (out / "steps.jsonl").read_text().splitlines(keepends=True)
    (out / "steps.jsonl").write_text("".join(kept[6:]))
    other = train(data, tmp_path / "other", "steps=5")
    assert beside(out, other).verdict == "not comparable"
    found = beside(out, folder / "whole")
    assert (found.verdict, found.compared, found.steps[0]) == ("exact", STEPS - 6, 7)


# References, and how far two runs may be apart.


def test_a_reference_is_read_as_it_was_written(reference: Path, tmp_path: Path) -> None:
    first = read_reference(reference)
    write_reference(tmp_path / "again.json", first)
    assert (tmp_path / "again.json").read_bytes() == reference.read_bytes()
    assert first.recipe == tiny_recipe()
    assert (first.per_epoch, first.oracle.size, len(first.twins), first.seeds.shape) == (PER_EPOCH, STEPS, 3, (2, 3))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "name": "x"}'])
def test_a_file_that_is_no_reference(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(Problem, match=r"x\.json is"):
        read_reference(tmp_path / "x.json")
    with pytest.raises(Problem, match="Did you mean 'small-cpu'"):
        read_reference("smal-cpu")


@pytest.mark.parametrize("name", named())
def test_references_of_the_package(name: str) -> None:
    found: Reference = read_reference(name)
    assert name in recipes()
    assert differences(found.recipe, read_recipe(name)) == {}
    assert found.oracle.size >= 100
    assert len(found.twins) >= 3
    assert len(found.seeds) >= 2
    limit = curve_limit(found.oracle, found.twins)
    assert limit.size == found.oracle.size  # in all of it float32 says something
    off = distance(found.whole[: limit.size], found.oracle)
    assert 0 < (off / limit).max() < 1
    schedule = read_recipe(name).schedule_of(found.per_epoch)
    assert found.lr.tolist() == pytest.approx([schedule.rate(step) for step in range(found.lr.size)], rel=1e-12)
    assert found.whole.size == found.lr.size == read_recipe(name).steps(found.per_epoch)
    means = found.whole.reshape(-1, found.per_epoch).mean(axis=1)
    assert found.epochs == pytest.approx(means)


def test_two_runs_may_drift_apart_and_not_leap() -> None:
    steps = np.arange(1, 401)
    off = 3 * U * 1.01**steps
    limit = pair_limit(off)
    assert limit[:MEASURED] == pytest.approx(PAIR)
    assert (off[: limit.size] < limit).all()
    leaping = off.copy()
    leaping[250:] *= 3 * LEAP
    limit = pair_limit(leaping)
    assert int(np.argmax(leaping[: limit.size] > limit)) == 250
    late = np.where(steps < 300, 0.0, 3 * U)  # the first difference comes late: as much is explained from there on
    assert (pair_limit(late)[: 299 + MEASURED] == PAIR).all()
    assert pair_limit(np.full(400, 1e-3)).size == MEASURED  # later, that far, float32 says nothing


# The command.


def test_the_command(folder: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, twin, seed = (str(folder / name) for name in ("whole", "twin1", "seed1"))
    assert (
        main(["runs", "compare", whole, twin, "--reference", str(reference), "--out", str(tmp_path / "out"), "--json"])
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "out" / "runs.json").read_text())
    assert [(one["label"], one["verdict"]) for one in told["runs"]] == [("whole", "roundoff"), ("twin1", "roundoff")]
    assert main(["runs", "compare", whole, seed, "--reference", str(reference)]) == 2
    assert "seed is 1, and was 0" in " ".join(capsys.readouterr().out.split())
    assert main(["runs", "compare", whole, seed]) == 1
    assert "parts at step 1" in " ".join(capsys.readouterr().out.split())
    assert main(["runs", "compare", whole]) == 2
    assert main(["runs", "compare", whole, "--reference", "none-such"]) == 2
    assert "none-such" in capsys.readouterr().err
