"""MindSpore's compiled step: that of the eager model, compiled once for a size of batch, and resumed bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from children import run_in

# A process has one MindSpore; a compilation that fails leaves its graph in the folder it is in. To compile a step takes seconds,
# and the longer the more blocks it has.
BEGIN = """
import os
os.chdir({folder!r})
from dataclasses import replace
import numpy as np
from mindspore.graph.api import ms_compile_cache
from polymae.backends.optimization import Settings, State
from polymae.backends.presets import model_config
from polymae.backends.runtime import load_backend
from polymae.compare.limits.metrics import error
from polymae.compare.record.inputs import random_inputs
from polymae.training.steps import take
runtime = load_backend("mindspore")
runtime.setup(threads=1)
autoencoder = model_config("mae_vit_test_patch8", depth=1, decoder_depth=1)
classifier = model_config("vit_test_patch8", depth=2)  # whose first block drops no path

def batch(config, seed, size=None, **drawn):
    return {{name: array[:size] for name, array in random_inputs(config, seed=seed, **drawn).items()}}
"""

COMPILED = """
rows = ((0, 1.0, None), (1, 0.5, None), (2, 1024.0, 1), (3, 0.3, 1), (4, 1.0, None))
tuned = dict(drop_path=0.5, soft_targets=True)
for name, config, drawn, rows in (("mae", autoencoder, {}, rows), ("tuned", classifier, tuned, rows[:2])):
    model = runtime.build(config)
    optimizer = runtime.optimizer(model, Settings(clip=1.0))
    training = runtime.training(model, optimizer)
    eager = runtime.training(model, optimizer, compiled=False)
    for seed, factor, size in rows:
        tensors = runtime.tensors(model, batch(config, seed, size, **drawn))
        before = len(ms_compile_cache)
        loss, gradients = training.gradients(tensors, factor)
        assert len(ms_compile_cache) - before == (seed in (0, 2)), (name, seed)
        again, repeated = training.gradients(tensors, factor)
        expected, recorded = eager.gradients(tensors, factor)
        assert loss == again and error(np.float32(loss), np.float64(expected)) < 4
        assert len(gradients) == len(recorded) == 2
        for mine, twice, theirs in zip(gradients, repeated, recorded):
            assert mine.dtype == theirs.dtype
            mine, twice, theirs = mine.asnumpy(), twice.asnumpy(), theirs.asnumpy()
            assert np.array_equal(mine, twice)
            assert error(mine, theirs.astype(np.float64)) < 16, (name, seed, error(mine, theirs.astype(np.float64)))
            assert error(1.0001 * mine, theirs.astype(np.float64)) > 100
    norm = take(training, batch(config, 5, **drawn), 1e-3).norm
    other = training.gradients(tensors, 1.0)[0]
    assert other != loss and other == eager.gradients(tensors, 1.0)[0], "it reads the weights, it holds no copy"
    if name == "mae":
        before = len(ms_compile_cache)
        take(training, batch(config, 6, **drawn), 1e-4, accumulate=2, scale=64.0)
        assert len(ms_compile_cache) == before
print("compiled")
"""


def test_a_compiled_step_is_the_eager_one(tmp_path: Path) -> None:
    assert "compiled" in run_in("mindspore", BEGIN.format(folder=str(tmp_path)) + COMPILED)


LOW = """
from polymae.backends.runtime import RuntimeProblem
config = autoencoder
model = runtime.build(config)
optimizer = runtime.optimizer(model, Settings(clip=1.0))
trainings = {
    (precision, compiled): runtime.training(model, optimizer, precision=precision, compiled=compiled)
    for precision in ("float32", "float16") for compiled in (True, False)
}
tensors = runtime.tensors(model, batch(config, 0))
found = {kind: training.gradients(tensors, 1024.0) for kind, training in trainings.items()}

def distance(one, other):
    pairs = [(a.asnumpy(), b.asnumpy()) for a, b in zip(found[one][1], found[other][1])]
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)

for compiled in (True, False):
    loss, gradients = found["float16", compiled]
    assert abs(loss / found["float32", compiled][0] - 1) < 1e-3
    assert {str(g.dtype) for g in gradients} == {"Float32"} and all(np.isfinite(g.asnumpy()).all() for g in gradients)
    assert 1e-5 < distance(("float16", compiled), ("float32", compiled)) < 5e-3, "no product was computed in float16"
assert distance(("float16", True), ("float16", False)) < 5e-3
assert distance(("float32", True), ("float32", False)) < 1e-5, "the model's own precision was changed"
take(trainings["float16", True], batch(config, 1), 1e-3, scale=1024.0)
assert {str(p.dtype) for p in model.get_parameters()} == {"Float32"}
assert {str(tensor.dtype) for tensor in (*optimizer.m, *optimizer.v)} == {"Float32"}
overflow = take(trainings["float16", True], batch(config, 1), 1e-3, scale=1e30)
assert np.isfinite(overflow.loss) and not np.isfinite(overflow.norm) and optimizer.state().step == 1
try:
    runtime.training(model, optimizer, precision="bfloat16")
except RuntimeProblem as problem:
    assert "bfloat16" in str(problem) and "float16" in str(problem)
    print("low")
"""


def test_float16_is_that_of_matrix_products_alone_and_bfloat16_is_refused(tmp_path: Path) -> None:
    assert "low" in run_in("mindspore", BEGIN.format(folder=str(tmp_path)) + LOW)


FIRST = """
config = autoencoder

def go_on(training, steps):
    model, optimizer = training.model, training.optimizer
    taken = [take(training, batch(config, step), 1e-3 / (1 + step), accumulate=2) for step in steps]
    state = optimizer.state()
    moments = {f"m/{name}": array for name, array in state.m.items()} | {f"v/{name}": array for name, array in state.v.items()}
    weights = {f"model/{name}": array for name, array in runtime.weights(model).items()}
    return weights | moments | {"step": np.array(state.step), "taken": np.array(taken)}

"""
WHOLE = """
model = runtime.build(config)
optimizer = runtime.optimizer(model, Settings(clip=1.0))
training = runtime.training(model, optimizer)
np.savez("half.npz", **go_on(training, range(3)))
np.savez("whole.npz", **go_on(training, range(3, 6)))
"""
RESUMED = """
with np.load("half.npz") as file:
    held = dict(file)
part = lambda prefix: {name[len(prefix):]: array for name, array in held.items() if name.startswith(prefix)}
model = runtime.build(config, part("model/"))
optimizer = runtime.optimizer(model, Settings(clip=1.0))
optimizer.load_state(State(int(held["step"]), part("m/"), part("v/")))
np.savez("resumed.npz", **go_on(runtime.training(model, optimizer), range(3, 6)))
"""


def test_a_run_is_resumed_bit_for_bit_in_another_process(tmp_path: Path) -> None:
    """Compiled again, with parts of a batch."""
    for script in (WHOLE, RESUMED):
        run_in("mindspore", BEGIN.format(folder=str(tmp_path)) + FIRST + script)
    half, whole, resumed = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("half", "whole", "resumed"))
    assert set(resumed) == set(whole)
    assert whole["step"] == 6
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert not np.array_equal(whole["v/cls_token"], half["v/cls_token"])
