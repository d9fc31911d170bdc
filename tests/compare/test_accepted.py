"""What compare/operations/accepted.json says: each reason for an error of more than twenty units is measured here."""

import json

import numpy as np
from children import run_in
from numpy.typing import NDArray

from polymae.compare.limits.metrics import U
from polymae.compare.operations.cases import Case, cases

EPS = 1e-5
NEAR = 1.3  # times by which a simulated error may differ from the kernel's

MEASURE = """
import json
from polymae.compare.operations.measure import measure, write_oracle
from polymae.compare.operations.profile import ACCURATE
import tempfile, pathlib, numpy as np
operations = {operations}
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "oracle.npz"
    write_oracle("numpy", operations, path)
    oracle = dict(np.load(path))
found = [[m.operation, m.argument, m.inputs, m.error, m.double, m.digest]
         for operation in operations for m in measure({framework!r}, operation, oracle)]
print(json.dumps(found))
"""

Array = NDArray[np.float64]


def measured(framework: str, *operations: str) -> dict[tuple[str, str, str], list[float]]:
    """Error, error in float64 and digest of a framework's operations, by operation, argument and inputs."""
    said = run_in(framework, MEASURE.format(framework=framework, operations=operations))
    return {(one[0], one[1], one[2]): one[3:] for one in json.loads(said.splitlines()[-1])}


def chain(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of each row, its sum taken in one chain."""
    return np.add.accumulate(x, axis=-1)[..., -1:] / np.float32(x.shape[-1])


def normalised(x: NDArray[np.float32], chained: bool) -> Array:
    """Rows with mean 0 and variance 1: in float64, or in float32 by chains."""
    if not chained:
        wide = x.astype(np.float64) - x.mean(-1, keepdims=True, dtype=np.float64)
        exact: Array = wide / np.sqrt((wide * wide).mean(-1, keepdims=True) + EPS)
        return exact
    d = x - chain(x)
    return (d / np.sqrt(chain(d * d) + np.float32(EPS))).astype(np.float64)


def distance(x: Array, o: Array) -> float:
    return float(np.linalg.norm(x - o) / np.linalg.norm(o) / U)


def groups(case: Case) -> NDArray[np.float32]:
    x: NDArray[np.float32] = case.arrays(0)["x"]
    return x if case.operation == "layer norm" else x.reshape(len(x), 4, -1)


def weight_gradient(rows: NDArray[np.float32], dy: NDArray[np.float32]) -> Array:
    """That of a group norm by sums of dy x and of dy, each in one chain; rows [N, groups, -1], dy [N, C, height, width]."""
    mean = chain(rows)
    rstd = 1 / np.sqrt(chain((rows - mean) ** 2) + np.float32(EPS))
    mean, rstd = (np.repeat(one[..., 0], dy.shape[1] // rows.shape[1], axis=1) for one in (mean, rstd))
    planes = [one.reshape(*dy.shape[:2], -1) for one in (dy * rows.reshape(dy.shape), dy)]
    with_x, without = (np.add.accumulate(one, axis=-1)[..., -1] for one in planes)
    found: Array = np.add.accumulate((with_x - without * mean) * rstd, axis=0)[-1].astype(np.float64)
    return found


def test_megengines_norms_sum_in_chains() -> None:
    found = measured("megengine", "layer norm", "group norm")
    for operation in ("layer norm", "group norm"):
        compared = 0
        for case in cases(operation):
            rows, shape = groups(case), case.arrays(0)["x"].shape
            chained, exact = (normalised(rows, way).reshape(shape) for way in (True, False))
            size = found[operation, "", case.inputs][0]
            if size > 2:
                simulated = distance(chained, exact)
                assert simulated / NEAR < size < simulated * NEAR, (case.inputs, size, simulated)
                compared += 1
            size = found[f"{operation} backward", "weight", case.inputs][0]
            dy = case.dy(0, shape)
            axes = 0 if operation == "layer norm" else (0, 2, 3)
            expected = (dy * exact).sum(axes)
            if operation == "layer norm" and size > 20:
                simulated = distance((dy * chained).sum(axes), expected)
                assert simulated / NEAR < size < simulated * NEAR, (case.inputs, size, simulated)
            elif operation == "group norm":
                simulated = distance(weight_gradient(rows, dy), expected)
                assert simulated / NEAR < size < simulated * NEAR, (case.inputs, size, simulated)
        assert compared > 3


def test_mindspores_variance_takes_the_mean_in_a_chain() -> None:
    found = measured("mindspore", "variance", "standard deviation")
    compared = 0
    for case in cases("variance"):
        if "mean 3" in case.inputs and case.width >= 197:
            for operation in ("variance", "standard deviation"):
                (one,) = [other for other in cases(operation) if other.inputs == case.inputs]
                x = one.arrays(0)["x"]
                d = x.astype(np.float64) - x.mean(-1, keepdims=True, dtype=np.float64)
                # dy [rows] scales the rows; the gradient of the deviation is divided by it, too.
                scale = one.dy(0, x.shape[:1]).astype(np.float64)[:, None]
                scale = scale if operation == "variance" else scale / np.sqrt((d * d).mean(-1, keepdims=True))
                simulated = distance(scale * (x - chain(x)), scale * d)
                size = found[f"{operation} backward", "x", case.inputs][0]
                assert simulated / 1.5 < size < simulated * 1.5, (case.inputs, operation, size, simulated)
                compared += 1
    assert compared == 8


def test_mindspores_log_softmax_is_onednns_as_oneflows_is() -> None:
    mine, theirs = measured("mindspore", "log softmax"), measured("oneflow", "log softmax")
    for inputs in ("rows of 10: normal, deviation 1", "rows of 10: normal, deviation 4"):
        for place in (("log softmax", "", inputs), ("log softmax backward", "x", inputs)):
            assert mine[place][2] == theirs[place][2]  # the same bits
            assert mine[place][1] is None  # no float64 of its own
            assert theirs[place][0] < 2 or theirs[place][1] < 1e-3


def test_mindspores_mish_has_its_softplus() -> None:
    script = """
import json, numpy as np
from polymae.backends.operations import load_operations
from polymae.compare.operations.cases import cases
module = load_operations("mindspore")
(case,) = [case for case in cases("mish") if case.inputs.startswith("near zero")]
given = case.arrays(0)
dy = case.dy(0, given["x"].shape)
mish = module.value_and_gradients("mish", given, dy, True)[1]["x"]
softplus = module.value_and_gradients("softplus", given, None, True)[0].astype(np.float64)
x, dy = given["x"].astype(np.float64), dy.astype(np.float64)
def derived(s):
    t = np.tanh(s)
    return dy * (t + x * (1 - t * t) / (1 + np.exp(-x)))
exact = derived(np.log1p(np.exp(x)))
print(json.dumps([float(np.linalg.norm(one - exact) / np.linalg.norm(exact) * 2**24) for one in (mish, derived(softplus))]))
"""
    kernel, simulated = json.loads(run_in("mindspore", script).splitlines()[-1])
    assert kernel > 2
    assert simulated / NEAR < kernel < simulated * NEAR, (kernel, simulated)
