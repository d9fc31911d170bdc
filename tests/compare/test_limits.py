"""Errors and limits by hand: what the judge measures with."""

import numpy as np
import pytest
from runs import CONFIG

from polymae.backends.presets import model_config
from polymae.backends.spec import taps
from polymae.compare.limits.metrics import closeness, coherence, error, not_finite, worst_row
from polymae.compare.limits.tensors import judge_tensor
from polymae.compare.limits.tolerance import (
    ALONE,
    END_TO_END,
    APriori,
    kappa,
    longest_sum,
    null_limit,
    scalar_limit,
    tensor_limit,
)


def test_numbers_that_are_not_finite_are_told_apart() -> None:
    ours = np.array([np.nan, np.inf, -np.inf, 1.0, 2.0])
    assert not_finite(ours, ours) == 0
    assert not_finite(np.array([np.inf, -np.inf, np.nan, 1.0, 3.0]), ours) == 3
    tap = next(tap for tap in taps(CONFIG) if tap.name == "pred")
    broken = np.array([np.nan, 1.0, 2.0])  # where the oracle itself has no number, nothing can be judged
    assert judge_tensor("forward", tap, broken, broken, [], APriori(1)).verdict == "not comparable"
    assert judge_tensor("forward", tap, np.ones(3), broken, [], APriori(1)).verdict == "not comparable"
    assert judge_tensor("forward", tap, broken, np.ones(3), [], APriori(1)).verdict == "not comparable"


def test_a_floor_without_digits_judges_nothing() -> None:
    tap = next(tap for tap in taps(CONFIG) if tap.name == "pred")
    zero, far = np.zeros(64), np.full(64, 1e-5)
    assert judge_tensor("forward", tap, np.full(64, 1e6), zero, [far, far], APriori(1)).verdict == "not comparable"
    assert (
        judge_tensor("forward", tap, np.full(64, 1e6), np.ones(64), [np.full(64, 1.1)], APriori(1)).verdict
        == "not comparable"
    )
    assert (
        judge_tensor("forward", tap, np.full(64, 1.1), np.ones(64), [np.full(64, 1 + 1e-7)], APriori(1)).verdict
        == "fault"
    )


def test_a_gradient_that_is_zero_everywhere_must_be_zero() -> None:
    tap, zero = taps(CONFIG)[0], np.zeros(8)
    assert judge_tensor("gradients", tap, zero, zero, [zero], APriori(5)).verdict == "roundoff"
    assert judge_tensor("gradients", tap, zero + 1e-3, zero, [zero], APriori(5)).verdict == "fault"
    assert judge_tensor("forward", tap, zero + 1e-30, zero, [zero], APriori(5)).verdict == "fault"


def test_limits() -> None:
    factors = [kappa(size, ALONE) for size in (1, 2, 10, 100, 10_000, 10**9)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == pytest.approx(2 * (1 + 3 / np.sqrt(2 / 16)))
    assert factors[-1] == pytest.approx(2, rel=1e-3)
    for limit in (
        lambda f: tensor_limit(100, [f, 0.1], APriori(5)),
        lambda f: scalar_limit([0.1, f], APriori(5)),
        lambda f: null_limit(9, [f]),
    ):
        values = [limit(floor).value for floor in (0.0, 1.0, 2.0, 10.0, 100.0)]
        assert values == sorted(values)
        assert values[0] == values[1]  # no floor below one roundoff
        assert values[-1] > 10 * values[0]
    assert tensor_limit(100, [3.0, 5.0], APriori(5)).floor == 5
    assert tensor_limit(100, [], APriori(16)).floor == 18
    assert scalar_limit([], APriori(16)).floor == 18
    assert tensor_limit(10**9, [4.0], APriori(16)).value == pytest.approx(4 * END_TO_END, rel=1e-3)
    assert tensor_limit(10**9, [4.0], APriori(16), ALONE).value == pytest.approx(4 * ALONE, rel=1e-3)


def test_the_floor_a_priori_knows_the_longest_sum() -> None:
    base = model_config("mae_vit_base_patch16")
    assert longest_sum(base) == 3072
    assert longest_sum(model_config("vit_base_patch16")) == 3072
    assert longest_sum(CONFIG) == 192
    # What three chained twins of base/16 are off at most, at blocks.11.mlp.fc2.
    assert APriori(20, longest_sum(base)).floor > 24.7
    assert str(APriori(20, 3072)) == "3 sqrt(20) + 6 + 0.4 sqrt(3072 / 2) = 35.1"
    assert str(APriori(4)) == "3 sqrt(4) + 6 = 12"


def test_closeness_by_hand() -> None:
    found = closeness(np.array([1.1, 2.0, 0.5, -4.0]), np.array([1.0, 2.0, 0.0, -5.0]), rtol=0.1, atol=0.2)
    assert found.max_abs == pytest.approx(1.0)
    assert found.max_rel == pytest.approx(0.2)  # where the reference is 0 there is no relative error
    assert found.atol_needed == pytest.approx(0.5)  # of 0, 0, 0.5 and 1 - 0.1 * 5
    assert (found.share, found.passed) == (0.5, False)
    assert closeness(np.array([1.1, 0.5]), np.array([1.0, 0.0]), rtol=0, atol=0.500001).passed
    assert closeness(np.zeros((0, 3)), np.zeros((0, 3)), 0, 0).passed


def test_closeness_with_nan_fails_in_every_term() -> None:
    found = closeness(np.array([1.0, np.nan, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0]), rtol=1, atol=1)
    assert np.isnan([found.max_abs, found.max_rel, found.atol_needed]).all()
    assert (found.share, found.passed) == (0.75, False)


def test_the_same_nan_and_infinity_are_equal() -> None:
    same = np.array([np.nan, np.inf, -np.inf, 4.0])
    found = closeness(same, same, rtol=0, atol=0)
    assert (found.max_abs, found.max_rel, found.atol_needed, found.passed) == (0, 0, 0, True)
    assert not closeness(same, -same, rtol=1, atol=1).passed
    assert not closeness(same, np.array([1.0, np.inf, -np.inf, 4.0]), rtol=1, atol=1).passed


def test_metrics_of_zero() -> None:
    zero = np.zeros((2, 3))
    assert error(zero, zero) == 0
    assert error(zero + 1e-9, zero) == np.inf
    assert coherence(zero, zero, 0.0) == 0
    assert worst_row(np.eye(3)[:2], zero)[0] == (0,)
    assert worst_row(np.float32(2), np.float64(1))[0] == ()
