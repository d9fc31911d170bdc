"""Random numbers by place: the same for ever, none of them drawn twice, whatever is drawn before them."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from polymae.data.draws import PURPOSES, generator, mask_noise, order
from polymae.files.errors import Problem

PLACES = list(itertools.product((0, 1, 2**64 - 1), PURPOSES, (0, 1, 399), (0, 1, 1_281_166)))


def test_the_drawn_numbers_are_what_they_were() -> None:
    whole = hashlib.sha256()
    for place in PLACES:
        whole.update(generator(*place).random(9).astype("<f8").tobytes())
    whole.update(order(7, 3, 1000).astype("<i8").tobytes())
    whole.update(mask_noise(7, 3, 11, 196).astype("<f4").tobytes())
    assert whole.hexdigest() == "b8a35a935db39b885e43fb175e39cb7fe2af16f1a265c0473203c6617d7c021f"


def test_they_are_philoxs_by_key_and_counter() -> None:
    raw = np.random.Philox(key=5 + (PURPOSES["flip"] << 64), counter=(9 << 128) + (2 << 192)).random_raw(4)
    assert np.array_equal(generator(5, "flip", 2, 9).random(4), (raw >> np.uint64(11)) * 2.0**-53)


def test_no_two_places_share_a_number() -> None:
    drawn = np.concatenate([generator(*place).random(200) for place in PLACES])
    assert len(np.unique(drawn)) == len(drawn)
    assert len(set(PURPOSES.values())) == len(PURPOSES)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_is_none_is_refused(seed: int) -> None:
    with pytest.raises(Problem, match="seed"):
        generator(seed, "crop", 0, 0)


def test_an_order_is_a_permutation_and_another_each_epoch() -> None:
    orders = np.array([order(0, epoch, 500) for epoch in range(40)])
    assert (np.sort(orders, axis=1) == np.arange(500)).all()
    assert len({tuple(one) for one in orders}) == 40
    places = np.argmax(orders == 3, axis=1)
    assert 150 < places.mean() < 350


def test_noise_masks_every_patch_as_often_and_has_no_ties() -> None:
    noise = np.array([mask_noise(0, 1, index, 49) for index in range(2000)])
    assert noise.dtype == np.float32
    assert (np.sort(noise, axis=1) == np.arange(49, dtype=np.float32) / np.float32(49)).all()
    kept = (noise.argsort(axis=1).argsort(axis=1) < 12).mean(axis=0)
    assert np.abs(kept - 12 / 49).max() < 5 * (0.25 / 2000) ** 0.5
