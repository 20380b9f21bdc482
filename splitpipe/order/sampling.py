"""Drawing some numbers of many at random, as a function of a seed alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splitpipe.order.permutation import permutation

__all__ = ["choices", "sample"]

_SAMPLE, _CHOICES = 2, 3  # first word of the spawn keys here: keeps these streams apart from the shuffle's


def _words(purpose: int, count: int, seed: int, key: tuple[int, ...]) -> NDArray[np.uint64]:
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose, *key))
    words: NDArray[np.uint64] = np.random.Philox(sequence).random_raw(count)
    return words


def sample(total: int, count: int, *, replace: bool, seed: int) -> NDArray[np.int64]:
    """Return `count` of the numbers 0 to `total - 1`, drawn at random.

    Args:
        total: how many numbers there are to draw from.
        count: how many to draw; no more than `total`, unless `replace`.
        replace: whether a number may be drawn more than once.
        seed: what the draw starts from; the same seed draws the same numbers.
    """
    if not count:
        return np.empty(0, np.int64)
    if replace:
        # A remainder favours small numbers by less than one in 2**64 / total.
        numbers: NDArray[np.int64] = (_words(_SAMPLE, count, seed, (1,)) % np.uint64(total)).astype(np.int64)
        return numbers
    if 4 * count > total:
        return permutation(total, seed=seed, key=(_SAMPLE,))[:count]
    # Few of many: draw some more than asked for and keep the first of each, which costs nothing per undrawn number.
    drawn = (_words(_SAMPLE, 2 * count + 64, seed, (0,)) % np.uint64(total)).astype(np.int64)
    _, firsts = np.unique(drawn, return_index=True)
    kept: NDArray[np.int64] = drawn[np.sort(firsts)][:count]
    return kept if len(kept) == count else permutation(total, seed=seed, key=(_SAMPLE,))[:count]


def choices(weights: NDArray[np.float64], start: int, stop: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return, for the places `start` to `stop - 1` of an endless sequence, a number from 0 to `len(weights) - 1`.

    Each place is drawn on its own, a number with the probability of its weight; `weights` sum to 1.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(_CHOICES, epoch))
    stream = np.random.Philox(sequence)
    aligned = start - start % 4  # Philox counts in blocks of four words
    stream.advance(aligned // 4)
    words: NDArray[np.uint64] = stream.random_raw(stop - aligned)[start - aligned :]
    bounds = np.cumsum(weights)[:-1]
    fractions = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    chosen: NDArray[np.int64] = np.searchsorted(bounds, fractions, side="right")
    return chosen
