"""Own models: what another order of summation costs is no fault, and known kernels of the framework that ran explain."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from polymae.backends.numpy.sums import chained_matmul
from polymae.compare import Parity, chained, displaced, parity, parity_of_traces, rounded, save_trace, widened
from polymae.compare.api import explained, floor
from polymae.compare.api.arrays import Tensors
from polymae.compare.api.frameworks import environments, frameworks_called
from polymae.compare.judge.kernels import Inaccuracy

U = 2.0**-24
RNG = np.random.default_rng(3)
NEW = {"framework": "newflow", "version": "9.9", "device": "cpu"}
Arrays = dict[str, NDArray[Any]]
INPUTS = {
    "x": RNG.standard_normal((16, 4096)),
    "first": RNG.standard_normal((64, 4096)) / 64,
    "second": RNG.standard_normal((10, 64)) / 8,
    "labels": RNG.integers(0, 10, 16),
}


def reference(inputs: Arrays) -> Arrays:
    """Linear, softmax over the hidden units, linear, cross entropy; in PyTorch."""
    t = {name: torch.tensor(array) for name, array in inputs.items()}
    weights = [t[name].requires_grad_() for name in ("first", "second")]
    hidden = F.linear(t["x"], weights[0])
    mixed = F.softmax(3 * hidden, -1)
    loss = F.cross_entropy(8 * F.linear(mixed, weights[1]), t["labels"])
    first, second = torch.autograd.grad(loss, weights)
    found = {"hidden": hidden, "mixed": mixed, "loss": loss, "second.grad": second, "first.grad": first}
    return {name: tensor.detach().numpy() for name, tensor in found.items()}


def port(
    product: Callable[[Any, Any], Any] = np.matmul, softmax_noise: float = 0.0, first_noise: float = 0.0
) -> Callable[[Arrays], Arrays]:
    """The same by hand in NumPy: with a product of another order, and errors (in u) behind softmax or the first product."""

    def spoilt(array: NDArray[Any], size: float) -> NDArray[Any]:
        return (array * (1 + size * U * np.random.default_rng(0).standard_normal(array.shape))).astype(array.dtype)

    def softmax(x: NDArray[Any]) -> NDArray[Any]:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def run(inputs: Arrays) -> Arrays:
        x, first, second, labels = (inputs[name] for name in ("x", "first", "second", "labels"))
        hidden = spoilt(product(x, first.T), first_noise)
        mixed = spoilt(softmax(3 * hidden), softmax_noise)
        logits = 8 * product(mixed, second.T)
        chosen = np.arange(len(labels)), labels
        dlogits = softmax(logits)
        loss = -np.log(dlogits[chosen]).mean()
        dlogits[chosen] -= 1
        dlogits = dlogits * np.float32(8 / len(labels)).astype(dlogits.dtype)
        dmixed = product(dlogits, second)
        dhidden = 3 * mixed * (dmixed - (dmixed * mixed).sum(-1, keepdims=True))
        return {
            "hidden": hidden, "mixed": mixed, "loss": loss, "second.grad": product(dlogits.T, mixed),
            "first.grad": product(dhidden.T, x),
        }  # fmt: skip

    return run


def judged(candidate: Callable[[Arrays], Arrays], **options: Any) -> Parity:
    return parity(reference, candidate, INPUTS, **options)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A framework whose softmax is known to be 300 u off."""
    sizes = {"softmax": Inaccuracy(300.0, 2000.0, "rows of 9")}
    monkeypatch.setattr(explained, "known_operations", lambda where: sizes if where["framework"] == "newflow" else {})


def verdicts(result: Parity) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in result.findings}


# The order of summation


def test_a_right_port_that_sums_in_one_chain_is_right() -> None:
    for product in (np.matmul, chained_matmul):
        result = judged(port(product))
        assert result.verdict == "roundoff", result
        assert "every product summed in one chain" in str(result)
    assert result["hidden"].error > 10  # a chain of 4,096 terms; sums in blocks have 5 u


def test_with_a_floor_from_sums_in_blocks_it_would_be_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_it_is(who: str, function: Any, inputs: Arrays, seed: int) -> tuple[Tensors, bool]:
        return Tensors(function(inputs)), True

    monkeypatch.setattr(floor, "call_in_chains", as_it_is)
    assert judged(port(chained_matmul)).first_wrong.name == "hidden"


def test_a_reference_in_numpy_is_summed_in_chains_too() -> None:
    def in_numpy(inputs: Arrays) -> Arrays:
        return port()(inputs)

    result = parity(in_numpy, port(chained_matmul), INPUTS)
    assert result.verdict == "roundoff"
    assert "every product summed in one chain" in str(result)


def test_where_no_order_can_be_changed_limits_are_twice_as_wide() -> None:
    def by_itself(inputs: Arrays) -> Arrays:
        return {"y": (inputs["x"] * inputs["x"][:1]).sum(-1)}  # no product that could be intercepted

    result = parity(by_itself, lambda inputs: by_itself(inputs), {"x": INPUTS["x"]})
    assert "limits are 2 times as wide, as no product was met" in str(result)
    (finding,) = result.findings
    assert finding.floor == pytest.approx(2 * max(finding.error, 0.5), rel=0.6)  # the port's error is that of one run


def test_a_function_that_takes_plain_arrays_alone_still_sets_limits() -> None:
    def plain_arrays_alone(inputs: Arrays) -> Arrays:
        assert all(type(array) is np.ndarray for array in inputs.values())
        return reference(inputs)

    result = parity(plain_arrays_alone, port(chained_matmul), INPUTS)
    assert result.verdict == "roundoff"
    assert "every product summed in one chain" in str(result)


def test_twins_of_traces_are_summed_in_chains_where_they_are_asked_for(tmp_path: Path) -> None:
    inputs = {name: INPUTS[name] for name in INPUTS}
    save_trace(tmp_path / "oracle.npz", reference(widened(inputs)), framework="torch", dtype="float64", inputs=inputs)
    save_trace(tmp_path / "port.npz", port(chained_matmul)(rounded(inputs)), framework="newflow", inputs=inputs)
    for name, run in (("chain", chained(reference, 1)), ("plain", reference)):
        save_trace(tmp_path / f"{name}.npz", run(displaced(inputs, 1)), framework="torch", inputs=inputs)

    def limits(twin: str) -> Parity:
        return parity_of_traces(tmp_path / "oracle.npz", [tmp_path / f"{twin}.npz"], [tmp_path / "port.npz"])

    assert limits("chain").verdict == "roundoff"
    assert "twice" not in str(limits("chain"))
    assert "2 times as wide, as plain.npz was not summed in chains (polymae.compare.chained)" in str(limits("plain"))


# Known kernels


def test_a_known_kernel_explains_its_error_and_what_comes_of_it(known: None) -> None:
    wrong = port(softmax_noise=300)
    assert judged(wrong).verdict == "fault"
    result = judged(wrong, environment=NEW)
    assert result.verdict == "explained"
    assert (result.exit_status, result.ok) == (0, True)
    assert verdicts(result)["hidden"] == "roundoff"
    assert verdicts(result)["mixed"] == "explained"
    assert "softmax kernel (300 u) of newflow 9.9" in result.reason


@pytest.mark.parametrize(
    ("wrong", "first"),
    [(port(softmax_noise=3000), "mixed"), (port(first_noise=60), "hidden")],
    ids=["ten", "elsewhere"],
)
def test_it_explains_no_more(known: None, wrong: Any, first: str) -> None:
    result = judged(wrong, environment=NEW)
    assert (result.verdict, result.first_wrong.name) == ("fault", first)
    assert "the softmax kernel of newflow is up to 2e+03 u off on some inputs (rows of 9)" in str(result)


def test_of_a_fault_that_no_kernel_reaches_no_kernel_is_told(known: None) -> None:
    assert "on some inputs" not in str(judged(port(first_noise=10_000), environment=NEW))


@pytest.mark.parametrize("field", [{"framework": "otherflow"}, {"framework": "torch"}])
def test_another_framework_has_other_kernels(known: None, field: dict[str, str]) -> None:
    assert judged(port(softmax_noise=300), environment=NEW | field).verdict == "fault"


def test_a_reference_whose_operations_cannot_be_seen_gets_a_notice(known: None) -> None:
    def in_numpy(inputs: Arrays) -> Arrays:
        return port()(inputs)

    result = parity(in_numpy, port(softmax_noise=300), INPUTS, environment=NEW)
    assert result.verdict == "fault"
    assert (
        "newflow 9.9 cpu has inaccurate kernels (softmax 300 u): an error of that size behind them is no fault"
        in str(result)
    )
    assert "With a reference in PyTorch" in str(result)


def test_a_reference_that_stops_at_noisy_numbers_still_gives_a_verdict(known: None) -> None:
    def strict(inputs: Arrays) -> Arrays:
        found = reference(inputs)
        assert inputs["x"].dtype == np.float32 or np.allclose(found["mixed"].sum(-1), 1, rtol=1e-12, atol=0)
        return found

    result = parity(strict, port(softmax_noise=300), INPUTS, environment=NEW)
    assert result.verdict == "fault"


# Which framework ran


def test_the_framework_that_computes_is_seen() -> None:
    with frameworks_called() as called:
        np.exp(np.ones(3))
    assert called == set()
    with frameworks_called() as called:
        torch.ones(3).exp().numpy()
    assert called == {"torch"}


def test_functions_written_in_c_are_seen() -> None:
    function = F.linear  # a builtin
    x = torch.ones(2, 2)
    with frameworks_called() as called:
        function(x, x)
    assert called == {"torch"}


def test_a_profiler_that_is_at_work_goes_on() -> None:
    events: list[str] = []

    def profiler(frame: Any, event: str, argument: Any) -> None:
        events.append(event)

    sys.setprofile(profiler)
    try:
        with frameworks_called():
            np.linalg.norm(np.ones(3))
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
    assert "call" in events


def test_what_the_user_says_of_the_framework_counts() -> None:
    assert environments({"torch"}, {"framework": "oneflow", "version": "0.9.0"}) == [
        {"framework": "oneflow", "version": "0.9.0", "device": "cpu"}
    ]
    seen = environments({"torch"}, {"machine": "mine"})
    assert seen == [{"framework": "torch", "version": torch.__version__, "device": "cpu", "machine": "mine"}]
    assert environments(set(), {}) == []
