"""The shuffle: a permutation that depends on its key alone, today and under any later numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["permutation"]

_ORDER_PURPOSE = 0  # first word of every spawn key here: keeps the order apart from Lane.rng's stream


def permutation(count: int, *, seed: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the numbers 0 to `count - 1` in an order that is a pure function of (`seed`, `key`, `count`).

    Only the raw Philox stream and `SeedSequence` are used, whose output numpy promises never to change
    (NEP 19); `Generator.permutation` carries no such promise. Each random word gets its position as its low
    bits, so the words are distinct and one plain sort, numpy's fastest, yields the permutation.

    Args:
        count: how many numbers, at least 0.
        seed: the user's seed, any non-negative integer.
        key: what is being permuted, such as (epoch, bin); two different keys give unrelated permutations.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(_ORDER_PURPOSE, *key))
    words: NDArray[np.uint64] = np.random.Philox(sequence).random_raw(count)
    low_bits = max(count - 1, 0).bit_length()
    words >>= np.uint64(low_bits)
    words <<= np.uint64(low_bits)
    words |= np.arange(count, dtype=np.uint64)
    words.sort()
    words &= np.uint64((1 << low_bits) - 1)
    return words.view(np.int64)
