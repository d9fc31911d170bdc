"""Pre-training in every framework: the same batches, stopped and gone on with, in the same framework or another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import STEPS, assert_same_run, command, lines, several, tiny_data, tiny_recipe

from polymae.convert.checkpoint import open_checkpoint
from polymae.files.errors import Problem
from polymae.training import checkpoints, pretrain
from polymae.training.pretrain import NotFinite, Request, resumed, run_request


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("images"))


def request(data: Path, out: Path, *settings: str, **options: Any) -> Request:
    return Request("numpy", data, out, tiny_recipe(*settings), **options)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run in NumPy."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run_request(request(data, out))
    return out


def test_a_run_and_its_files(whole: Path, data: Path) -> None:
    steps = lines(whole)
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in steps] == [0] * 4 + [1] * 4 + [2] * 4
    assert all(set(line) == {"step", "epoch", "loss", "lr", "grad_norm"} for line in steps)
    assert [line["lr"] for line in steps[:5]] == pytest.approx([0, 2.5e-4, 5e-4, 7.5e-4, 1e-3])
    assert steps[-1]["loss"] < steps[0]["loss"]
    log = lines(whole, "log.txt")
    assert [line["epoch"] for line in log] == [0, 1, 2]
    assert log[0]["train_loss"] == pytest.approx(np.mean([line["loss"] for line in steps[:4]]))
    assert log[0]["train_lr"] == pytest.approx(3.75e-4)
    assert [one.name for one in sorted((whole / "checkpoints").iterdir())] == ["12", "last"]
    state = json.loads((whole / "checkpoints/last/state.json").read_text())
    assert (state["step"], state["epoch"], state["updates"], state["framework"]) == (12, 3, 12, "numpy")
    assert state["data"]["images"] == 40
    weights = open_checkpoint(whole / "checkpoints/last/weights.safetensors")
    assert weights.dialect == "official"
    assert weights.load(tiny_recipe().config).hash == state["hashes"]["weights"]


@pytest.mark.parametrize("settings", [(), ("workers=3",), ("accumulate=1", "compiled=false")])
@pytest.mark.parametrize("at", [1, 4, 7])
def test_stopped_and_gone_on_with(whole: Path, data: Path, tmp_path: Path, at: int, settings: tuple[str, ...]) -> None:
    out = tmp_path / "run"
    run_request(request(data, out, f"steps={at}"))
    assert len(lines(out)) == at
    outcome = run_request(resumed(out, ["steps=null", *settings]))
    assert (outcome.step, outcome.stopped) == (STEPS, "")
    assert_same_run(whole, out)
    mine, theirs = ([[line["epoch"], line["train_loss"]] for line in lines(each, "log.txt")] for each in (out, whole))
    assert mine == theirs


def test_gone_on_with_in_a_new_folder(whole: Path, data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run_request(request(data, first, "save_every_steps=5", "keep_last=9"))
    with pytest.raises(Problem, match="goes on to step 12"):
        run_request(resumed(first / "checkpoints" / "5"))
    run_request(resumed(first / "checkpoints" / "5", out=second))
    assert_same_run(whole, second)
    assert_same_run(whole, first)


def test_parts_of_a_batch_are_the_batch(whole: Path, data: Path, tmp_path: Path) -> None:
    for setting in ("accumulate=2", "accumulate=3", "accumulate=4", "micro_batch_size=1"):
        out = tmp_path / setting
        run_request(request(data, out, setting, "steps=3"))
        for mine, theirs in zip(lines(out), lines(whole)):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
            assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)


def test_checkpoints_are_pruned(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_request(request(data, out, "save_every_steps=1", "keep_last=2", "keep_every_epochs=2"))
    assert checkpoints.steps_of(out) == [8, 11, 12]
    best = tmp_path / "best"
    run_request(request(data, best, "save_every_epochs=1", "keep_last=1", "keep_best=true", "lr=0.5"))
    means = {4 * (line["epoch"] + 1): line["train_loss"] for line in lines(best, "log.txt")}
    assert checkpoints.steps_of(best) == sorted({min(means, key=means.__getitem__), 12})


def test_what_differs_is_refused_and_listed(whole: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        run_request(resumed(whole, ["seed=1", "epochs=4", "workers=1"]))
    assert "seed was 0 and is 1" in str(caught.value)
    assert "schedule.epochs was 3 and is 4" in str(caught.value)
    assert "workers" not in str(caught.value)
    out = tmp_path / "longer"
    assert run_request(resumed(whole, ["epochs=4"], out=out, changed=True)).step == 16
    other = tiny_data(tmp_path / "other")
    (other / "class0/00.png").unlink()
    with pytest.raises(Problem, match=r"the list of images .* \(39 images\) is another than of .* \(40 images\)"):
        run_request(resumed(whole, data=other, out=tmp_path / "x"))
    changed = tiny_data(tmp_path / "changed")
    for path in changed.glob("*/*.png"):  # as many bytes, other pixels
        pixels = path.read_bytes()
        path.write_bytes((changed / "class1/01.png").read_bytes() if path.name == "03.png" else pixels)
    with pytest.raises(Problem, match="is another than of"):
        run_request(resumed(whole, data=changed, out=tmp_path / "x"))
    assert not (tmp_path / "x").exists() or not list((tmp_path / "x").iterdir())


def test_two_runs_in_one_folder(whole: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"holds a run of numpy, 12 steps long. To go on with it: --resume"):
        run_request(request(data, whole))
    from polymae.training.run import held

    out = tmp_path / "run"
    with held(out), pytest.raises(Problem, match="Another process trains in"):
        run_request(request(data, out))
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem, match="is a file; give a folder"):
        run_request(request(data, tmp_path / "file"))


def test_a_damaged_checkpoint_is_refused_with_another(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_request(request(data, out, "save_every_steps=4", "keep_last=9"))
    newest = out / "checkpoints" / "12"
    damages = {
        "weights.safetensors": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
        "optimizer.safetensors": lambda raw: raw[: len(raw) // 2],
        "state.json": lambda raw: raw[:100],
    }
    for name, damage in damages.items():
        path = newest / name
        raw = path.read_bytes()
        path.write_bytes(damage(raw))
        with pytest.raises(Problem, match=r"--resume .*checkpoints/8"):
            run_request(resumed(newest, out=tmp_path / "other"))
        path.write_bytes(raw)
    moments = newest / "optimizer.safetensors"
    raw = moments.read_bytes()
    moments.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(Problem, match="the file was changed or damaged"):
        run_request(resumed(out))
    with pytest.raises(Problem, match="holds no checkpoint to go on from"):
        resumed(data)
    with pytest.raises(Problem, match="There is no"):
        resumed(tmp_path / "missing")


@pytest.mark.parametrize("planted", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run(
    planted: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polymae.backends.numpy.training import Training

    right = Training.gradients

    def wrong(self: Any, inputs: Any, factor: float) -> Any:
        loss, gradients = right(self, inputs, factor)
        if self.optimizer.steps == 5:
            if planted == "loss":
                loss = float("nan")
            else:
                gradients[0][3] = np.inf
        return loss, gradients

    monkeypatch.setattr(Training, "gradients", wrong)
    out = tmp_path / "run"
    with pytest.raises(NotFinite, match=r"At step 6 the (loss is nan|gradients' norm is inf)"):
        run_request(request(data, out, "save_every_steps=2"))
    assert len(lines(out)) == 5
    with np.load(out / "not-finite/6/batch.npz") as batch:
        assert batch["imgs"].shape == (10, 3, 16, 16)
        assert len(batch["indices"]) == 10
    kept = open_checkpoint(out / "not-finite/6/weights.npz").weights(tiny_recipe().config)
    monkeypatch.undo()
    run_request(resumed(out, ["steps=5"]))  # the weights are those before the step
    right_ones = open_checkpoint(out / "checkpoints/last/weights.safetensors").weights(tiny_recipe().config)
    assert all(np.array_equal(kept[name], right_ones[name]) for name in kept)


def test_a_full_disk_leaves_the_older_checkpoint(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    run_request(request(data, out, "steps=4"))
    before = {path: path.read_bytes() for path in (out / "checkpoints" / "4").iterdir()}

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.safetensors, "write", full)
    with pytest.raises(Problem, match=r"No space left on device.*--resume"):
        run_request(resumed(out, ["steps=null"]))
    assert checkpoints.steps_of(out) == [4]
    assert {path: path.read_bytes() for path in before} == before
    monkeypatch.undo()
    assert run_request(resumed(out, ["steps=null"])).step == STEPS


def test_begun_with_weights_and_the_function(whole: Path, data: Path, tmp_path: Path) -> None:
    weights = whole / "checkpoints/last/weights.safetensors"
    outcome = pretrain.pretrain("numpy", data, tmp_path / "run", tiny_recipe("steps=1"), weights=weights)
    assert outcome.step == 1
    assert lines(tmp_path / "run")[0]["loss"] < lines(whole)[0]["loss"]
    with pytest.raises(Problem):
        pretrain.pretrain("numpy", data, tmp_path / "other", tiny_recipe("model=mae_vit_test_patch8"), weights=weights)


def test_broken_images_and_other_inputs(data: Path, tmp_path: Path) -> None:
    broken = tiny_data(tmp_path / "broken")
    path = broken / "class0/04.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(Problem, match=r"04\.png"):
        run_request(request(broken, tmp_path / "a"))
    assert run_request(request(broken, tmp_path / "b", "skip_broken=true")).step == STEPS
    assert lines(tmp_path / "b", "log.txt")[-1]["broken_images"] == 1
    assert (tmp_path / "b/broken-images.txt").read_text().startswith("class0/04.png: ")
    empty = tmp_path / "empty"
    empty.mkdir()
    for settings, images, expected in (
        (("batch_size=41",), data, "which fill no batch"),
        (("crop=none",), data, "16 x 16"),
        ((), empty, "holds no image"),
        ((), tmp_path / "missing", "There is no"),
    ):
        with pytest.raises(Problem, match=expected):
            run_request(request(images, tmp_path / "c", *settings))


# In a process of each framework's own.


def test_every_framework_trains_alike_and_goes_on(framework: str, data: Path, whole: Path, tmp_path: Path) -> None:
    """Losses are those of NumPy within roundoff; gone on with, the run is the uninterrupted one bit for bit."""
    out, stopped, other = (tmp_path / name for name in ("whole", "stopped", "other"))
    run_request(request(data, other, "steps=5"))
    begun = [command(framework, data, out), command(framework, data, stopped, "steps=5")]
    several(framework, *begun)
    for mine, theirs in zip(lines(out), lines(whole)):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=3e-6)
        assert mine["lr"] == theirs["lr"]
    goes_on = [[*begun[0][:4], "--resume", str(each), "--set", "steps=null"] for each in (stopped, other)]
    several(framework, [*goes_on[0], "--threads", "1"], [*goes_on[1], "--framework", framework])
    assert_same_run(out, stopped)
    # Begun in NumPy, gone on with in this framework: no further than two uninterrupted runs.
    for mine, theirs in zip(lines(other), lines(whole)):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=3e-6)
    assert [line["loss"] for line in lines(other)[:5]] == [line["loss"] for line in lines(whole)[:5]]
    facts = checkpoints.facts_of(other / "checkpoints/12")
    assert facts.framework == framework
    assert replace(facts, framework="numpy").updates == 12


def test_float16_skips_what_overflows_and_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch in float16 on a CPU: gradients overflow at steps 3 and 4; the scale is that of the rule after a resume, too."""
    from polymae.backends.torch.training import Training

    right = Training.gradients

    def overflowing(self: Any, inputs: Any, factor: float) -> Any:
        loss, gradients = right(self, inputs, factor)
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls in (3, 4):
            gradients[0][0] = float("inf")
        return loss, gradients

    def torch_request(out: Path, *settings: str) -> Request:
        return Request("torch", data, out, tiny_recipe("precision=float16", *settings), threads=1)

    monkeypatch.setattr(Training, "gradients", overflowing)
    whole, out = tmp_path / "whole", tmp_path / "run"
    run_request(torch_request(whole))
    assert [line["grad_norm"] is None for line in lines(whole)] == [False, False, True, True] + [False] * 8
    state = json.loads((whole / "checkpoints/last/state.json").read_text())
    assert state["scale"] == {"scale": 65536 / 4, "finite": 8}
    assert (state["step"], state["updates"]) == (12, 10)
    run_request(torch_request(out, "steps=6"))
    monkeypatch.undo()
    run_request(resumed(out, ["steps=null"], threads=1))
    assert_same_run(whole, out)
    with pytest.raises(Problem, match="NumPy|numpy"):
        run_request(request(data, tmp_path / "x", "precision=float16"))
