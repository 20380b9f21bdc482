"""The plan of one epoch: which bins, in which order, and which records of each.

Shuffled, an epoch is the bins in random order, each read whole in a random order of its own: sequential I/O at the
scale of bins, and, because records were scattered over the bins when written, a good mix. A window of several bins
mixes the records of neighbours in that order with each other. Lanes and batches cut the one sequence of records that
results, so every record comes once whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitpipe.order.permutation import Words, permutation, shuffled

__all__ = ["Run", "cut", "plan_epoch"]

_BINS, _RECORDS = 0, 1  # what a permutation is of: part of its key


@dataclass(frozen=True)
class Run:
    """Some records of one bin, or of several mixed, in reading order.

    Attributes:
        bins: the numbers of the bins.
        which: for each record its bin, counted in `bins`; None if there is one bin alone.
        positions: places within the bins, int64, shape (number of records,).
    """

    bins: tuple[int, ...]
    which: NDArray[np.int64] | None
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)

    def part(self, start: int, stop: int) -> Run:
        """Return the records from `start` to `stop - 1` of this run."""
        return Run(self.bins, None if self.which is None else self.which[start:stop], self.positions[start:stop])


def plan_epoch(
    counts: Sequence[int],
    *,
    shuffle: bool,
    seed: int,
    epoch: int,
    window: int = 1,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Run]:
    """Yield the runs of the records from `start` to `stop - 1` of an epoch's sequence, in order.

    Args:
        counts: how many records each bin holds.
        shuffle: permute the bins, and the records within each; otherwise both come in stored order.
        seed: what the shuffle starts from.
        epoch: which pass, from 0; another epoch is another shuffle.
        window: how many bins, neighbours in the shuffled order, have their records mixed with each other.
        start: the first record.
        stop: behind the last record; None for the end of the epoch.
    """
    stop = sum(counts) if stop is None else stop
    order = permutation(len(counts), seed=seed, key=(epoch, _BINS)) if shuffle else np.arange(len(counts))
    step = window if shuffle else 1
    words = Words(seed, (epoch, _RECORDS))  # one for each place of the epoch
    begin = 0
    for first in range(0, len(order), step):
        bins = tuple(order[first : first + step].tolist())
        end = begin + sum(counts[number] for number in bins)
        inside = max(start, begin), min(stop, end)
        if inside[0] < inside[1]:
            whole = _run(bins, counts, words.at(begin, end) if shuffle else None)
            yield whole.part(inside[0] - begin, inside[1] - begin)
        begin = end


def _run(bins: tuple[int, ...], counts: Sequence[int], words: NDArray[np.uint64] | None) -> Run:
    """Return all records of some bins, mixed by `words`, or in stored order."""
    if words is None:
        return Run(bins, None, np.arange(counts[bins[0]], dtype=np.int64))
    mixed = shuffled(words)
    if len(bins) == 1:
        return Run(bins, None, mixed)
    ends = np.cumsum([counts[number] for number in bins])
    which = np.searchsorted(ends, mixed, side="right")
    return Run(bins, which, mixed - np.concatenate([[0], ends[:-1]])[which])


def cut(runs: Iterator[Run], size: int, first: int, step: int) -> Iterator[list[Run]]:
    """Cut a sequence of runs into batches and yield every `step`-th of them, from number `first` on.

    Args:
        runs: the runs, from the beginning of an epoch.
        size: records in a batch; the last batch may have fewer.
        first: the number of the first batch to yield.
        step: how far it is to the next.
    """
    batch: list[Run] = []
    number, missing = 0, size
    for run in runs:
        at, length = 0, len(run)
        while at < length:
            end = min(at + missing, length)
            if number % step == first:
                batch.append(run.part(at, end))
            missing -= end - at
            at = end
            if not missing:
                if batch:
                    yield batch
                    batch = []
                number, missing = number + 1, size
    if batch:
        yield batch
