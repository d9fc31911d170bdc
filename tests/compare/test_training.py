"""The training curve: the small model, its batches of real photographs, and how a curve is judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import run_in
from PIL import Image
from untested import require

from polymae.backends.config import MAEConfig, ViTConfig
from polymae.backends.numpy.sums import summed_in_chains
from polymae.backends.optimization import Settings, decay_of
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.compare.levels import small
from polymae.compare.levels.curve import taps, training_batch, training_curve, training_digest
from polymae.compare.levels.small import training_config
from polymae.compare.limits.curves import judge_curve
from polymae.compare.limits.findings import Finding
from polymae.compare.limits.metrics import U
from polymae.data.images import MEAN, STD, demo_photographs

CONFIG = model_config("mae_vit_test_patch8")
LOSS = list(taps(CONFIG))[1]
ORACLE = np.linspace(2.0, 1.0, 10)
TWINS = [ORACLE * (1 + 3 * U), ORACLE * (1 - 2 * U)]


def judged(actual: Any, oracle: Any = ORACLE, twins: Any = TWINS) -> Finding:
    return judge_curve(LOSS, np.asarray(actual), np.asarray(oracle), twins)


def test_a_curve_within_the_envelope_is_roundoff() -> None:
    assert judged(ORACLE).verdict == "exact"
    finding = judged(ORACLE * (1 + 15 * U))
    assert finding.verdict == "roundoff"
    assert (finding.error, finding.limit, finding.floor) == pytest.approx((15, 16, 3), rel=1e-6)


def test_a_fault_names_the_first_step_over_its_limit() -> None:
    losses = ORACLE.copy()
    losses[3] *= 1 + 20 * U
    losses[6] *= 1 + 90 * U
    finding = judged(losses)
    assert (finding.verdict, finding.level) == ("fault", "curve")
    assert finding.error == pytest.approx(90, rel=1e-6)
    assert "first over its limit at step 4 of 10" in finding.reason
    assert "furthest at step 7" in finding.reason


def test_the_envelope_remembers() -> None:
    """A twin that was far off once may be so later; before that, nothing is allowed for it."""
    twin = ORACLE.copy()
    twin[4] *= 1 + 100 * U
    for step, verdict in ((3, "fault"), (4, "roundoff"), (9, "roundoff")):
        losses = ORACLE.copy()
        losses[step] *= 1 + 100 * U
        assert judged(losses, twins=[twin]).verdict == verdict


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_a_fault(wrong: float) -> None:
    losses = ORACLE.copy()
    losses[5] = wrong
    finding = judged(losses)
    assert finding.verdict == "fault"
    assert finding.error == np.inf
    assert "step 6" in finding.reason


def test_judging_ends_where_training_is_chaotic() -> None:
    twin = ORACLE.copy()
    twin[6:] *= 1.01
    losses = ORACLE.copy()
    losses[7] *= 1.5
    finding = judged(losses, twins=[twin])
    assert finding.verdict == "exact"  # of what is judged
    assert "from step 7 on float32 says nothing" in finding.reason
    losses[5] *= 1.5
    assert judged(losses, twins=[twin]).verdict == "fault"
    assert judged(ORACLE, twins=[ORACLE * 1.01]).verdict == "not comparable"
    assert judged(ORACLE, oracle=ORACLE * np.nan).verdict == "not comparable"


def test_other_length_and_no_twins() -> None:
    assert judged(ORACLE[:5]).verdict == "fault"
    finding = judged(ORACLE * (1 + 30 * U), twins=[])
    assert finding.verdict == "roundoff"
    assert "a priori" in finding.reason
    assert judged(ORACLE * (1 + 40 * U), twins=[]).verdict == "fault"


def test_the_small_model_is_of_the_same_family() -> None:
    config = model_config("flyegle_mae_vit_base_patch16", norm_pix_loss=True, in_chans=4)
    small = training_config(config)
    assert isinstance(small, MAEConfig)
    assert (small.head, small.masking, small.loss_over, small.positions) == ("conv", "raster", "all", "1d")
    assert small.norm_pix_loss
    assert (small.norm_eps, small.embed_dim, small.in_chans) == (1e-5, 48, 3)
    classifier = training_config(model_config("libai_vit_huge_patch14", pooling="cls", head_norm=True))
    assert isinstance(classifier, ViTConfig)
    assert (classifier.pooling, classifier.head_norm, classifier.train_positions) == ("cls", True, True)
    assert training_config(model_config("mae_vit_base_patch16")) == training_config(CONFIG)


def test_batches_are_crops_of_the_photographs() -> None:
    batch = training_batch(training_config(CONFIG), 3)
    assert batch["imgs"].shape == (8, 3, 32, 32)
    assert batch["imgs"].dtype == batch["noise"].dtype == np.float32
    pixels = np.rint((batch["imgs"].transpose(0, 2, 3, 1) * np.array(STD) + np.array(MEAN)) * 255).astype(np.uint8)
    photographs = [np.asarray(Image.open(path).convert("RGB")) for path in demo_photographs()]
    for crop in pixels:
        corners = [np.argwhere((p[:-31, :-31] == crop[0, 0]).all(axis=-1)) for p in photographs]
        assert any(
            np.array_equal(p[top : top + 32, left : left + 32], crop)
            for p, found in zip(photographs, corners)
            for top, left in found
        )
    again, other = training_batch(training_config(CONFIG), 3), training_batch(training_config(CONFIG), 4)
    assert all(np.array_equal(batch[name], again[name]) for name in batch)
    assert not np.array_equal(batch["imgs"], other["imgs"])
    labels = training_batch(training_config(model_config("vit_test_patch8")), 0)["labels"]
    assert len(set(labels)) > 1
    assert labels.max() < 10


def test_the_digest_knows_what_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = training_digest(CONFIG)
    assert digest == training_digest(model_config("mae_vit_base_patch16"))
    assert digest != training_digest(model_config("vit_test_patch8"))
    monkeypatch.setattr(small, "SEED", 1)
    assert digest != training_digest(CONFIG)


def curve(framework: str, dtype: str = "float32", **fields: Any) -> dict[str, np.ndarray]:
    return dict(training_curve(load_backend(framework), replace(CONFIG, **fields), "cpu", dtype))


def test_a_hundred_steps_and_what_a_fault_does_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle, twins = curve("numpy", "float64"), []
    for seed in (1, 2):
        with summed_in_chains(seed):
            twins.append(curve("numpy")["curve/loss"])
    assert list(oracle) == [tap.name for tap in taps(CONFIG)]
    losses = oracle["curve/loss"]
    assert losses.shape == oracle["curve/lr"].shape == (100,)
    assert losses[-10:].mean() < 0.7 * losses[:10].mean()  # it learns
    assert judged(curve("torch")["curve/loss"], losses, twins).verdict == "roundoff"
    assert judged(curve("numpy", norm_eps=1e-5)["curve/loss"], losses, twins).ratio > 2
    monkeypatch.setattr(small, "SETTINGS", replace(small.SETTINGS, betas=(0.9, 0.999)))
    finding = judged(curve("numpy")["curve/loss"], losses, twins)
    assert finding.ratio > 100
    assert "first over its limit at step 3 " in finding.reason  # the second update is the first that it changes


SCRIPT = """
import numpy as np
from polymae.backends.optimization import Settings, decay_of
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.compare.levels import small
from polymae.compare.levels.curve import training_curve
small.STEPS = 12
runtime = load_backend("{framework}")
runtime.setup(threads=1)
for model in {models}:
    found = dict(training_curve(runtime, model_config(model), "cpu", "float32"))
    np.savez("{folder}/" + model + ".npz", **found)
"""
MODELS = ["mae_vit_test_patch8", "flyegle_mae_vit_test_patch8", "vit_test_patch8"]


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """By model: what the oracle and a twin record of twelve steps."""
    runtime, found = load_backend("numpy"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "STEPS", 12)
        for model in MODELS:
            oracle = dict(training_curve(runtime, model_config(model), "cpu", "float64"))
            with summed_in_chains(1):
                found[model] = oracle, dict(training_curve(runtime, model_config(model), "cpu", "float32"))
    return found


def test_every_framework_trains_alike(
    framework: str, tmp_path: Path, trained: dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]
) -> None:
    run_in(framework, SCRIPT.format(framework=framework, models=MODELS, folder=tmp_path))
    for model, (oracle, twin) in trained.items():
        with np.load(tmp_path / f"{model}.npz") as found:
            assert np.array_equal(found["curve/lr"], oracle["curve/lr"])
            finding = judged(found["curve/loss"], oracle["curve/loss"], [twin["curve/loss"]])
        assert finding.verdict == "roundoff", (model, finding)


def test_decay_groups_are_timms() -> None:
    """timm's own function on PyTorch's model, not on a rule of ours."""
    require("torch")
    from timm import optim

    for config in (CONFIG, model_config("vit_test_patch8")):
        model = load_backend("torch").build(config)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = optim.param_groups_weight_decay(model, 0.05)
        theirs = {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}
        assert decay_of(config, Settings(weight_decay=0.05)) == theirs
