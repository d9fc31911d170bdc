"""Each side is called twice: what is random, or fails, is named, and nobody's port is blamed for it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from children import run_in
from perceptron import GRADIENTS, INPUTS, Arrays, judged, model, port

from polymae.compare import assert_parity, parity


def varied(name: str, vary: Callable[[Any, int], Any]) -> Callable[[Arrays], dict[str, Any]]:
    """The model with one tensor changed by the number of the call."""
    calls = iter(range(1000))

    def run(inputs: Arrays) -> dict[str, Any]:
        found = model(inputs)
        return found | {name: vary(found[name], next(calls))}

    return run


def dropout(array: Any, call: int) -> Any:
    return array * (np.random.default_rng(call).random(array.shape) > 0.1) / array.dtype.type(0.9)


def shaken(size: float) -> Callable[[Any, int], Any]:
    """Relative noise of this size at every call but the first."""

    def vary(array: Any, call: int) -> Any:
        noise = 1 + size * bool(call) * np.random.default_rng(call).standard_normal(array.shape)
        return (array * noise).astype(array.dtype)

    return vary


@pytest.mark.parametrize("name", ["normed", "loss", "grad/hidden", "best"])
def test_a_reference_that_is_random_is_named_and_the_port_is_not_blamed(name):
    vary = (
        (lambda array, call: np.roll(array, call)) if name == "best" else dropout if name == "normed" else shaken(0.1)
    )
    result = parity(varied(name, vary), port, INPUTS, gradients=GRADIENTS)
    assert (result.verdict, result.exit_status) == ("not comparable", 2)
    assert result.reason.startswith(
        "candidate: not comparable: the reference gives other numbers at every call (dropout"
    )
    assert f"): {name} differs first" in result.reason
    assert "call .eval()" in result.reason
    with pytest.raises(AssertionError, match="the reference gives other numbers at every call"):
        assert_parity(varied(name, vary), port, INPUTS, gradients=GRADIENTS)


def test_a_candidate_or_a_twin_that_is_random_is_named():
    result = judged(varied("normed", dropout))
    assert result.verdict == "not comparable"
    assert "the candidate gives other numbers at every call" in result.reason
    twin = judged(twins=[varied("logits", shaken(0.01))])
    assert "twin 1 gives other numbers at every call" in twin.reason
    assert "logits differs first" in twin.reason


def test_what_a_call_leaves_behind_is_caught():
    steps: list[int] = []

    def trained(inputs: Arrays) -> dict[str, Any]:
        steps.append(1)
        return model({**inputs, "head": inputs["head"] * inputs["head"].dtype.type(0.9 ** len(steps))})

    assert "an optimizer step or running statistics" in judged(trained).reason
    sums: dict[str, Any] = {}

    def added_up(inputs: Arrays) -> dict[str, Any]:
        found = model(inputs)
        for name in GRADIENTS:
            found[name] = sums[name] = sums.get(name, 0) + found[name]
        return found

    result = judged(added_up)
    assert result.verdict == "not comparable"
    assert (
        "grad/head is twice as large at the second, as gradients are that add up; clear them (zero_grad)"
        in result.reason
    )

    def once(inputs: Arrays) -> dict[str, Any]:
        if sums.setdefault("called", 0):
            raise RuntimeError("the graph is gone")
        sums["called"] = 1
        return model(inputs)

    again = judged(once)
    assert (
        "the candidate, called a second time on the same inputs, raised RuntimeError: the graph is gone" in again.reason
    )
    assert isinstance(again.cause, RuntimeError)


def test_roundoff_between_two_calls_is_a_notice_and_no_randomness():
    result = judged(varied("logits", shaken(2e-8)))
    assert result.ok
    assert "two calls of the candidate on the same inputs differ by roundoff" in str(result)
    assert "at logits" in str(result)
    reference = parity(varied("logits", shaken(1e-15)), port, INPUTS, gradients=GRADIENTS)
    assert reference.ok
    assert "two calls of the reference on the same inputs differ by roundoff" in str(reference)
    # The same in the reference is beyond float64's roundoff.
    assert "the reference gives other numbers" in parity(varied("logits", shaken(2e-8)), port, INPUTS).reason
    # A gradient that is zero in exact arithmetic is nothing but roundoff, and other roundoff every time.
    null = judged(varied("grad/shift", lambda array, call: array * array.dtype.type(-1) ** call))
    assert null.ok
    assert "differ by roundoff" in str(null)
    # An index that scores decide which themselves differ by roundoff.
    both = varied("logits", shaken(2e-8))

    def decided(inputs: Arrays) -> dict[str, Any]:
        found = both(inputs)
        tied = np.abs(found["logits"] - model(inputs)["logits"]).max() > 0
        logits = found.pop("logits")
        return found | {"logits": logits, "winner": found["best"] + tied}

    result = parity(lambda i: model(i) | {"winner": model(i)["best"]}, decided, INPUTS, gradients=GRADIENTS)
    assert "and in what they decide at winner" in str(result)
    assert result.ok


def test_a_fault_no_larger_than_the_difference_of_two_calls_is_none():
    small = judged(varied("logits", lambda array, call: array * (1 + 1e-5 * (1 + call))))
    assert (small.verdict, small["logits"].verdict) == ("not comparable", "not comparable")
    assert "two calls of the candidate on the same inputs differ by" in small.reason
    wrong = judged(varied("logits", lambda array, call: array * (1.01 + 1e-5 * call)))  # far more than that
    assert (wrong.verdict, wrong["logits"].verdict) == ("fault", "fault")


def failing(inputs: Arrays) -> dict[str, Any]:
    return deeper(inputs["x"])


def deeper(x: Any) -> dict[str, Any]:
    return {"y": x @ np.ones((7, 7))}  # the line to be named


@pytest.mark.parametrize(("reference", "candidate"), [(failing, port), (model, failing)])
def test_the_line_that_failed_is_shown_and_the_exception_chained(reference, candidate):
    result = parity(reference, candidate, INPUTS)
    assert result.verdict == "not comparable"
    assert "raised ValueError: matmul" in result.reason
    assert "(test_library_twice.py, line" in result.reason
    assert "in deeper)" in result.reason
    shown = str(result)
    assert 'return {"y": x @ np.ones((7, 7))}' in shown
    assert 'return deeper(inputs["x"])' in shown
    assert "calls.py" not in shown  # ours is not the caller's
    assert isinstance(result.cause, ValueError)
    with pytest.raises(AssertionError, match="raised ValueError") as caught:
        assert_parity(reference, candidate, INPUTS)
    assert isinstance(caught.value.__cause__, ValueError)
    lines = [frame.line for frame in traceback.extract_tb(caught.value.__cause__.__traceback__)]
    assert any("the line to be named" in (line or "") for line in lines)
    assert judged().cause is None


def test_a_failure_inside_a_library_is_placed_in_the_callers_line():
    said = run_in("torch", """
import torch
from polymae.compare import parity

def port(inputs):
    x = torch.tensor(inputs["x"])
    return {"y": torch.nn.Linear(3, 2)(x)}  # the caller's line

print(parity(lambda i: {"y": i["x"]}, port, {"x": torch.ones(2, 5)}))
""")  # fmt: skip
    assert "raised RuntimeError: mat1 and mat2 shapes cannot be multiplied" in said
    assert "in port)" in said
    assert "linear.py" not in said


def test_dropout_that_is_left_on_is_named_in_torch():
    said = run_in("torch", """
import copy, torch
from polymae.compare import parity

net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Dropout(0.1))
wide = copy.deepcopy(net).double()
x = torch.randn(8, 16)
reference = lambda i: {"y": wide(torch.tensor(i["x"]))}
port = lambda i: {"y": net(torch.tensor(i["x"]))}
print(parity(reference, port, {"x": x}).reason)
wide.eval()
print(parity(reference, port, {"x": x}).reason)
net.eval()
print(parity(reference, port, {"x": x}).reason)
norm = torch.nn.BatchNorm1d(16).double()
tracked = lambda i: {"y": norm(torch.tensor(i["x"])), "mean": norm.running_mean}
print(parity(tracked, lambda i: {"y": i["x"], "mean": i["x"][0]}, {"x": x}).reason)
""")  # fmt: skip
    first, second, third, fourth = said.splitlines()
    assert "the reference gives other numbers at every call" in first
    assert "the candidate gives other numbers at every call" in second
    assert third == "candidate: roundoff: 1 tensors compared"
    assert "running statistics" in fourth
    assert "mean differs first" in fourth
