"""The shuffle: a permutation that depends on its key alone, today and under any later numpy.

Only the raw Philox stream and `SeedSequence` are used, whose output numpy promises never to change (NEP 19);
`Generator.permutation` carries no such promise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Words", "permutation", "shuffled"]

_ORDER_PURPOSE = 0  # first word of every spawn key here: keeps the order apart from Lane.rng's stream


class Words:
    """An endless sequence of random 64-bit words, each a pure function of (seed, key, place).

    Args:
        seed: the user's seed, any non-negative integer.
        key: what the words are for, such as an epoch; two different keys give unrelated words.
    """

    def __init__(self, seed: int, key: tuple[int, ...]) -> None:
        self._sequence = np.random.SeedSequence(seed, spawn_key=(_ORDER_PURPOSE, *key))
        self._stream = np.random.Philox(self._sequence)
        self._place = 0

    def at(self, start: int, stop: int) -> NDArray[np.uint64]:
        """Return the words at the places `start` to `stop - 1`; going on from the last `stop` is fastest."""
        if start != self._place:
            self._stream = np.random.Philox(self._sequence)
            self._stream.advance(start // 4)  # Philox counts in blocks of four words
            self._stream.random_raw(start % 4)
        self._place = stop
        words: NDArray[np.uint64] = self._stream.random_raw(stop - start)
        return words


def shuffled(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the numbers 0 to `len(words) - 1` in an order that the random `words`, which are overwritten, decide.

    Each word gets its place as its low bits, so the words are distinct and one plain sort, numpy's fastest, yields the
    permutation.
    """
    count = len(words)
    places = np.uint64((1 << max(count - 1, 0).bit_length()) - 1)
    words &= ~places
    words |= np.arange(count, dtype=np.uint64)
    words.sort()
    words &= places
    return words.view(np.int64)


def permutation(count: int, *, seed: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the numbers 0 to `count - 1` in an order that is a pure function of (`seed`, `key`, `count`)."""
    return shuffled(Words(seed, key).at(0, count))
