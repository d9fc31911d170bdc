"""A classifier with drop path and soft targets, as in fine-tuning: recorded, compared, and refused where they do not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import refused

from polymae.backends.presets import model_config
from polymae.cli import main
from polymae.compare.levels import expected
from polymae.compare.levels.choices import drop_path_factors, soft_targets
from polymae.compare.levels.curve import training_batch, training_digest
from polymae.compare.levels.small import training_config
from polymae.compare.record.inputs import check_inputs, random_inputs
from polymae.compare.trace import Trace
from polymae.files.errors import Problem

MODEL = "vit_test_patch8"
CONFIG = model_config(MODEL)


def given(**other: Any) -> dict[str, Any]:
    return random_inputs(CONFIG, 4, drop_path=0.5, soft_targets=True) | other


def test_rates_rise_with_depth() -> None:
    factors = drop_path_factors(np.random.default_rng(0), 20_000, 5, 0.4)
    assert (factors.shape, factors.dtype) == ((20_000, 5, 2), np.float32)
    for i, keep in enumerate((1, 0.9, 0.8, 0.7, 0.6)):
        assert set(np.unique(factors[:, i])) <= {np.float32(0), np.float32(1 / keep)}
        for branch in (0, 1):
            assert abs((factors[:, i, branch] > 0).mean() - keep) < 0.02
            assert abs(factors[:, i, branch].mean() - 1) < 0.03  # what is expected of a branch stays as it was
    both = (factors[:, 4] > 0).all(axis=1).mean()
    assert abs(both - 0.36) < 0.02, "the draws of attention and MLP are two"


def test_soft_targets_are_of_two_labels() -> None:
    labels = np.array([3, 3, 1, 7])
    targets = soft_targets(np.random.default_rng(0), labels, 10)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    for own, other, target in zip(labels, labels[::-1], targets):
        rest = np.delete(target, [own, other])
        np.testing.assert_allclose(rest, 0.01, rtol=1e-6)
        assert target[own] + target[other] > (0.9 if own != other else 1.8)


def test_plain_inputs_are_as_they_were() -> None:
    plain, tuned = random_inputs(CONFIG, 4), given()
    assert list(plain) == ["imgs", "labels"]
    assert list(tuned) == ["imgs", "targets", "drop_path"]
    assert plain["imgs"].tobytes() == tuned["imgs"].tobytes()
    assert list(random_inputs(CONFIG, 4, drop_path=0.1)) == ["imgs", "labels", "drop_path"]
    assert random_inputs(CONFIG, 4, drop_path=0.1)["labels"].tobytes() == plain["labels"].tobytes()
    small = training_config(CONFIG)
    assert list(training_batch(small, 3)) == ["imgs", "labels"]
    assert list(training_batch(small, 3, tuned)) == ["imgs", "targets", "drop_path"]
    assert training_digest(CONFIG) == training_digest(CONFIG, ("imgs", "labels")) != training_digest(CONFIG, tuned)


def off(array: Any, *place: int, by: float) -> Any:
    other = array.copy()
    other[place] += by
    return other


TUNED = given()
FACTORS, TARGETS = TUNED["drop_path"], TUNED["targets"]
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "depth": ({"drop_path": FACTORS[:, :1]}, f"it must be (4, {CONFIG.depth}, 2)"),
    "turned": ({"drop_path": FACTORS.transpose(1, 2, 0)}, f"it must be (4, {CONFIG.depth}, 2)"),
    "not divided by keep": ({"drop_path": 0.9 * (FACTORS > 0)}, "drop_path of block 0 in it holds 0.9"),
    "negative": ({"drop_path": -FACTORS}, "drop_path of block 0 in it holds -1"),
    "two values": (
        {"drop_path": off(np.ones_like(FACTORS), 1, 1, 0, by=0.5)},
        "drop_path of block 1 in it holds 1, 1.5",
    ),
    "nan": ({"drop_path": FACTORS * np.nan}, "drop_path in it holds"),
    "text": ({"drop_path": FACTORS.astype(str)}, "drop_path in it is of type"),
    "classes": ({"targets": TARGETS[:, :9]}, "it must be (4, 10)"),
    "sum": ({"targets": off(TARGETS, 2, 5, by=0.01)}, "targets of image 2 in it sum to 1.01"),
    "below 0": ({"targets": off(off(TARGETS, 0, 0, by=-1), 0, 1, by=1)}, "targets in it go down to -0."),
    "logits": ({"targets": TARGETS * np.inf}, "targets in it holds"),
    "both": ({"labels": np.arange(4)}, "holds labels and soft targets"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_does_not_fit_is_told(name: str) -> None:
    assert check_inputs(given(), CONFIG, "it").keys() == given().keys()
    other, message = WRONG[name]
    with pytest.raises(Problem) as told:
        check_inputs(given(**other), CONFIG, "it")
    assert message in str(told.value)


def test_an_autoencoder_has_neither(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--drop-path", "0.1"], ["--soft-targets"]):
        said = refused(capsys, "compare", "-m", "mae_vit_test_patch8", *words, "--out", tmp_path / "out")
        assert "this model is an autoencoder" in said
    np.savez(tmp_path / "in.npz", **given())
    said = refused(capsys, "compare", "-m", MODEL, "--drop-path", "0.1", "--inputs", tmp_path / "in.npz")
    assert "leave them out" in said
    with pytest.raises(SystemExit):
        main(["compare", "-m", MODEL, "--drop-path", "1"])
    assert "from 0 to below 1" in capsys.readouterr().err


def test_a_comparison_of_all_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The oracle and its float32 twin of the same code: no error, and every tensor there, from the inputs to the curve."""
    words = ["--frameworks", "numpy", "-m", MODEL, "--drop-path", "0.5", "--soft-targets", "--batch", "4"]
    assert main(["compare", *words, "--keep", str(tmp_path / "kept"), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    about = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "drop path 0.5, soft targets" in json.dumps(about)
    trace = Trace(tmp_path / "kept" / "oracle.npz")
    assert list(trace.manifest["inputs"]) == ["imgs", "targets", "drop_path"]
    names = [tap.name for _, tap in expected(CONFIG, trace.levels, trace.manifest["inputs"])]
    assert sorted(n for n in names if not n.startswith("weights/")) == sorted(trace.names)
    assert {"input/targets", "input/drop_path"} < set(names)
    assert "input/labels" not in names
    held = trace["input/drop_path"]
    for i in range(CONFIG.depth):
        for place, tap, before, branch in (
            (0, f"blocks.{i}.residual", f"blocks.{i - 1}" if i else "tokens", f"blocks.{i}.attn.proj"),
            (1, f"blocks.{i}", f"blocks.{i}.residual", f"blocks.{i}.mlp.fc2"),
        ):
            factors = held[:, i, place, None, None].astype(np.float64)
            np.testing.assert_allclose(trace[tap], trace[before] + factors * trace[branch], rtol=1e-9, atol=1e-9)
    logits = trace["logits"]
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = -np.mean([(t * x).sum() for t, x in zip(trace["input/targets"].astype(np.float64), logs)])
    assert abs(trace["loss"] - loss) < 1e-12
    assert (held == 0).any()


def test_traces_of_other_inputs_are_not_comparable(tmp_path: Path) -> None:
    paths = []
    for name, inputs in (("plain", random_inputs(CONFIG, 4)), ("tuned", given())):
        np.savez(tmp_path / "in.npz", **inputs)
        paths.append(str(tmp_path / f"{name}.npz"))
        dtype = "float64" if name == "plain" else "float32"
        words = ["--framework", "numpy", "-m", MODEL, "--inputs", str(tmp_path / "in.npz"), "--dtype", dtype]
        assert main(["record", *words, "--out", paths[-1]]) == 0
    assert main(["compare", "--traces", *paths, "--out", str(tmp_path / "out")]) == 2
