"""Fine-tuning in every framework: from any checkpoint, with everything drawn on, stopped, killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from children import comes, heard
from guard import in_child
from tiny_run import SETTINGS as PRETRAINING
from tiny_run import STEPS, assert_same_run, lines, several
from tiny_tuning import AUTOENCODER, MODEL, command, labelled, pretrained_for_two_steps, tiny_tuning
from untested import require

from polymae.backends.initial import initial_weights
from polymae.backends.presets import model_config
from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.interpolation import resize_positions
from polymae.convert.writing import write_checkpoint
from polymae.files.errors import Problem
from polymae.training import checkpoints
from polymae.training.beginning import classifier_weights
from polymae.training.classifying import FineTuning
from polymae.training.finetune import finetune, resumed, run_request
from polymae.training.pretrain import pretrain
from polymae.training.reading import read_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training's folder, two steps long."""
    return pretrained_for_two_steps(data, tmp_path_factory.mktemp("pretrained") / "run")


@pytest.fixture(scope="module")
def whole(data: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted fine-tuning in NumPy."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finetune("numpy", data, out, pretrained, tiny_tuning(FineTuning))
    return out


def test_a_run_and_its_files(whole: Path) -> None:
    assert [line["step"] for line in lines(whole)] == list(range(1, STEPS + 1))
    log = lines(whole, "log.txt")
    assert [line["epoch"] for line in log] == [0, 1, 2]
    official = {"train_lr", "train_loss", "test_loss", "test_acc1", "test_acc5", "epoch", "n_parameters"}
    average = {"test_ema_acc1", "test_ema_acc5", "test_ema_loss"}
    assert all(set(line) >= official | average for line in log)
    assert log[-1]["test_loss"] != log[-1]["test_ema_loss"]
    last = whole / "checkpoints/last"
    assert {path.name for path in last.iterdir()} == {
        "weights.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json",
    }  # fmt: skip
    assert log[-1]["n_parameters"] == sum(t.size for t in weights_of(last / "weights.safetensors").values())
    state = json.loads((last / "state.json").read_text())
    assert (state["recipe"]["task"], state["averaged"], state["data"]["classes"]) == ("finetune", 12, 2)


def test_evaluating_the_run_gives_the_numbers_of_its_log(whole: Path, data: Path) -> None:
    from polymae.training.evaluate import evaluate

    log = lines(whole, "log.txt")[-1]
    for weights, name in ((whole, "test"), (whole / "checkpoints/last", "test")):
        found = evaluate("numpy", data, weights)
        assert (found.top1, found.top5) == (log[f"{name}_acc1"], log[f"{name}_acc5"])
        assert found.loss == pytest.approx(log[f"{name}_loss"], rel=1e-6)


def weights_of(path: Path) -> dict[str, np.ndarray]:
    config = tiny_tuning(FineTuning).config_of(2)
    return open_checkpoint(path).weights(config)


def test_the_average_is_that_of_the_weights_after_each_step(data: Path, pretrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("save_every_steps=1", "keep_last=9", "steps=3", "ema=0.75", "lr=0.01")
    finetune("numpy", data, out, pretrained, tiny_tuning(FineTuning, *settings))
    each = [weights_of(out / f"checkpoints/{step}/weights.safetensors") for step in range(4) if step]
    name = "blocks.1.mlp.fc2.weight"
    expected = np.array(classifier_weights(
        pretrained, MODEL, tiny_tuning(FineTuning).config_of(2), {"pooling": "gap"}, 0
    )[1][name], np.float64)  # fmt: skip
    for weights in each:
        expected = 0.75 * expected + 0.25 * weights[name]
    average = weights_of(out / "checkpoints/3/ema.safetensors")[name]
    np.testing.assert_allclose(average, expected, atol=1e-7)
    assert np.abs(average - each[-1][name]).max() > 1e-4


def test_it_begins_with_the_encoder_and_a_fresh_head(pretrained: Path, tmp_path: Path) -> None:
    config = tiny_tuning(FineTuning).config_of(2)
    found, weights = classifier_weights(pretrained, MODEL, config, {"pooling": "gap"}, 3)
    theirs = open_checkpoint(pretrained / "checkpoints/2/weights.safetensors").weights(model_config(AUTOENCODER))
    assert found == config
    np.testing.assert_array_equal(weights["blocks.1.attn.qkv.weight"], theirs["blocks.1.attn.qkv.weight"])
    head = weights["head.weight"]
    assert 0 < np.abs(head).max() < 1e-4  # normal, of standard deviation 2e-5
    assert not weights["head.bias"].any()
    # Images of another size: the position table is resized, bicubic.
    larger = tiny_tuning(FineTuning, "input_size=24").config_of(2)
    _, resized = classifier_weights(pretrained, MODEL, larger, {"pooling": "gap"}, 3)
    np.testing.assert_array_equal(resized["pos_embed"], resize_positions(theirs["pos_embed"], (4, 4), (6, 6)))
    # A classifier's file is gone on from with its head; another number of classes has a fresh one.
    file = tmp_path / "classifier.safetensors"
    own = initial_weights(config, 5)
    own["head.weight"] = own["head.weight"] * 1000
    write_checkpoint("torch", file, config, own, source={"name": "test", "framework": "numpy"})
    _, kept = classifier_weights(file, MODEL, config, {"pooling": "gap"}, 3)
    np.testing.assert_array_equal(kept["head.weight"], own["head.weight"])
    _, other = classifier_weights(file, MODEL, tiny_tuning(FineTuning).config_of(7), {"pooling": "gap"}, 3)
    assert other["head.weight"].shape == (7, 16)
    assert np.abs(other["head.weight"]).max() < 1e-4


def test_libais_two_ways_to_begin(pretrained: Path, tmp_path: Path) -> None:
    """weight_style=oneflow: the encoder's norm goes into the norm behind the patches, and the head's deviation is .02."""
    config = tiny_tuning(FineTuning).config_of(2)
    theirs = open_checkpoint(pretrained / "checkpoints/2/weights.safetensors").weights(model_config(AUTOENCODER))
    assert np.abs(theirs["norm.weight"] - 1).max() > 1e-4
    given = (pretrained, MODEL, config, {"pooling": "gap"}, 3)
    _, usual = classifier_weights(*given)
    _, weights = classifier_weights(*given, head_std=0.02, norm_from_encoder=True)
    for name in ("weight", "bias"):
        np.testing.assert_array_equal(weights[f"fc_norm.{name}"], theirs[f"norm.{name}"])
    np.testing.assert_allclose(weights["head.weight"], usual["head.weight"] * 1000, rtol=1e-6)
    assert set(usual["fc_norm.weight"]) == {np.float32(1)}
    same = [name for name in usual if name not in ("head.weight", "fc_norm.weight", "fc_norm.bias")]
    assert all(np.array_equal(weights[name], usual[name]) for name in same)
    with pytest.raises(Problem, match="norm_from_encoder is true and its pooling cls"):
        tiny_tuning(FineTuning, "pooling=cls", "norm_from_encoder=true")
    headless = tmp_path / "tuned.safetensors"
    write_checkpoint(
        "torch", headless, config, initial_weights(config, 5), source={"name": "test", "framework": "numpy"}
    )
    _, kept = classifier_weights(headless, *given[1:], norm_from_encoder=True)  # it has the norm that the head needs
    np.testing.assert_array_equal(kept["fc_norm.weight"], np.ones(16, np.float32))


def test_the_settings_of_the_beginning_reach_it(data: Path, pretrained: Path, tmp_path: Path) -> None:
    recipe = tiny_tuning(FineTuning, "steps=1", "warmup_epochs=1", "head_std=0.5", "norm_from_encoder=true")
    finetune("numpy", data, tmp_path / "run", pretrained, recipe)  # the first step has a rate of 0
    theirs = open_checkpoint(pretrained / "checkpoints/2/weights.safetensors").weights(model_config(AUTOENCODER))
    ours = weights_of(tmp_path / "run/checkpoints/1/weights.safetensors")
    np.testing.assert_array_equal(ours["fc_norm.weight"], theirs["norm.weight"])
    assert np.std(ours["head.weight"]) > 0.2
    finetune("numpy", data, tmp_path / "scratch", None, tiny_tuning(FineTuning, "steps=1", "head_std=0.5"))
    assert np.std(weights_of(tmp_path / "scratch/checkpoints/1/weights.safetensors")["head.weight"]) > 0.2


@pytest.mark.parametrize("at", [1, 6])
def test_stopped_and_gone_on_with(whole: Path, data: Path, pretrained: Path, tmp_path: Path, at: int) -> None:
    out = tmp_path / "run"
    finetune("numpy", data, out, pretrained, tiny_tuning(FineTuning, f"steps={at}"))
    run_request(resumed(out, ["steps=null", "workers=2"], kind=FineTuning))
    assert_same_tuning(whole, out)


def assert_same_tuning(one: Path, other: Path) -> None:
    assert_same_run(one, other)
    measured = [
        [{name: value for name, value in line.items() if name.startswith("test")} for line in lines(path, "log.txt")]
        for path in (one, other)
    ]
    assert measured[0] == measured[1]


def test_killed_in_the_middle_of_a_step_and_gone_on_with(
    whole: Path, data: Path, pretrained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def until_killed() -> None:
        from polymae.backends.numpy.training import Training

        right, calls = Training.gradients, []

        def deadly(self: Training, inputs: object, factor: float) -> object:
            calls.append(1)
            if len(calls) == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            return right(self, inputs, factor)  # type: ignore[arg-type]

        Training.gradients = deadly  # type: ignore[method-assign, assignment]
        finetune("numpy", data, out, pretrained, tiny_tuning(FineTuning, "save_every_steps=3"))

    assert "SIGKILL" in in_child(until_killed)
    assert checkpoints.steps_of(out)[-1] == 6
    run_request(resumed(out, kind=FineTuning))
    assert_same_tuning(whole, out)


def test_the_best_is_kept_and_linked(data: Path, pretrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("save_every_epochs=1", "keep_best=true", "keep_last=1", "epochs=6", "lr=0.05")
    finetune("numpy", data, out, pretrained, tiny_tuning(FineTuning, *settings))
    scores = {
        4 * (i + 1): max(line["test_acc1"], line["test_ema_acc1"]) for i, line in enumerate(lines(out, "log.txt"))
    }
    best = max(scores, key=lambda step: (scores[step], -step))
    assert checkpoints.steps_of(out) == sorted({best, 24})
    assert str((out / "checkpoints/best").readlink()) == str(best)
    assert checkpoints.facts_of(out / "checkpoints/best").score == scores[best]


def test_few_labels_of_each_class(data: Path, pretrained: Path, tmp_path: Path) -> None:
    from polymae.training.classification import training_images

    few = training_images(data, tiny_tuning(FineTuning, "labels_per_class=3"))
    assert [few.label(i) for i in range(len(few))] == [0] * 3 + [1] * 3
    more = training_images(data, tiny_tuning(FineTuning, "labels_per_class=5", "seed=9"))
    assert {few.name(i) for i in range(6)} < {more.name(i) for i in range(10)}
    other = training_images(data, tiny_tuning(FineTuning, "labels_per_class=3", "labels_seed=1"))
    assert {few.name(i) for i in range(6)} != {other.name(i) for i in range(6)}
    assert few.fingerprint() != other.fingerprint()
    out = tmp_path / "run"
    outcome = finetune("numpy", data, out, pretrained, tiny_tuning(FineTuning, "labels_per_class=5"))
    assert outcome.step == 3  # an epoch is one batch
    with pytest.raises(Problem, match="labels_per_class is 21, and .* has 20 images of class class0"):
        training_images(data, tiny_tuning(FineTuning, "labels_per_class=21"))


def one_class(folder: Path) -> Path:
    np.savez(folder / "one.npz", imgs=np.zeros((12, 16, 16, 3), np.uint8), labels=np.full(12, 2))
    return folder / "one.npz"


def digits(folder: Path) -> Path:
    np.savez(folder / "digits.npz", imgs=np.zeros((12, 16, 16, 3), np.uint8), labels=np.arange(12) % 2)
    return folder / "digits.npz"


WRONG: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "more classes": (
        lambda data, out: finetune("numpy", data, out, recipe=tiny_tuning(FineTuning, "num_classes=1")),
        r"has 2 classes, and the head has 1 \(num_classes\): set num_classes=2",
    ),
    "one class": (
        lambda data, out: finetune("numpy", one_class(out.parent), out, recipe=tiny_tuning(FineTuning)),
        "All 12 images of .* are of one class",
    ),
    "odd batch": (lambda data, out: tiny_tuning(FineTuning, "batch_size=9"), "batch_size is 9, an odd number"),
    "nothing to measure on": (
        lambda data, out: finetune("numpy", data / "train", out, recipe=tiny_tuning(FineTuning)),
        "no images to measure on: .* Give --eval-data",
    ),
    "the images that are trained on": (
        lambda data, out: finetune("numpy", digits(out.parent), out, recipe=tiny_tuning(FineTuning)),
        "holds the images that are trained on, and none to measure on. Give --eval-data",
    ),
    "other classes in val": (
        lambda data, out: finetune("numpy", data, out, recipe=tiny_tuning(FineTuning), eval_data=renamed(data, out)),
        "Class 1 is class1 in .* and other in .*: their labels mean different classes",
    ),
    "an autoencoder's name": (
        lambda data, out: tiny_tuning(FineTuning, "model=mae_vit_base_patch16").config_of(2),
        "is mae_vit_base_patch16, an autoencoder; finetune takes the classifier on its encoder: vit_base_patch16",
    ),
}  # fmt: skip


def renamed(data: Path, out: Path) -> Path:
    import shutil

    folder = out.parent / "renamed"
    shutil.copytree(data / "val", folder)
    (folder / "class1").rename(folder / "other")
    return folder


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_refused_with_its_remedy(case: str, data: Path, tmp_path: Path) -> None:
    work, expected = WRONG[case]
    with pytest.raises(Problem, match=expected):
        work(data, tmp_path / "run")
    assert not checkpoints.steps_of(tmp_path / "run")


def test_weights_and_runs_of_another_task_are_refused(
    whole: Path, pretrained: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        Problem, match="is a run of finetune, and pretrain was asked for. To go on with it: polymae finetune"
    ):
        resumed(whole)
    with pytest.raises(Problem, match="is a run of pretrain, and finetune was asked for"):
        resumed(pretrained, kind=FineTuning)
    recipe = read_recipe(None, (*PRETRAINING, f"model={AUTOENCODER}"))
    with pytest.raises(Problem, match="of another kind: .* an autoencoder is asked for"):
        pretrain("numpy", data, tmp_path / "x", recipe, weights=whole)
    file = pretrained / "checkpoints/last/weights.safetensors"
    with pytest.raises(Problem, match="is one file; finetune goes on from a run of its own"):
        resumed(file, framework="numpy", data=data, out=tmp_path / "y", kind=FineTuning)


def test_what_differs_is_refused_and_listed(whole: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        run_request(resumed(whole, ["mixup=0.1", "epochs=4"], kind=FineTuning, eval_data=data / "train"))
    for said in (
        "mixing.mixup was 0.8 and is 0.1",
        "schedule.epochs was 3 and is 4",
        "the images that are measured on were",
    ):
        assert said in str(caught.value)


# In a process of each framework's own.


def test_every_framework_tunes_alike_and_goes_on(
    framework: str, data: Path, pretrained: Path, whole: Path, tmp_path: Path
) -> None:
    """Losses are those of NumPy within roundoff; stopped and gone on with, the run is the uninterrupted one bit for bit."""
    require(framework)
    out, stopped = tmp_path / "whole", tmp_path / "stopped"
    begun = [command(FineTuning, framework, data, each, "--weights", str(pretrained)) for each in (out, stopped)]
    several(framework, begun[0], [*begun[1], "--set", "steps=5"])
    for mine, theirs in zip(lines(out), lines(whole)):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["lr"] == theirs["lr"]
    mine, theirs = (lines(each, "log.txt")[-1] for each in (out, whole))
    for name in ("test_loss", "test_ema_loss"):
        assert mine[name] == pytest.approx(theirs[name], rel=1e-4)
    several(framework, [*begun[1][:4], "--threads", "1", "--resume", str(stopped), "--set", "steps=null"])
    assert_same_tuning(out, stopped)


def test_a_signal_saves_and_leaves(data: Path, pretrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(FineTuning, "numpy", data, out, "--weights", str(pretrained), "--set", "epochs=100000"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert comes(lambda: (out / "steps.jsonl").is_file() and (out / "steps.jsonl").read_text().count("\n") >= 3)
    process.send_signal(signal.SIGTERM)
    said, _ = heard(process)
    assert process.returncode == 75
    assert f"To go on: polymae finetune --resume {out}" in said
    done = checkpoints.steps_of(out)[-1]
    assert 3 <= done == lines(out)[-1]["step"]
