"""The linear probe in every framework: only the head moves, behind a batch norm; stopped and gone on with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_run import STEPS, assert_same_run, lines, several
from tiny_tuning import command, labelled, pretrained_for_two_steps, tiny_tuning
from untested import require

from polymae.backends.initial import initial_weights
from polymae.convert.checkpoint import open_checkpoint
from polymae.convert.formats import safetensors
from polymae.files.errors import Problem
from polymae.training.classifying import Probe
from polymae.training.finetune import linprobe, resumed, run_request


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained_for_two_steps(data, tmp_path_factory.mktemp("pretrained") / "run")


@pytest.fixture(scope="module")
def whole(data: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    linprobe("numpy", data, out, pretrained, tiny_tuning(Probe))
    return out


def test_only_the_head_and_its_statistics_change(whole: Path, pretrained: Path) -> None:
    assert [line["step"] for line in lines(whole)] == list(range(1, STEPS + 1))
    log = lines(whole, "log.txt")
    assert {"test_acc1", "test_acc5", "test_loss", "n_parameters"} <= set(log[-1])
    assert log[-1]["n_parameters"] == 2 * 16 + 2
    ours = open_checkpoint(whole / "checkpoints/last/weights.safetensors").weights(tiny_tuning(Probe).config_of(2))
    theirs = open_checkpoint(pretrained / "checkpoints/last/weights.safetensors").tensors
    shared = [name for name in ours if name in theirs]
    assert len(shared) == 2 * 12 + 6
    for name in shared:
        np.testing.assert_array_equal(ours[name], theirs[name].load())
    fresh = initial_weights(tiny_tuning(Probe).config_of(2), 0)["head.weight"]
    assert (
        np.abs(ours["head.weight"] - fresh).max() > 1e-5
    )  # LARS: a thousandth of the weights' norm at most, times the rate
    statistics = [name for name in ours if name.startswith("head_norm.")]
    assert len(statistics) == 2
    assert all(len(np.unique(ours[name])) > 2 for name in statistics)
    moments = safetensors.read(whole / "checkpoints/last/optimizer.safetensors").tensors
    assert set(moments) == {"m/head.weight", "m/head.bias"}  # LARS has one moment


def test_the_head_begins_as_the_official_one(data: Path, pretrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    linprobe("numpy", data, out, pretrained, tiny_tuning(Probe, "steps=1"))  # whose rate is 0
    config = tiny_tuning(Probe).config_of(2)
    head = open_checkpoint(out / "checkpoints/1/weights.safetensors").weights(config)["head.weight"]
    assert 0.005 < head.std() < 0.015  # normal, of standard deviation 0.01


@pytest.mark.parametrize("at", [1, 6])
def test_stopped_and_gone_on_with(whole: Path, data: Path, pretrained: Path, tmp_path: Path, at: int) -> None:
    out = tmp_path / "run"
    linprobe("numpy", data, out, pretrained, tiny_tuning(Probe, f"steps={at}"))
    run_request(resumed(out, ["steps=null", "workers=2"], kind=Probe))
    assert_same_run(whole, out)


def test_what_it_refuses(whole: Path, data: Path, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="--weights is missing: a probe measures a pre-trained encoder"):
        linprobe("numpy", data, tmp_path / "a", recipe=tiny_tuning(Probe))
    with pytest.raises(Problem, match="finetune-base is a recipe of finetune, and linprobe was asked for"):
        linprobe("numpy", data, tmp_path / "b", pretrained, "finetune-base")
    # Parts of a batch have statistics of their own, so that their number is no free setting here.
    with pytest.raises(Problem, match="batch.accumulate was 1 and is 2"):
        run_request(resumed(whole, ["accumulate=2"], kind=Probe))


def test_every_framework_probes_alike_and_goes_on(
    framework: str, data: Path, pretrained: Path, whole: Path, tmp_path: Path
) -> None:
    """Losses are those of NumPy within roundoff; stopped and gone on with, the run is the uninterrupted one bit for bit."""
    require(framework)
    out, stopped = tmp_path / "whole", tmp_path / "stopped"
    begun = [command(Probe, framework, data, each, "--weights", str(pretrained)) for each in (out, stopped)]
    several(framework, begun[0], [*begun[1], "--set", "steps=5"])
    for mine, theirs in zip(lines(out), lines(whole)):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    several(framework, [*begun[1][:4], "--threads", "1", "--resume", str(stopped), "--set", "steps=null"])
    assert_same_run(out, stopped)
