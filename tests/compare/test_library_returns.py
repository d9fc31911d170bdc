"""What callables return, as people return it: tensors of every framework, half precision."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from children import run_in
from perceptron import PRODUCT, Arrays, judged, model, returning, same

from polymae.compare import Problem, parity
from polymae.compare.api.arrays import NARROW, as_array


@pytest.fixture(autouse=True)
def no_warning_leaks() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def rounded_to_bfloat16(array: Any) -> Any:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


class Bfloat16:
    """A tensor of a framework that NumPy cannot read, on another device and on a tape."""

    dtype, shape = "framework.bfloat16", (8, 32)

    def __init__(self, array: Any, steps: str = ""):
        self.array, self.steps = array, steps

    def detach(self) -> Bfloat16:
        return Bfloat16(self.array, self.steps + "detach ")

    def cpu(self) -> Bfloat16:
        return Bfloat16(self.array, self.steps + "cpu ")

    def float(self) -> Any:
        assert self.steps == "detach cpu "
        return rounded_to_bfloat16(self.array)

    def __array__(self, *_: Any) -> Any:
        raise TypeError("Got unsupported ScalarType BFloat16")


def half(array: Any) -> Any:
    return array.astype(np.float16)


@pytest.mark.parametrize(
    ("edit", "kind", "least"),
    [(Bfloat16, "bfloat16", 2e4), (half, "float16", 3e3), (rounded_to_bfloat16, "bfloat16", 2e4),
     (lambda y: half(y).astype(np.float32), "float16", 3e3)],
)  # fmt: skip
def test_half_precision_is_said_to_be_the_size_of_the_error(edit, kind, least):
    reference, candidate = returning(same, edit)
    result = parity(reference, candidate, PRODUCT)
    assert (result.verdict, result.exit_status) == ("not comparable", 2)
    power = NARROW[kind]
    assert result.reason.endswith(
        f"u is the size of {kind}'s roundoff (2^{power} u): run the port in float32 to judge it"
    )
    assert least < result["y"].error < 2.0**power
    assert f"of {kind}, whose" in str(result) or f"came in {kind}, whose" in str(result)


def test_what_half_precision_does_not_account_for_is_a_fault():
    for edit in (lambda y: half(y * 1.5), lambda y: Bfloat16(y * 1.5)):
        reference, candidate = returning(same, edit)
        result = parity(reference, candidate, PRODUCT)
        assert result.verdict == "fault"
        assert "'s roundoff accounts for no more than" in result["y"].reason
    # A float32 port that is as far off without holding numbers of a narrower type.
    reference, candidate = returning(same, lambda y: y * y.dtype.type(1.003))
    assert parity(reference, candidate, PRODUCT).verdict == "fault"
    # Small whole numbers fit bfloat16, and so do the reference's.
    whole = lambda edit: lambda i: {"y": edit(np.rint(i["x"] * 9))}  # noqa: E731
    assert parity(whole(same), whole(lambda y: y + (y == 3)), PRODUCT).verdict == "fault"
    # Less than float32's limit is right in any type.
    assert parity(whole(same), whole(half), PRODUCT).ok


def test_few_digits_that_a_cancellation_leaves_are_no_half_precision():
    """MindSpore's gradient of a bias that the port takes away again: 0.003 dropped in a layer passed for bfloat16's roundoff."""
    right = lambda inputs: {"y": inputs["x"] @ inputs["w"].T, "grad/bias": inputs["x"][:, 0]}  # noqa: E731

    def without_bias(inputs: Arrays) -> dict[str, Any]:
        found = right(inputs)
        return {"y": found["y"] * 1.003, "grad/bias": np.float32(2.0**-24) * np.rint(found["grad/bias"] * 8)}

    inputs = {"x": np.random.default_rng(7).standard_normal((32, 16)), "w": PRODUCT["w"]}
    result = parity(right, without_bias, inputs, gradients=["grad/bias"])
    assert (result.verdict, result.first_wrong.name) == ("fault", "y")
    assert "bfloat16" not in str(result)


def test_one_tensor_of_half_precision_excuses_the_others_and_what_they_decide():
    def mixed(inputs: Arrays) -> dict[str, Any]:
        found = model({**inputs, "hidden": rounded_to_bfloat16(inputs["hidden"])})
        return found | {"hidden": half(found["hidden"]), "best": (found["best"] + 1) % 10}

    result = judged(mixed)
    assert result.verdict == "not comparable"
    assert {finding.verdict for finding in result.findings} <= {"not comparable", "exact", "roundoff"}
    assert "float16's roundoff may decide otherwise" in result["best"].reason


def test_an_overflow_of_float16_is_none_of_bfloat16():
    big = lambda edit: lambda i: {"y": edit(i["x"] * 1e5)}  # noqa: E731
    with np.errstate(over="ignore"):
        result = parity(big(same), big(half), PRODUCT)
    assert result.verdict == "not comparable"
    assert "float16 overflows where float32 does not" in result.reason


def test_a_reference_or_twin_of_half_precision_is_refused():
    reference, candidate = returning(half, same)
    assert (
        "The reference returned y in float16; it must compute in float64"
        in parity(reference, candidate, PRODUCT).reason
    )
    reference, candidate = returning(same)
    assert (
        "twin 1 cannot set a limit: y comes in float16"
        in parity(reference, candidate, PRODUCT, twins=returning(half)).reason
    )


def test_types_are_told_apart():
    array, narrow = as_array("y", np.float16(1.5))
    assert (array.dtype, narrow, float(array)) == (np.float32, "float16", 1.5)
    for fields in ([("bfloat16", "f2")], [("value", "f4")]):
        with pytest.raises(Problem, match="y is .*, which cannot be judged"):
            as_array("y", np.zeros(3, fields))


HALVES = {
    "torch": "import torch; make = lambda a: torch.tensor(a, requires_grad=True).bfloat16()",
    "oneflow": "import oneflow as f; make = lambda a: f.tensor(a, requires_grad=True).to(f.bfloat16)",
    "mindspore": "import mindspore as m; make = lambda a: m.Tensor(a).astype(m.bfloat16)",
    "megengine": "import megengine as m; from megengine.core.tensor.dtype import bfloat16\n"
                 "make = lambda a: m.Parameter(a).astype(bfloat16)",
}  # fmt: skip
WHOLES = {
    "torch": "make = lambda a: torch.nn.Parameter(torch.tensor(a))",
    "oneflow": "make = lambda a: f.nn.Parameter(f.tensor(a))",
    "mindspore": "make = lambda a: m.Parameter(m.Tensor(a), name='a')",
    "megengine": "make = lambda a: m.Parameter(a)",
}


@pytest.mark.parametrize("framework", HALVES)
def test_tensors_of_every_framework_are_read_in_float32_and_in_bfloat16(framework):
    said = run_in(framework, f"""
import numpy as np
{HALVES[framework]}
from polymae.compare import parity
inputs = {{"x": np.random.default_rng(5).standard_normal((8, 16))}}
reference = lambda i: {{"y": np.tanh(i["x"])}}
print(parity(reference, lambda i: {{"y": make(np.tanh(i["x"]))}}, inputs).reason)
{WHOLES[framework]}
print(parity(reference, lambda i: {{"y": make(np.tanh(i["x"]))}}, inputs).reason)
print(parity(reference, lambda i: make(np.tanh(i["x"])), inputs).reason)
print(parity(lambda i: np.tanh(i["x"]), lambda i: (make(np.tanh(i["x"])),), {{"x": make(np.float32(inputs["x"]))}}).reason)
""")  # fmt: skip
    narrow, whole, refused, lone = said.splitlines()[-4:]
    assert "u is the size of bfloat16's roundoff (2^16 u): run the port in float32" in narrow
    assert whole == lone == "candidate: roundoff: 1 tensors compared"
    assert "returned a " in refused
    assert 'the reference tensors by name; return {"y": ...} from the candidate, too' in refused


@pytest.mark.parametrize(("framework", "method"), [("mindspore", "asnumpy"), ("megengine", "numpy")])
def test_numpys_arrays_of_a_type_that_numpy_does_not_know_are_read(framework, method):
    said = run_in(framework, f"""
import numpy as np
{HALVES[framework]}
from polymae.compare.api.arrays import as_array
array = make(np.float32([1, 1.5, 3])).{method}()
read, narrow = as_array("y", array)
print(array.dtype.kind, read.dtype, narrow, read)
""")  # fmt: skip
    assert said.splitlines()[-1] == "V float32 bfloat16 [1.  1.5 3. ]"


def test_sparse_gradients_of_torch_are_read():
    said = run_in("torch", """
import torch
from polymae.compare import parity
def run(i):
    table = torch.nn.Embedding(8, 4, sparse=True, _weight=torch.tensor(i["w"]))
    y = table(torch.tensor(i["at"]))
    (y ** 2).sum().backward()
    return {"y": y, "w.grad": table.weight.grad}
print(parity(run, lambda i: run(i), {"w": torch.randn(8, 4), "at": torch.tensor([1, 5, 5])}))
""")  # fmt: skip
    assert "2 tensors compared" in said
