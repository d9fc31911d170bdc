"""A step of training in every framework: compiled where that pays, tap-free, whole or in parts, against the float64 oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import run_in
from mutants.models import trained_weights
from stepping import BATCH, CONFIGS, PARTS, judged, references, taken, wrong

from polymae.backends.naming import Arrays
from polymae.backends.runtime import load_backend
from polymae.backends.training import Training
from polymae.compare.limits.metrics import error
from polymae.compare.record.inputs import random_inputs
from polymae.training import steps

SCRIPT = """
import sys
sys.path.insert(0, "{tests}")
import numpy as np
from mutants.models import trained_weights
from polymae.backends.optimization import Settings
from polymae.backends.runtime import load_backend
from polymae.compare.record.inputs import random_inputs
from polymae.training.steps import take
from stepping import BATCH, CONFIGS, PARTS, taken

runtime = load_backend("{framework}")
runtime.setup(threads=1)
for model, count in PARTS.items():
    np.savez(f"{folder}/{{model}}.npz", **taken("{framework}", model, accumulate=count))
model = "mae_vit_test_patch8"
np.savez(f"{folder}/scaled.npz", **taken("{framework}", model, accumulate=3, scale=1024.0))

config = CONFIGS[model]
def made(weights):
    subject = runtime.build(config, weights)
    optimizer = runtime.optimizer(subject, Settings(clip=1.0))
    return subject, optimizer, runtime.training(subject, optimizer)

def held(subject, optimizer):
    state = optimizer.state()
    m, v = ({{prefix + name: array for name, array in each.items()}} for prefix, each in (("m/", state.m), ("v/", state.v)))
    return {{"step": np.array(state.step), **runtime.weights(subject), **m, **v}}

def assert_same(one, other):
    assert one.keys() == other.keys() and len(one) > 100
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name

subject, optimizer, training = made(trained_weights(config))
batches = [random_inputs(config, BATCH, seed) for seed in range(4)]
[take(training, batch, 1e-3, 2) for batch in batches[:2]]

before = held(subject, optimizer)
for value in (np.inf, np.nan):
    spoilt = {{name: array.copy() for name, array in batches[2].items()}}
    spoilt["imgs"][5, 0, 3, 3] = value
    assert not np.isfinite(take(training, spoilt, 1e-3, 2).norm)
    assert_same(held(subject, optimizer), before)

resumed, its_optimizer, its_training = made(runtime.weights(subject))
its_optimizer.load_state(optimizer.state())
for batch in batches[2:]:
    first, second = (take(each, batch, 1e-3, 2) for each in (training, its_training))
    assert first == second and np.isfinite(first.norm)
assert_same(held(resumed, its_optimizer), held(subject, optimizer))
assert before["cls_token"].tobytes() != runtime.weights(subject)["cls_token"].tobytes()
"""


def test_every_framework_steps_within_roundoff(framework: str, tmp_path: Path) -> None:
    """The whole batch and its parts; what is not finite changes nothing; where a state was taken, training goes on."""
    tests = Path(__file__).parents[1]
    run_in(framework, SCRIPT.format(tests=tests, framework=framework, folder=tmp_path))
    for model in PARTS:
        with np.load(tmp_path / f"{model}.npz") as found:
            assert not wrong(judged(model, dict(found))), model
    with np.load(tmp_path / "scaled.npz") as found:
        assert not wrong(judged("mae_vit_test_patch8", dict(found)))


PRECISIONS = """
import sys
sys.path.insert(0, "{tests}")
import numpy as np
from mutants.models import trained_weights
from polymae.backends.optimization import Settings
from polymae.backends.runtime import load_backend
from polymae.compare.record.inputs import random_inputs
from polymae.training.steps import take
from stepping import CONFIGS, batch
from polymae.backends.runtime import RuntimeProblem

runtime = load_backend("{framework}")
runtime.setup(threads=1)
for model in {models}:
    for precision in ("bfloat16", "float16"):
        config = CONFIGS[model]
        subject = runtime.build(config, trained_weights(config))
        optimizer = runtime.optimizer(subject, Settings(betas=(0.0, 0.95)))
        try:
            training = runtime.training(subject, optimizer, precision=precision)
        except RuntimeProblem as problem:
            assert "Set precision" in str(problem)
            continue
        assert precision in type(training).PRECISIONS["cpu"]
        found = take(training, batch(model), 1e-3, 2, 1024.0 if precision == "float16" else 1.0)
        m = optimizer.state().m
        assert {{array.dtype for array in (*m.values(), *runtime.weights(subject).values())}} == {{np.dtype("float32")}}
        np.savez(f"{folder}/{{model}}-{{precision}}.npz", loss=np.array(found.loss), norm=np.array(found.norm), **m)
"""
DISTANCE = {"bfloat16": (1e-4, 3e-2), "float16": (1e-5, 4e-3)}  # of all gradients, relative
LOW = {"torch": {"bfloat16", "float16"}, "megengine": {"float16"}, "mindspore": {"float16"}}  # on a CPU
MIXED = ("mae_vit_test_patch8", "tuned")


def test_mixed_precision(framework: str, tmp_path: Path) -> None:
    """What a framework trains in beside float32 is that precision, and near the oracle; what it does not is refused."""
    tests = Path(__file__).parents[1]
    run_in(framework, PRECISIONS.format(tests=tests, framework=framework, folder=tmp_path, models=MIXED))
    files = {path: path.stem.rpartition("-") for path in tmp_path.glob("*.npz")}
    assert {(model, precision) for model, _, precision in files.values()} == {
        (model, precision) for model in MIXED for precision in LOW.get(framework, ())
    }
    for path, (model, _, precision) in files.items():
        oracle, (least, most) = references(model)[0], DISTANCE[precision]
        with np.load(path) as found:
            names = [name for name in oracle if name not in ("loss", "norm")]
            off = np.sqrt(sum(np.sum((found[name] - oracle[name]) ** 2) for name in names)) / oracle["norm"]
            assert least <= off <= most, (path.stem, off)
            assert abs(found["loss"] - oracle["loss"]) <= most * oracle["loss"]


def planted(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong step, in NumPy."""
    accumulate, parts = Training.accumulate, steps.parts

    def no_share(self: Training, inputs: Arrays, share: float = 1.0, scale: float = 1.0) -> float:
        return accumulate(self, inputs, 1.0, scale)

    def last_alone(self: Training, inputs: Arrays, share: float = 1.0, scale: float = 1.0) -> float:
        self._held = None
        return accumulate(self, inputs, share, scale)

    def equal_shares(self: Training, inputs: Arrays, share: float = 1.0, scale: float = 1.0) -> float:
        return accumulate(self, inputs, 1 / 3, scale)

    def floored(size: int, count: int) -> Any:
        """The remainder is lost."""
        return (slice(size // count * part, size // count * (part + 1)) for part in range(count))

    steps_of = {
        "a share forgotten": no_share,
        "the last part only": last_alone,
        "equal shares of unequal parts": equal_shares,
    }
    if fault in steps_of:
        monkeypatch.setattr(Training, "accumulate", steps_of[fault])
    elif fault == "the remainder lost":
        monkeypatch.setattr(steps, "parts", floored)
    else:
        monkeypatch.setattr(steps, "parts", lambda size, count: list(parts(size, count))[:-1])


FAULTS = (
    "a share forgotten",
    "equal shares of unequal parts",
    "the last part only",
    "the remainder lost",
    "a part dropped",
)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("model", CONFIGS)
def test_a_fault_of_the_parts_is_seen(fault: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    references(model)
    assert not wrong(judged(model, taken("numpy", model, accumulate=3)))
    with monkeypatch.context() as context:
        planted(fault, context)
        found = judged(model, taken("numpy", model, accumulate=3))
    assert len(wrong(found)) > len(found) / 2
    assert max(finding.ratio for finding in found) > 100


def test_a_scale_that_is_not_taken_back_is_seen() -> None:
    found = taken("numpy", "vit_test_patch8", scale=1024.0)
    assert not wrong(judged("vit_test_patch8", found))
    scaled = {name: array if name == "loss" else 1024 * array for name, array in found.items()}
    assert len(wrong(judged("vit_test_patch8", scaled))) > len(scaled) / 2


def test_gradients_are_read_bit_for_bit() -> None:
    """The first moment of the step is what autograd gave."""
    runtime, config = load_backend("numpy"), CONFIGS["vit_test_patch8"]
    subject = runtime.build(config, trained_weights(config))
    expected = runtime.run(subject, random_inputs(config, BATCH), gradients=True).gradients
    found = taken("numpy", "vit_test_patch8")
    for name in set(found) - {"loss", "norm"}:
        assert error(found[name], expected[name].astype(np.float64)) == 0, name
