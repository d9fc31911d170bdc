"""Names of what callables return: of tuples and lone tensors, of gradients, and slips in them."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from perceptron import FORWARD, GRADIENTS, INPUTS, PRODUCT, Arrays, another_order, judged, model, port

from polymae.compare import Problem, parity, parity_of_traces, save_trace
from polymae.compare.api.arrays import Tensors


def test_a_tuple_a_list_and_a_lone_tensor_have_numbers_for_names():
    for reference, candidate in (
        (lambda i: i["x"] * 3, lambda i: (i["x"] * 3,)),
        (lambda i: (i["x"] * 3, i["w"].sum()), lambda i: [i["x"] * 3, i["w"].sum()]),
    ):
        result = parity(reference, candidate, PRODUCT)
        assert result.ok
        assert [finding.name for finding in result.findings] == ["0", "1"][: len(result.findings)]
    wrong = parity(lambda i: (i["x"], i["w"] * 3), lambda i: (i["x"], i["w"] * 3.001), PRODUCT)
    assert wrong.first_wrong is not None
    assert wrong.first_wrong.name == "1"


def test_what_lies_inside_is_opened_by_its_place():
    Output = namedtuple("Output", "logits hidden")

    @dataclass
    class Found:
        logits: Any
        hidden: Any

    one, two = np.ones(2), np.zeros(3)
    names = ["logits", "hidden[0]", "hidden[1][k]"]
    for given in (
        Output(one, (one, {"k": two})),
        Found(one, [one, {"k": two}]),
        {"logits": one, "hidden": (one, {"k": two})},
    ):
        assert Tensors(given).names == names
        assert not Tensors(given).numbered
    assert Tensors({"losses": [0.1, 0.2], "pairs": [[1, 2], [3, 4]]}).names == ["losses", "pairs"]
    with pytest.raises(Problem, match="two tensors are both called 1"):
        Tensors({1: one, "1": two})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1.0], "the candidate returned a list, the reference tensors by name; return {\"hidden\": ..., \"normed\": ..."),
        (None, "the candidate returned a NoneType (is there no return?)"),
        ("text", "the candidate returned a str; it must return arrays by tap name"),
        (dict.fromkeys(FORWARD), "hidden is None; leave it out on both sides"),
        ({1: np.ones(2), "1": np.ones(2)}, "the candidate: two tensors are both called 1"),
    ],
)  # fmt: skip
def test_what_has_no_names_is_not_guessed(given, said):
    result = judged(lambda inputs: given)
    assert result.verdict == "not comparable"
    assert said in str(result)
    if isinstance(given, list):
        other = parity(lambda inputs: given, port, INPUTS)
        assert "the reference returned a list, the candidate tensors by name" in other.reason


def test_a_slip_in_a_name_is_told_with_the_nearest():
    for options, said in (
        ({"taps": [*FORWARD, "logit"]}, "logit was returned by neither side (nearest: logits)"),
        ({"gradients": [*GRADIENTS, "grad/haed"]}, "grad/haed was returned by neither side (nearest: grad/head"),
        ({"taps": [*FORWARD, "zzz"]}, "zzz was returned by neither side (there are hidden, normed, best, ...)"),
    ):
        result = judged(**options)
        assert (result.verdict, result.exit_status) == ("coverage hole", 3)
        assert said in str(result)
        assert "version of polymae" not in str(result)

    def renamed(inputs: Arrays) -> dict[str, Any]:
        found = model(inputs)
        return {name.replace("logits", "logit"): array for name, array in found.items()}

    result = judged(renamed)
    assert "logits is missing (nearest: logit)" in str(result)
    assert "logit is unknown (nearest: logits)" in str(result)


def test_gradients_are_known_by_their_names_and_judged_in_the_order_of_the_backward_pass():
    result = parity(model, another_order, INPUTS)  # no lists
    assert result.ok
    assert [(f.name, f.level) for f in result.findings[-3:]] == [(name, "gradients") for name in GRADIENTS]
    assert "zero in exact arithmetic" in result["grad/shift"].reason

    def named(form: str, order: int, wrong: bool = False) -> Callable[[Arrays], dict[str, Any]]:
        def run(inputs: Arrays) -> dict[str, Any]:
            x, w = inputs["x"], inputs["w"]
            taps = {
                "conv": x @ w.T,
                "head": (x @ w.T) ** 2,
                "grad_norm": np.float64(1),
                "requires_grad": np.array(True),
            }
            grads = {
                form.format(name): x[:2] * (1.001 if wrong else 1)
                for name in ("conv.weight", "conv.bias", "head.weight")
            }
            items = [*taps.items(), *grads.items()]
            return dict(items[::order])

        return run

    for form in ("{}.grad", "{}_grad", "{}/grad", "grad/{}", "grad.{}", "grad_{}"):
        result = parity(named(form, 1), named(form, -1, wrong=True), PRODUCT, environment={})
        backward = [form.format(name) for name in ("head.weight", "conv.bias", "conv.weight")]
        assert [f.name for f in result.findings if f.level == "gradients" and f.name != "grad_norm"] == backward
        assert result["requires_grad"].level == "loss"  # a flag is no gradient, whatever its name
        assert result.first_wrong is not None
        assert result.first_wrong.name == backward[0]
    explicit = parity(named("{}.grad", 1), named("{}.grad", -1), PRODUCT, taps=list(named("{}.grad", 1)(PRODUCT)))
    assert {finding.level for finding in explicit.findings} == {"forward", "loss"}  # as listed


def test_gradients_by_name_in_traces(tmp_path):
    narrow = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in INPUTS.items()}
    wide = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in narrow.items()}
    save_trace(tmp_path / "o.npz", model(wide), framework="numpy", dtype="float64", inputs=narrow)
    save_trace(tmp_path / "c.npz", another_order(narrow), framework="mine", inputs=narrow)
    result = parity_of_traces(tmp_path / "o.npz", [], [tmp_path / "c.npz"])
    assert [finding.name for finding in result.findings if finding.level == "gradients"] == list(GRADIENTS)
    with pytest.raises(Problem, match="logits came in float16, whose roundoff hides porting faults"):
        save_trace(tmp_path / "h.npz", {"logits": np.ones(3, np.float16)}, framework="mine")
    save_trace(tmp_path / "h.npz", {"logits": np.ones(3, np.float16)}, framework="mine", dtype="bfloat16")
