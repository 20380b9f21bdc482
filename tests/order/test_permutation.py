"""The shuffle is a permutation, a pure function of its key, and the same for ever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.order import permutation


def test_exact_order_for_one_seed_is_this_literal() -> None:
    """A change here changes the order of every user's training run: it must be meant."""
    assert permutation(10, seed=7, key=(0, 1, 2)).tolist() == LITERAL_10
    assert permutation(5, seed=0, key=(0, 0)).tolist() == LITERAL_5


LITERAL_10 = [7, 2, 1, 5, 9, 0, 3, 6, 8, 4]
LITERAL_5 = [1, 4, 2, 3, 0]


@given(st.integers(0, 3000), st.integers(0, 2**70), st.lists(st.integers(0, 2**31), max_size=3))
def test_every_number_comes_once(count: int, seed: int, key: list[int]) -> None:
    """Whatever the size and key, the result is a permutation, and calling again gives it again."""
    order = permutation(count, seed=seed, key=tuple(key))

    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(order, permutation(count, seed=seed, key=tuple(key)))


def test_seed_epoch_and_key_all_matter() -> None:
    """Neighbouring seeds and epochs give unrelated orders: seed 7 epoch 1 is not seed 8 epoch 0."""
    keys = [(7, (0,)), (7, (1,)), (8, (0,)), (8, (1,)), (7, (0, 0)), (7, ())]
    orders = {tuple(permutation(50, seed=seed, key=key).tolist()) for seed, key in keys}

    assert len(orders) == len(keys)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_order_is_about_equally_likely(count: int) -> None:
    """Over many seeds each of the n! orders comes about as often as the others (6 sigma)."""
    runs, seen = 4000, dict[tuple[int, ...], int]()
    for seed in range(runs):
        order = tuple(permutation(count, seed=seed, key=(0,)).tolist())
        seen[order] = seen.get(order, 0) + 1
    orders = {2: 2, 3: 6, 4: 24}[count]
    expected = runs / orders

    assert len(seen) == orders
    assert all(abs(times - expected) < 6 * expected**0.5 for times in seen.values())
