"""Parity of somebody's own model: right ones pass, planted faults are named, and nothing is passed over in silence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from perceptron import (
    FORWARD,
    GRADIENTS,
    INPUTS,
    Arrays,
    another_order,
    edited,
    float64_always,
    judged,
    model,
    port,
    with_nan,
)

from polymae.compare import Problem, Tap, assert_parity, parity
from polymae.compare.report.report import Report


def test_a_right_model_passes_in_full():
    for candidate in (port, another_order):
        result = judged(candidate)
        assert result.ok
        assert (result.exit_status, result.verdict, result.first_wrong) == (0, "roundoff", None)
        assert [finding.name for finding in result.findings] == [*FORWARD, *GRADIENTS]
        assert [result[name].level for name in ("logits", "loss", "grad/head")] == ["forward", "loss", "gradients"]
        assert result["best"].verdict == "exact"  # integers, without being told
        assert all(finding.reason for finding in result.findings)
        assert "3 float32 run(s) of the reference, 2 of them on inputs displaced" in str(result)
        assert repr(result) == "Parity('candidate: roundoff: 8 tensors compared')"


def test_a_gradient_that_is_zero_in_exact_arithmetic_is_judged_by_its_siblings():
    shift = judged(another_order)["grad/shift"]
    assert 0 < shift.error <= shift.limit
    assert "zero in exact arithmetic" in shift.reason
    wrong = judged(edited("grad/shift", lambda gradient: gradient + gradient.dtype.type(1e-5)))
    assert (wrong.verdict, wrong["grad/shift"].verdict) == ("fault", "fault")
    # Inside a tensor with others that are not zero, and alone, where there is nothing to hold it against.
    part = lambda found: np.vstack([found["grad/hidden"], found["grad/shift"]])  # noqa: E731
    assert parity(lambda i: {"g": part(model(i))}, lambda i: {"g": part(another_order(i))}, INPUTS, gradients=["g"]).ok
    alone = parity(model, port, INPUTS, FORWARD, gradients=["grad/shift"])
    assert alone["grad/shift"].verdict == "not comparable"


@pytest.mark.parametrize(
    ("candidate", "name"),
    [
        (lambda inputs: model(inputs, eps=1e-3), "normed"),
        (lambda inputs: model({**inputs, "head": inputs["head"] * np.float32(1.00001)}), "logits"),
        (edited("best", lambda best: (best + 1) % 10), "best"),
        (edited("loss", lambda loss: loss * 1.00001), "loss"),
        (edited("grad/hidden", lambda gradient: -gradient), "grad/hidden"),
    ],
)
def test_a_fault_is_named(candidate, name):
    result = judged(candidate)
    assert not result.ok
    assert (result.exit_status, result.verdict) == (1, "fault")
    assert result.first_wrong is not None
    assert result.first_wrong.name == name
    with pytest.raises(AssertionError, match=f"^candidate: fault: first wrong: {name} "):
        assert_parity(model, candidate, INPUTS, gradients=GRADIENTS)


def test_missing_and_extra_tensors_are_holes():
    def without(inputs: Arrays) -> dict[str, Any]:
        return {name: array for name, array in model(inputs).items() if name != "normed"}

    for result, said in (
        (judged(without), "normed is missing"),
        (judged(lambda inputs: {**model(inputs), "more": np.ones(3)}), "more is unknown"),
        (parity(without, model, INPUTS, FORWARD, gradients=GRADIENTS), "normed is missing from the reference"),
        (judged(taps=["hidden", "logits"]), "normed of the reference is not among the taps"),
    ):
        assert (result.exit_status, result.verdict) == (3, "coverage hole")
        assert said in str(result)


def raising(inputs: Arrays) -> dict[str, Any]:
    raise RuntimeError("no kernel for this\nstack")


@pytest.mark.parametrize(
    ("reference", "candidate", "said"),
    [
        (model, raising, "the candidate raised RuntimeError: no kernel for this"),
        (raising, model, "the reference raised RuntimeError: no kernel for this"),
        (model, lambda inputs: [1.0], "the candidate returned a list"),
        (model, lambda inputs: {}, "hidden is missing"),
        (model, edited("logits", with_nan), "logits: 1 of 80 elements are NaN"),
        (model, edited("logits", lambda logits: logits.T), "logits: shape (10, 8), the oracle's is (8, 10)"),
        (model, edited("loss", lambda loss: np.array([loss])), "loss: shape (1,)"),
        (
            model,
            edited("logits", lambda logits: logits.astype(np.float16)),
            "logits: E 4.11e+03 u is the size of float16",
        ),
        (model, edited("logits", lambda logits: logits + 1j), "logits is complex"),
        (model, edited("logits", lambda logits: object()), "logits is object"),
        (edited("logits", lambda logits: logits.astype(np.float32)), model, "must compute in float64"),
        (edited("logits", with_nan), model, "not finite itself"),
        (lambda inputs: {}, model, "nothing to compare"),
        (lambda inputs: {"x": np.ones((0, 3))}, lambda inputs: {"x": np.ones((0, 3))}, "it has no elements"),
    ],
)
def test_what_cannot_be_judged_is_not_comparable(reference, candidate, said):
    result = parity(reference, candidate, INPUTS, gradients=GRADIENTS if reference is model else ())
    assert (result.exit_status, result.verdict) == (2, "not comparable")
    assert said in str(result)


def rounded_at_the_end(inputs: Arrays) -> dict[str, Any]:
    found = float64_always(inputs)
    return {
        name: np.asarray(array).astype(inputs["x"].dtype) if name != "best" else array for name, array in found.items()
    }


def test_where_the_limits_come_from():
    for reference, said in ((float64_always, "comes in float64"), (rounded_at_the_end, "rounded at the end")):
        result = parity(reference, model, INPUTS, gradients=GRADIENTS)
        assert result.ok
        assert said in str(result)
        assert result["hidden"].reason.endswith("(a priori: 3 sqrt(5) + 6 + 0.4 sqrt(64 / 2) = 15)")
    twins = judged(twins=[another_order])
    assert twins.ok
    assert "from 3 float32 run(s) of 1 twin(s), 2 of them on inputs displaced" in str(twins)
    assert twins["hidden"].floor != judged()["hidden"].floor
    assert judged(twins=[], depth=12)["hidden"].floor == pytest.approx(3 * np.sqrt(12) + 6 + 0.4 * np.sqrt(64 / 2))
    for bad, said in (
        (
            edited("best", lambda best: best * 0),
            "twin 1 cannot set a limit: it decides otherwise than the oracle at best",
        ),
        (edited("logits", with_nan), "logits has NaN"),
        (float64_always, "comes in float64"),
        (raising, "twin 1 raised RuntimeError"),
    ):
        result = judged(twins=[bad])
        assert result.verdict == "not comparable"
        assert said in result.reason


def test_a_float64_candidate_passes_and_the_report_says_what_that_means():
    result = judged(float64_always)
    assert result.ok
    assert "the candidate returned float64" in str(result)


def test_a_displaced_twin_that_decides_otherwise_is_left_out():
    def brittle(inputs: Arrays) -> dict[str, Any]:
        x = inputs["x"]
        return {"flags": x == INPUTS["x"].astype(np.float32).astype(x.dtype), "sums": x @ x.T}

    result = parity(brittle, lambda inputs: brittle(inputs), INPUTS)
    assert result.ok
    assert "1 float32 run(s)" in str(result)
    assert "left out: it decides otherwise than the oracle at flags" in str(result)
    whole = parity(lambda i: {"sums": i["x"] @ i["x"].T}, lambda i: {"sums": i["x"] @ i["x"].T}, {"x": np.eye(9) + 3})
    assert "displaced" not in str(whole)  # integers carry no roundoff


def test_what_is_asked_for_wrongly_is_a_problem():
    with pytest.raises(Problem, match="is the reference itself"):
        parity(model, model, INPUTS)
    for options, said in (
        ({"taps": []}, "nothing to compare"),
        ({"taps": "logits"}, "lists of names"),
        ({"taps": ["logits", "logits"]}, "logits is listed twice"),
        ({"taps": ["logits"], "gradients": ["logits"]}, "logits is listed twice"),
        ({"twins": [port]}, "may not set its own limit"),
    ):
        with pytest.raises(Problem, match=said):
            parity(model, port, INPUTS, **{"gradients": ()} | options)
    with pytest.raises(Problem, match="float32 cannot"):
        parity(model, port, INPUTS | {"x": np.full((8, 64), 1e300)})
    with pytest.raises(KeyError, match="absent was not compared"):
        judged()["absent"]


def test_an_exact_tap_and_operations_are_listed_by_tap():
    taps = [Tap(name, "norm" if name == "normed" else "", exact=name == "hidden") for name in FORWARD]
    result = parity(model, port, INPUTS, taps, gradients=GRADIENTS)
    assert result.first_wrong is not None
    assert result.first_wrong.name == "hidden"  # float32 sums are not bit for bit those of float64
    assert "elements differ; all must be equal" in result.reason
    assert result["normed"].operation == "norm"


def test_the_json_is_that_of_polymae_compare():
    result = judged(lambda inputs: model(inputs, eps=1e-3), environment={"framework": "mine"}, label="port")
    found = json.loads(result.as_json())
    (row,) = found["frameworks"]
    assert (row["framework"], row["verdict"], row["first_wrong"], row["environment"]) == (
        "port", "fault", "normed", {"framework": "mine"},
    )  # fmt: skip
    assert (found["exit_status"], found["twins"], sorted(found["digests"])) == (1, 3, sorted(INPUTS))
    known = {"framework": "mindspore", "version": "2.9.0", "device": "cpu"}
    noticed = judged(lambda inputs: model(inputs, eps=1e-3), environment=known)
    assert "mindspore 2.9.0 cpu has inaccurate kernels (tanh backward " in str(noticed)
    assert Report.from_json(result.as_json()).exit_status == 1
