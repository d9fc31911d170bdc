"""Training checkpoints in the official layout, written by torch.save as the official script does, are gone on from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import run
from tiny_run import MODEL, command, lines, tiny_data, tiny_recipe

from polymae.backends.optimization import decay_of
from polymae.backends.runtime import load_backend
from polymae.convert.tensors import CheckpointProblem
from polymae.convert.training_state import read_training_checkpoint
from polymae.data.batches import Batches
from polymae.data.datasets import open_dataset
from polymae.files.errors import Problem
from polymae.training.pretrain import Request, resumed, run_request
from polymae.training.steps import take

EPOCHS = 2  # that the official script has finished


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def official(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkpoint-1.pth of eight steps by torch.optim.AdamW itself, with the groups of timm's add_weight_decay."""
    import torch

    recipe = tiny_recipe()
    runtime = load_backend("torch")
    model = runtime.build(recipe.config)
    named = dict(model.named_parameters())
    trained = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    spared = [p for name, p in trained.items() if p.ndim == 1 or name.endswith(".bias")]
    rest = [p for p in trained.values() if not any(p is each for each in spared)]
    optimizer = torch.optim.AdamW(
        [{"params": spared, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.05}], lr=1e-3, betas=(0.9, 0.95)
    )
    batches = Batches(open_dataset(data), recipe.augmentation, 10, 0, recipe.config.num_patches)
    schedule = recipe.schedule_of(4)
    for step in range(4 * EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        batch = {name: torch.from_numpy(array) for name, array in batches.batch(step).items()}
        loss = model(batch["imgs"], batch["noise"], 0.75)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    args = argparse.Namespace(
        model=MODEL, epochs=3, batch_size=5, accum_iter=2, world_size=1, lr=1e-3, blr=1e-3, weight_decay=0.05,
        warmup_epochs=1, min_lr=0.0, mask_ratio=0.75, norm_pix_loss=False, seed=0, input_size=224, data_path="/data",
    )  # fmt: skip
    scaler = {
        "scale": 65536.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 2000,
        "_growth_tracker": 7,
    }
    path = tmp_path_factory.mktemp("official") / "checkpoint-1.pth"
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": EPOCHS - 1,
        "scaler": scaler,
        "args": args,
    }
    torch.save(saved, path)
    return path


def test_moments_come_back_by_name(official: Path, data: Path) -> None:
    import torch

    saved = torch.load(official, weights_only=False)
    found = read_training_checkpoint(official, tiny_recipe().config)
    assert (found.epoch, found.moments.step, found.scaler["_growth_tracker"]) == (1, 8, 7)
    state = saved["optimizer"]["state"]
    shapes = {name: tuple(array.shape) for name, array in found.moments.m.items()}
    assert shapes == {name: tuple(saved["model"][name].shape) for name in shapes}
    mine = sorted(float(np.abs(array).sum()) for array in found.moments.v.values())
    assert mine == pytest.approx(sorted(float(entry["exp_avg_sq"].abs().sum()) for entry in state.values()))
    # By name: another run of the same steps in our own loop has the same moments.
    recipe = tiny_recipe()
    runtime = load_backend("torch")
    model = runtime.build(recipe.config)
    training = runtime.training(model, runtime.optimizer(model, recipe.settings))
    batches = Batches(open_dataset(data), recipe.augmentation, 10, 0, recipe.config.num_patches)
    for step in range(8):
        take(training, batches.batch(step), recipe.schedule_of(4).rate(step))
    for kind in "mv":
        ours = getattr(training.optimizer.state(), kind)
        for name, array in getattr(found.moments, kind).items():
            # The bias of the keys has a gradient of 0 and moments of roundoff.
            np.testing.assert_allclose(
                array, ours[name], rtol=1e-3, atol=1e-5 * np.abs(ours[name]).max() + 1e-9, err_msg=name
            )
    assert decay_of(recipe.config, recipe.settings).keys() == ours.keys()


def test_every_framework_goes_on_from_it(framework: str, official: Path, data: Path, tmp_path: Path) -> None:
    """The third epoch is that of a run which was ours from the start."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    run_request(Request("numpy", data, whole, tiny_recipe()))
    run([*command(framework, data, out)[:10], "--resume", str(official)], check=True)
    steps = lines(out)
    assert [line["step"] for line in steps] == [9, 10, 11, 12]
    for mine, theirs in zip(steps, lines(whole)[8:]):
        assert mine["lr"] == pytest.approx(theirs["lr"])
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_its_recipe_is_that_of_its_options(official: Path, data: Path, tmp_path: Path) -> None:
    request = resumed(official, framework="numpy", data=data, out=tmp_path / "run")
    recipe = request.recipe
    assert (recipe.batch.batch_size, recipe.batch.accumulate, recipe.lr) == (10, 2, 1e-3)
    assert recipe.config == tiny_recipe().config
    with pytest.raises(Problem, match="also give --data --out"):
        resumed(official, framework="numpy")


def test_what_cannot_be_gone_on_from_is_refused(official: Path, data: Path, tmp_path: Path) -> None:
    import torch

    saved: dict[str, Any] = torch.load(official, weights_only=False)

    def changed(name: str, **changes: Any) -> Path:
        path = tmp_path / f"{name}.pth"
        torch.save({key: value for key, value in (saved | changes).items() if value is not None}, path)
        return path

    optimizer = saved["optimizer"]
    wrong = {k: dict(v) for k, v in optimizer["state"].items()}
    wrong[0]["exp_avg"] = torch.zeros(3)
    uneven = {k: dict(v) for k, v in optimizer["state"].items()}
    uneven[0]["step"] = torch.tensor(3.0)
    groups = optimizer["param_groups"]
    cases = {
        changed("weights", optimizer=None): "is no training checkpoint in the official layout",
        changed("fresh", optimizer={"state": {}, "param_groups": groups}): "at least one step taken",
        changed("shape", optimizer={"state": wrong, "param_groups": groups}): r"is float32 \[3\]",
        changed("uneven", optimizer={"state": uneven, "param_groups": groups}): r"have taken \[3, 8\] steps",
        changed("groups", optimizer={"state": optimizer["state"], "param_groups": groups[::-1]}): "has groups of",
    }
    for path, expected in cases.items():
        with pytest.raises(CheckpointProblem, match=expected) as caught:
            read_training_checkpoint(path, tiny_recipe().config)
        assert "--weights" in str(caught.value)
    with pytest.raises(Problem, match="does not say what it was trained with"):
        resumed(changed("silent", args=None), framework="numpy", data=data, out=tmp_path / "run")
