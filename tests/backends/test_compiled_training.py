"""Compiled training in MegEngine and OneFlow: the eager step's gradients and update, the same bits again, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from children import run_in

SETUP = """
import os
import numpy as np
from polymae.backends.optimization import Settings, State
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.compare.levels.curve import training_batch
from polymae.compare.levels.small import training_config
from polymae.compare.limits.metrics import error
from polymae.training.steps import take

framework, model_name, given = "{framework}", "{model}", {given}
config, runtime = training_config(model_config(model_name)), load_backend(framework)
runtime.setup()

def new(compiled=True, **options):
    model = runtime.build(config)
    optimizer = runtime.optimizer(model, Settings(clip=1.0))
    return runtime.training(model, optimizer, compiled=compiled, **options)

def of(training):
    state = training.optimizer.state()
    arrays = dict(runtime.weights(training.model))
    arrays.update(("m/" + name, array) for name, array in state.m.items())
    arrays.update(("v/" + name, array) for name, array in state.v.items())
    return arrays

def same(mine, theirs):
    return all(np.array_equal(mine[name], theirs[name]) for name in theirs)
"""

EQUAL = """
compiled, eager = new(), new(compiled=False)
frozen = set(runtime.weights(eager.model)) - set(eager.optimizer.decay)
for step in range(3):  # recorded, then run twice
    batch, lr = training_batch(config, step, given), 1e-3 * (step + 1)
    share, scale = 1 - step / 4, 4.0**step
    losses = [training.accumulate(batch, share, scale) for training in (compiled, eager)]
    assert abs(losses[0] - losses[1]) < 4e-7 * losses[1], losses
    for mine, theirs in zip(compiled._held, eager._held):
        mine, theirs = runtime.to_numpy(mine), runtime.to_numpy(theirs).astype(np.float64)
        assert mine.shape == theirs.shape and error(mine, theirs) < 16, error(mine, theirs)
    held = [runtime.to_numpy(vector) for vector in compiled._held]
    eager._held = [runtime.from_numpy(vector, eager.model) for vector in held]  # so that the update alone differs
    before = of(eager)
    norms = [training.update(lr, scale) for training in (compiled, eager)]
    assert norms[0] == norms[1]
    mine, theirs = of(compiled), of(eager)
    for name in theirs:
        assert error(mine[name], theirs[name].astype(np.float64)) < 4, (name, error(mine[name], theirs[name]))
        assert np.array_equal(before[name], theirs[name]) == (name in frozen), name
    runtime.load_weights(compiled.model, runtime.weights(eager.model))
    compiled.optimizer.load_state(eager.optimizer.state())
assert len(getattr(compiled, "_graphs", "12")) == 2, "a graph for each draw"
for parts in (3, 2):  # of sizes that differ, and again of the first
    mine, theirs = (take(training, batch, 1e-3, parts, 2.0) for training in (compiled, eager))
    assert abs(mine.loss - theirs.loss) < 1e-6 * theirs.loss and abs(mine.norm - theirs.norm) < 1e-5 * theirs.norm
"""

GUARDED = """
from polymae.backends.denormals import denormals
training = new()
take(training, training_batch(config, 0), 1e-3)
before = of(training)
nan = training_batch(config, 1)
nan["imgs"][0, 0, 0, 0] = np.nan
taken = take(training, nan, 1e-3, 2)
assert not np.isfinite(taken.loss) and not np.isfinite(taken.norm)
assert same(of(training), before) and training.optimizer.state().step == 1
assert np.isfinite(take(training, training_batch(config, 1), 1e-3).norm) and training.optimizer.state().step == 2
assert denormals() == "kept"
"""

RESUMED = """
import sys
folder, begin = "{folder}", {begin}
training = new()
if begin:
    with np.load(folder + "/state.npz") as held:
        runtime.load_weights(training.model, {{n: held[n] for n in held.files if n[:2] not in ("m/", "v/")}})
        m, v = ({{n[2:]: held[n] for n in held.files if n[:2] == kind}} for kind in ("m/", "v/"))
        training.optimizer.load_state(State(begin, m, v))
taken = []
for step in range(begin, 5):
    if step == 2 and not begin:
        np.savez(folder + "/state.npz", **of(training))
    taken.append(take(training, training_batch(config, step), 1e-3, 1 + step % 2))
np.savez(folder + "/end{name}.npz", taken=np.array(taken[2 - begin:]), **of(training))
"""

PRECISE = """
from polymae.backends.runtime import RuntimeProblem
batches = [training_batch(config, step) for step in range(3)]
exact = [take(new(), batches[0], 1e-3)][0]
for precision in ("float16", "bfloat16"):
    for compiled in (True, False):
        try:
            training = new(compiled, precision=precision)
        except RuntimeProblem as problem:
            assert precision in str(problem) and training_class.REASON in str(problem)
            assert precision not in training_class.PRECISIONS["cpu"]
            continue
        assert precision in training_class.PRECISIONS["cpu"]
        mixed = take(training, batches[0], 1e-3, scale=1024.0)
        assert 0 < abs(mixed.loss - exact.loss) < 1e-3 * exact.loss, "the precision changes nothing, or too much"
        assert abs(mixed.norm - exact.norm) < 1e-2 * exact.norm
        assert all(array.dtype == np.float32 for array in of(training).values())
"""

FRAMEWORKS = ("megengine", "oneflow")
LEAVE = "\nimport sys\nsys.stdout.flush()\nos._exit(0)\n"  # OneFlow may hang at exit


def run(
    framework: str, script: str, model: str = "mae_vit_test_patch8", given: tuple[str, ...] = (), **more: object
) -> None:
    run_in(framework, (SETUP + script + LEAVE).format(framework=framework, model=model, given=given, **more))


@pytest.mark.parametrize("model", ["mae_vit_test_patch8", "vit_test_patch8"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_compiled_is_the_eager_step(framework: str, model: str) -> None:
    run(framework, EQUAL, model)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_with_drop_path_and_soft_targets(framework: str) -> None:
    """Drawn anew in each step, by the graph of the first."""
    run(framework, EQUAL, "vit_test_patch8", ("targets", "drop_path"))


FAULTS = {
    "numbers are constants": """
from polymae.backends.megengine.training import Training
right, first = Training._numbers, {}
Training._numbers = lambda self, *numbers: first.setdefault((id(self), len(numbers)), right(self, *numbers))
""",
    "the moments of the first step again": """
from polymae.backends.megengine.training import Training
right = Training._move
def stale(self, optimizer, *rest):
    held = optimizer.m, optimizer.v
    right(self, optimizer, *rest)
    optimizer.m, optimizer.v = held
Training._move = stale
""",
    "the first draw of drop path again": """
from polymae.backends.megengine.training import Training
right, first = Training.gradients, {}
def stale(self, inputs, factor):
    held = first.setdefault(self.compiled, inputs["drop_path"])
    return right(self, inputs | {"drop_path": held if self.compiled else inputs["drop_path"]}, factor)
Training.gradients = stale
""",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str) -> None:
    text = FAULTS[fault].replace("{", "{{").replace("}", "}}") + EQUAL
    of_what: tuple[Any, ...] = ("vit_test_patch8", ("targets", "drop_path")) if "draw" in fault else ()
    with pytest.raises(AssertionError, match="in <module>\nAssertionError"):
        run("megengine", text, *of_what)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_is_not_finite_changes_nothing(framework: str) -> None:
    run(framework, GUARDED)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_resumes_bit_for_bit_in_another_process(framework: str, tmp_path: object) -> None:
    import numpy as np

    for name, begin in (("first", 0), ("again", 0), ("resumed", 2)):
        run(framework, RESUMED, folder=tmp_path, begin=begin, name=name)
    first, again, resumed = (np.load(f"{tmp_path}/end{name}.npz") for name in ("first", "again", "resumed"))
    assert len(first["taken"]) == 3
    for name in first.files:
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_array_equal(first[name], resumed[name])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_precisions(framework: str) -> None:
    run(framework, "from polymae.backends.{framework}.training import Training as training_class\n" + PRECISE)
