"""The plan of one epoch for one lane: which bins, in which order, and which records of each.

Shuffled, an epoch is the bins in random order, each read whole in a random order of its own: sequential I/O at the
scale of bins, and, because records were scattered over the bins when written, a good mix. Lanes cut that one
sequence of records into equal runs, so every record belongs to exactly one lane whatever the number of lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitpipe.order.permutation import permutation

__all__ = ["Run", "plan_epoch"]

_BINS, _RECORDS = 0, 1  # what a permutation is of: part of its key


@dataclass(frozen=True)
class Run:
    """Some records of one bin, in reading order.

    Attributes:
        bin: the bin's number.
        positions: places within the bin, int64, shape (number of records,).
    """

    bin: int
    positions: NDArray[np.int64]


def plan_epoch(
    counts: Sequence[int], *, shuffle: bool, seed: int, epoch: int, lane: int = 0, lanes: int = 1
) -> Iterator[Run]:
    """Yield the runs of lane `lane` of `lanes`, in order.

    Args:
        counts: how many records each bin holds.
        shuffle: permute the bins, and the records within each; otherwise both come in stored order.
        seed: what the shuffle starts from.
        epoch: which pass, from 0; another epoch is another shuffle.
        lane: which share of the epoch.
        lanes: how many shares; they differ in length by at most one record.
    """
    total = sum(counts)
    start, stop = total * lane // lanes, total * (lane + 1) // lanes
    bins = permutation(len(counts), seed=seed, key=(epoch, _BINS)) if shuffle else range(len(counts))
    begin = 0
    for number in map(int, bins):
        end = begin + counts[number]
        first, last = max(start, begin), min(stop, end)
        if first < last:
            yield Run(number, _positions(counts[number], shuffle, seed, epoch, number)[first - begin : last - begin])
        begin = end


def _positions(count: int, shuffle: bool, seed: int, epoch: int, number: int) -> NDArray[np.int64]:
    if shuffle:
        return permutation(count, seed=seed, key=(epoch, _RECORDS, number))
    return np.arange(count, dtype=np.int64)
