"""mix: records of several sequences, each drawn as often as its weight says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.lane import current_lane, in_lane
from splitpipe.loader.records import Records
from splitpipe.order import choices, lane_share, wrapped

__all__ = ["Mix", "mix"]

_CHUNK = 8192  # draws made at a time


def mix(parts: Sequence[Records], weights: Sequence[float] | None = None, *, length: int | None = None) -> Mix:
    """Return a mix of data sets: at each place of an epoch, one of them is drawn with the probability of its weight.

    The draw, and with it the whole epoch, depends on (seed, epoch) alone. The records of each part come in the order
    of its own shuffled epoch; one that runs out begins its next pass, in another order.

    Args:
        parts: data sets, views, or what `concat` returned; none of them empty.
        weights: for each part, how often it is drawn, in any unit; by default in proportion to its length.
        length: how many records an epoch has; by default as many as all parts have together.

    Raises:
        TypeError: a part is no data set.
        ValueError: there is no part, one is empty, or the weights are not positive numbers, one for each part.
    """
    for part in parts:
        if not isinstance(part, Records):
            raise TypeError(f"mix takes a list of data sets and views of them, and got a {type(part).__qualname__}")
        if not len(part):
            raise ValueError(f"mix draws records, and {part!r} has none: leave it out")
    if not parts:
        raise ValueError("mix takes at least one data set")
    weighed = np.array([len(part) for part in parts] if weights is None else weights, np.float64)
    if weighed.shape != (len(parts),) or not (np.isfinite(weighed) & (weighed > 0)).all():
        raise ValueError(f"weights are {len(parts)} positive numbers, one for each data set, and got {weights!r}")
    if length is not None and length < 0:
        raise ValueError(f"length is a number of records, and got {length}")
    total = sum(map(len, parts)) if length is None else length
    return Mix(parts, weighed / weighed.sum(), total)


class Mix:
    """Records of several sequences, drawn by weight; made by `mix`."""

    _next_epoch = 0  # of passes outside a pipeline, where nobody else counts them

    def __init__(self, parts: Sequence[Records], weights: NDArray[np.float64], length: int) -> None:
        self._parts = tuple(parts)
        self._weights = weights
        self._length = length

    def __len__(self) -> int:
        return self._length

    def iterate_binwise(
        self, shuffle: bool = True, seed: int | None = None, epoch: int | None = None, *, window: int = 1
    ) -> Iterator[Any]:
        """Return an iterator over the records of one epoch; inside a pipeline's generator, over that lane's share.

        Args:
            shuffle: permute each part, as `Records.iterate_binwise` does.
            seed: what draw and shuffle start from; by default the pipeline's seed, and 0 outside one.
            epoch: which pass this is; by default the pipeline's epoch, and outside one the number of passes before.
            window: of so many bins of a part, the records are mixed with each other.

        Raises:
            CorruptDataError: the bytes on disk are not those committed.
            ValueError: `seed` or `epoch` is negative, or `window` is less than 1.
        """
        lane = current_lane()
        if epoch is None:
            epoch = lane.epoch if in_lane() else self._next_epoch
            if not in_lane():
                self._next_epoch += 1
        seed = lane.seed if seed is None else seed
        if seed < 0 or epoch < 0 or window < 1:
            raise ValueError(f"seed and epoch count from 0 and window from 1, and got {seed}, {epoch} and {window}")
        pieces = wrapped(*lane_share(self._length, lane), self._length)
        return itertools.chain.from_iterable(
            self._drawn(start, stop, shuffle, seed, epoch, window) for start, stop in pieces
        )

    def fingerprint(self) -> str:
        """Return what tells this mix from another, for a saved state to be refused elsewhere."""
        parts = ", ".join(part.fingerprint() for part in self._parts)
        return f"{self._length} of {parts} by {self._weights.tolist()}"

    def _drawn(self, start: int, stop: int, shuffle: bool, seed: int, epoch: int, window: int) -> Iterator[Any]:
        streams: list[Iterator[Any]] | None = None
        before = np.zeros(len(self._parts), np.int64)  # how often each was drawn in front of this share
        for first in range(0, stop, _CHUNK):
            drawn = choices(self._weights, first, min(first + _CHUNK, stop), seed=seed, epoch=epoch)
            ours = drawn[max(0, start - first) :]
            before += np.bincount(drawn[: len(drawn) - len(ours)], minlength=len(self._parts))
            if len(ours):
                if streams is None:
                    streams = [
                        _endless(part, int(begin), shuffle, seed, epoch, window)
                        for part, begin in zip(self._parts, before, strict=True)
                    ]
                for at in ours.tolist():
                    yield next(streams[at])

    def __repr__(self) -> str:
        shares = ", ".join(f"{weight:.3g} of {part!r}" for part, weight in zip(self._parts, self._weights, strict=True))
        return f"<mix of {shares}: {self._length} records>"


def _endless(part: Records, begin: int, shuffle: bool, seed: int, epoch: int, window: int) -> Iterator[Any]:
    """Yield the records of a part from place `begin` on, pass after pass without end."""
    passes, place = divmod(begin, len(part))
    while True:
        yield from part._sequence(
            place, len(part), shuffle=shuffle, seed=seed, epoch=_pass(epoch, passes), window=window
        )
        passes, place = passes + 1, 0


def _pass(epoch: int, passes: int) -> int:
    """Return one number for a pair of them, another for each (Cantor's pairing function)."""
    return (epoch + passes) * (epoch + passes + 1) // 2 + passes
