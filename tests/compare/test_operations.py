"""The tables of operations: the same names in every framework, read alike, and right in float64."""

import ast
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from children import run_in
from frameworks import frameworks_under_test
from repository import ROOT

from polymae.backends import FRAMEWORKS
from polymae.backends.numpy import operations as ours
from polymae.backends.operations import OPERATIONS, PRODUCTS, OperationProblem, load_operations
from polymae.compare.operations.cases import cases

BACKENDS = ROOT / "backends"
ABSENT = {
    "numpy": {
        "convolution", "convolution of 3 x 3", "strided convolution", "depthwise convolution", "transposed convolution",
        "attention", "max pool", "average pool", "adaptive average pool", "bilinear interpolation",
        "bilinear interpolation of corners", "bicubic interpolation",
    },
    "torch": set(),
    "megengine": {
        "einsum", "attention", "negative log likelihood", "smooth l1 loss", "reciprocal square root", "erf", "tanh gelu",
        "mish", "elu",
    },
    "mindspore": {"einsum", "attention"},
    "oneflow": {"attention"},
}  # fmt: skip
# How a framework would spell what it lacks: this fails, so that the operation is not forgotten.
SPELLED = {
    "megengine": (
        "import megengine.functional as F; x = megengine.tensor([1.0])",
        {
            "einsum": "F.einsum",
            "attention": "F.scaled_dot_product_attention",
            "negative log likelihood": "F.nn.nll_loss",
            "smooth l1 loss": "F.nn.smooth_l1_loss",
            "reciprocal square root": "F.rsqrt",
            "erf": "F.erf",
            "tanh gelu": "F.gelu(x, approximate='tanh')",
            "mish": "F.mish",
            "elu": "F.elu",
            "relu": "F.relu",  # which is there
        },
    ),
    "mindspore": (
        "from mindspore import Tensor, mint, ops; x = Tensor(np.ones((2, 3, 4), np.float32))",
        {
            "einsum": "ops.einsum('bmk,bnk->bmn', x, x).asnumpy()",
            "attention": "mint.nn.functional.scaled_dot_product_attention",
            "relu": "ops.relu(x).asnumpy()",
        },
    ),
    "oneflow": (
        "import oneflow.nn.functional as F",
        {"attention": "F.scaled_dot_product_attention", "relu": "F.relu"},
    ),
}


def table(framework: str) -> dict[str, Any]:
    """Names and absences of one framework's table, asked in a process of its own."""
    script = (
        f"import json\nfrom polymae.backends.operations import load_operations\nmodule = load_operations({framework!r})\n"
        "print(json.dumps({'operations': list(module.OPERATIONS), 'absent': module.ABSENT}))"
    )
    found: dict[str, Any] = json.loads(run_in(framework, script).splitlines()[-1])
    return found


def test_every_framework_has_every_operation_or_says_why_not(framework: str) -> None:
    found = table(framework)
    assert set(found["absent"]) == ABSENT[framework]
    assert all(found["absent"].values())
    expected = [name for name in OPERATIONS if name not in ABSENT[framework]]
    assert found["operations"] == expected if framework != "numpy" else set(found["operations"]) == set(expected)


@pytest.mark.parametrize("framework", sorted(SPELLED))
def test_what_is_absent_is_not_there(framework: str) -> None:
    first, spelled = SPELLED[framework]
    assert set(spelled) == ABSENT[framework] | {"relu"}
    script = f"""
import json, numpy as np
import polymae.backends.{framework}.runtime, {framework}
{first}
there = []
for name, text in json.loads({json.dumps(spelled)!r}).items():
    try:
        eval(text)
        there.append(name)
    except Exception:
        pass
print(json.dumps(there))
"""
    assert json.loads(run_in(framework, script).splitlines()[-1]) == ["relu"]


def source(framework: str) -> ast.Module:
    return ast.parse((BACKENDS / framework / "operations.py").read_text())


def entries(framework: str) -> list[str]:
    """The names in a table, in the order in which they are written."""
    for node in source(framework).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "OPERATIONS":
            assert isinstance(node.value, ast.Dict)
            return [ast.literal_eval(key) for key in node.value.keys if key is not None]
    raise AssertionError(f"{framework} has no OPERATIONS")


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "numpy"])
def test_the_tables_read_alike(framework: str) -> None:
    assert entries(framework) == [name for name in OPERATIONS if name not in ABSENT[framework]]
    torch, mine = source("torch"), source(framework)
    names = {"torch": "PyTorch", "megengine": "MegEngine", "mindspore": "MindSpore", "oneflow": "OneFlow"}
    assert ast.get_docstring(mine) == str(ast.get_docstring(torch)).replace("PyTorch", names[framework])
    functions = [
        {node.name: ast.unparse(node.args) for node in tree.body if isinstance(node, ast.FunctionDef)}
        for tree in (torch, mine)
    ]
    assert functions[0]["value_and_gradients"] == functions[1]["value_and_gradients"]


def test_numpy_and_pytorch_agree_in_float64() -> None:
    script = """
import json, numpy as np
from polymae.backends.operations import load_operations
from polymae.compare.operations.cases import cases
ours, torch = load_operations("numpy"), load_operations("torch")
found = {}
for operation in ours.OPERATIONS:
    for case in cases(operation):
        given = case.arrays(0)
        dy = case.dy(0, torch.value_and_gradients(operation, given, None, True)[0].shape)
        runs = [module.value_and_gradients(operation, given, dy, True) for module in (ours, torch)]
        assert set(runs[0][1]) == set(runs[1][1]), operation
        for label, a, b in [("", runs[0][0], runs[1][0])] + [(name, runs[0][1][name], b) for name, b in runs[1][1].items()]:
            assert a.dtype == b.dtype == np.float64 and a.shape == b.shape, (operation, label)
            size = np.linalg.norm(b.ravel()) or 1.0
            key = operation + (" backward" if label else "")
            found[key] = max(found.get(key, 0.0), float(np.linalg.norm((a - b).ravel()) / size))
print(json.dumps(found))
"""
    found = json.loads(run_in("torch", script).splitlines()[-1])
    assert len(found) == 2 * (len(OPERATIONS) - len(ABSENT["numpy"]))
    # PyTorch's derivative of the hard sigmoid multiplies by 1/6 in float32, whatever the type: half a roundoff of float32.
    assert 1e-9 < found.pop("hard sigmoid backward") < 2.0**-24
    # Its softplus is x itself above 20.
    assert max(found.pop(name) for name in ("softplus", "softplus backward")) < 1e-8
    assert max(found.values()) < 1e-12


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - ABSENT["numpy"]))
def test_float32_stays_float32(operation: str) -> None:
    for case in cases(operation):
        given = case.arrays(0)
        value, _ = ours.value_and_gradients(operation, given)
        value, gradients = ours.value_and_gradients(operation, given, case.dy(0, value.shape))
        assert {array.dtype for array in (value, *gradients.values())} == {np.dtype(np.float32)}
        assert all(gradients[name].shape == given[name].shape for name in gradients)


def test_inputs_are_the_same_every_time() -> None:
    for operation in OPERATIONS:
        for case in cases(operation):
            assert tuple(case.arrays(0)) == OPERATIONS[operation]
            for name, array in case.arrays(0).items():
                assert np.array_equal(array, case.arrays(0)[name])
                assert array.dtype in (np.dtype(np.float32), np.dtype(np.int64))
        assert len({case.inputs for case in cases(operation)}) == len(cases(operation))
    first, second = (cases("exp")[0].arrays(draw)["x"] for draw in (0, 1))
    assert not np.array_equal(first, second)
    assert set(PRODUCTS) < set(OPERATIONS)


def test_what_is_no_operation_is_refused() -> None:
    x = np.ones(3, np.float32)
    with pytest.raises(OperationProblem, match="Unknown operation 'sofmax'"):
        ours.value_and_gradients("sofmax", {"x": x})
    with pytest.raises(OperationProblem, match="numpy has no max pool on a CPU"):
        ours.value_and_gradients("max pool", {"x": x})
    with pytest.raises(OperationProblem, match="was given y; give x, y, in this order"):
        ours.value_and_gradients("division", {"y": x})


def test_megengine_has_no_float64() -> None:
    script = (
        "import numpy as np\nfrom polymae.backends.operations import OperationProblem, load_operations\n"
        "try:\n    load_operations('megengine').value_and_gradients('exp', {'x': np.ones(3)}, None, True)\n"
        "except OperationProblem as problem:\n    print(problem)"
    )
    assert "in float32, not in float64" in run_in("megengine", script)


def test_numpys_table_needs_no_framework() -> None:
    script = (
        "import sys\nfrom polymae.backends.operations import load_operations\nload_operations('numpy')\n"
        f"print(sorted({set(FRAMEWORKS) - {'numpy'}!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert load_operations("numpy") is ours
    assert frameworks_under_test()
