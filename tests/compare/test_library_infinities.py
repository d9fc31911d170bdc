"""Tensors that hold infinities on purpose, such as masked scores: the same ones agree, others are faults at their place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from perceptron import PRODUCT, edited, judged, returning, same

from polymae.compare import parity


@pytest.fixture(autouse=True)
def no_warning_leaks() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def masked(array: Any, value: float = -np.inf, every: int = 3) -> Any:
    array[:, ::every] = value
    return array


def put(place: Any, value: float) -> Callable[[Any], Any]:
    def edit(array: Any) -> Any:
        masked(array)[place] = value
        return array

    return edit


def test_the_same_infinities_agree_and_the_rest_is_judged():
    reference, candidate = returning(masked)
    result = parity(reference, candidate, PRODUCT)
    assert result.ok
    assert "88 of 256 elements are the same infinities" in result["y"].reason
    assert "(n=168)" in result["y"].reason
    assert "from 3 float32 run(s)" in str(result)
    wrong = parity(reference, returning(lambda y: masked(y * y.dtype.type(1.001)))[1], PRODUCT)
    assert wrong.verdict == "fault"
    assert 1e4 < wrong["y"].error < 2e4  # of the finite elements
    one = parity(reference, returning(put((2, 5), 99.0))[1], PRODUCT)
    assert one["y"].worst_row == (2,)  # by its place in the whole tensor
    every = parity(*returning(lambda y: masked(y, every=1)), PRODUCT)
    assert every["y"].verdict == "exact"
    assert "which says nothing of numbers" in every["y"].reason
    mask = parity(*[lambda i, s=s: {"m": np.where(i["x"] > 0, 0, -s * np.inf)} for s in (1, 1)], PRODUCT)
    assert mask["m"].verdict == "exact"


@pytest.mark.parametrize(
    ("value", "place", "said"),
    [
        (-np.inf, (1, 2), "-inf at (1, 2), where the reference has "),
        (np.inf, (0, 3), "inf at (0, 3), where the reference has -inf"),
        (-3.4e38, (4, 6), "-3.4e+38 at (4, 6), where the reference has -inf"),
    ],
)
def test_an_infinity_on_one_side_is_a_fault_at_its_place(value, place, said):
    result = parity(returning(masked)[0], returning(put(place, value))[1], PRODUCT)
    assert (result.verdict, result.exit_status) == ("fault", 1)
    assert said in result.reason
    plain = parity(returning(same)[0], returning(lambda y: masked(y, every=9))[1], PRODUCT)
    assert plain.verdict == "fault"
    assert "-inf at (0, 0)" in plain.reason
    assert "and 31 more like it" in plain.reason


def test_nan_and_what_float32_cannot_hold_stay_not_comparable():
    reference = returning(masked)[0]
    for place in ((0, 3), (0, 4)):  # where the reference has an infinity, and where it has a number
        result = parity(reference, returning(put(place, np.nan))[1], PRODUCT)
        assert result.verdict == "not comparable"
        assert f"1 of 256 elements are NaN, the first at {place}" in result.reason
    lost = parity(*returning(lambda y: masked(y, np.nan)), PRODUCT)
    assert "the reference's is not finite itself: NaN at (0, 0)" in lost.reason
    least = lambda y: masked(y, float(np.finfo(y.dtype).min))  # noqa: E731
    result = parity(*returning(least), PRODUCT)  # as masks of finfo(dtype).min are
    assert result.verdict == "not comparable"
    assert "the reference has -1.8e+308 at (0, 0), and float32 no number above 3.4e+38; scale" in result.reason
    with np.errstate(over="ignore"):
        overflowing = lambda y: np.exp(np.where(y > 2, y.dtype.type(100), y)) / y.dtype.type(1e10)  # noqa: E731
        result = parity(*returning(overflowing), PRODUCT)
    assert result.verdict == "not comparable"
    assert "float32 overflows at" in result.reason
    assert "in the reference's own float32 run, too" in result.reason


def test_a_twin_with_other_infinities_sets_no_limit():
    reference, candidate = returning(masked)
    result = parity(reference, candidate, PRODUCT, twins=returning(lambda y: masked(y, every=2)))
    assert "twin 1 cannot set a limit: y has NaN or infinite elements where the reference has none" in result.reason
    assert parity(reference, candidate, PRODUCT, twins=returning(masked)).ok
    assert judged(edited("logits", lambda logits: logits)).ok
