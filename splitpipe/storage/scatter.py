"""Which bin a record goes to when it is written.

A stripe is as many records as there are bins, one for each. Every stripe starts at another bin, so that data with a
period (every tenth record is a cat) does not pile up in a few bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bins_of"]

# 2**64 divided by the golden ratio: multiples of it, taken as fractions of 2**64, stay evenly spread and never come
# round to a period, so no period in the data can follow the rotation (Knuth, TAOCP vol. 3, section 6.4).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def bins_of(first: int, count: int, splits: int, *, shuffle: bool) -> NDArray[np.int64]:
    """Return the bins of the records `first` to `first + count - 1` of a segment, int64, shape (count,).

    Any `splits` records of one stripe go to `splits` different bins, so bins differ by at most one record.

    Args:
        first: ordinal of the first record.
        count: how many records.
        splits: how many bins.
        shuffle: give each stripe a random permutation of the bins, a function of its number alone, instead of a
            rotation.
    """
    ordinals = np.arange(first, first + count, dtype=np.uint64)
    stripes, places = np.divmod(ordinals, np.uint64(splits))
    if shuffle and count:
        stripe_range = range(int(stripes[0]), int(stripes[-1]) + 1)
        orders = np.stack([_stripe_order(stripe, splits) for stripe in stripe_range])
        shuffled: NDArray[np.int64] = orders[(stripes - stripes[0]).astype(np.int64), places.astype(np.int64)]
        return shuffled
    # The high half of the product is the fraction; times splits, its high half is a bin, with no rounding anywhere.
    fractions = stripes * _GOLDEN >> np.uint64(32)
    rotations = fractions * np.uint64(splits) >> np.uint64(32)
    rotated: NDArray[np.int64] = ((places + rotations) % np.uint64(splits)).astype(np.int64)
    return rotated


def _stripe_order(stripe: int, splits: int) -> NDArray[np.int64]:
    words = np.random.Philox(key=stripe).random_raw(splits)
    return np.argsort(words, kind="stable")
