"""Batches: the generator behind `data.batches(...)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.lane import current_lane
from splitpipe.order import Run, cut, plan_epoch
from splitpipe.storage import BinReader

if TYPE_CHECKING:
    from splitpipe.loader.records import Records

__all__ = ["Batches"]

Collate = Callable[[list[Any]], Any]  # makes one batch of a list of records


class Batches:
    """Called in each lane of a pipeline, yields that lane's batches: every L-th of all, so that they alternate."""

    def __init__(
        self,
        records: Records,
        batch_size: int,
        shuffle: bool,
        transform: Callable[[Any], Any] | None,
        drop_last: bool,
        collate: Collate | None,
        window: int,
    ) -> None:
        self._records = records
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._transform = transform
        self._drop_last = drop_last
        self._collate = collate
        self._window = window

    def __call__(self) -> Iterator[Any]:
        """Yield the batches of the current lane and epoch."""
        lane, records = current_lane(), self._records
        runs = plan_epoch(
            records._bin_counts(), shuffle=self._shuffle, seed=lane.seed, epoch=lane.epoch, window=self._window
        )
        bins = _OpenBins(records)
        for batch in cut(runs, self._batch_size, lane.index, lane.count):
            if self._drop_last and sum(map(len, batch)) < self._batch_size:
                return
            made = self._made(bins, batch)
            yield made if self._transform is None else self._transform(made)

    def _made(self, bins: _OpenBins, runs: list[Run]) -> Any:
        places: list[_Place] = []
        first = 0
        for run in runs:
            places += bins.places(run, first)
            first += len(run)
        if self._collate is not None:
            return self._collate(_records(places))
        stacked = _stacked(places)
        return places[0][0].codec.collate(_records(places)) if stacked is None else stacked


# Some records of one bin: its reader, their positions in it, and their places in the batch.
_Place = tuple[BinReader, NDArray[np.int64], NDArray[np.int64]]


class _OpenBins:
    """The bins that a batch and the next one read from, each opened once."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._open: dict[int, Any] = {}

    def places(self, run: Run, first: int) -> list[_Place]:
        """Return where the records of a run lie, whose first has the place `first` in the batch."""
        self._open = {number: self._open.get(number) or self._opened(number) for number in run.bins}
        found = []
        for at, number in enumerate(run.bins):
            mine = np.arange(len(run)) if run.which is None else np.flatnonzero(run.which == at)
            if len(mine):
                reader, places = self._open[number]
                positions = run.positions[mine]
                found.append((reader, positions if places is None else places[positions], first + mine))
        return found

    def _opened(self, number: int) -> Any:
        return self._records._open_bin(number, mapped=True)


def _records(places: Sequence[_Place]) -> list[Any]:
    found: list[Any] = [None] * sum(len(mine) for _, _, mine in places)
    for reader, positions, mine in places:
        for place, record in zip(mine.tolist(), reader.records(positions), strict=True):
            found[place] = record
    return found


def _stacked(places: Sequence[_Place]) -> Any:
    """Return the records as the one value that their codec makes of rows of one size; None if it does not."""
    reader, positions, _ = places[0]
    if len(places) == 1:
        return reader.batch(positions)
    rows = [reader.fixed_rows() for reader, _, _ in places]
    first = rows[0]
    if first is None or any(other is None or other.shape[1] != first.shape[1] for other in rows):
        return None
    row = np.dtype((np.void, first.shape[1]))
    gathered = np.empty(sum(len(mine) for _, _, mine in places), row)
    for (_, positions, mine), of_bin in zip(places, rows, strict=True):
        if of_bin is not None:
            gathered[mine] = of_bin.view(row)[:, 0].take(positions)
    return reader.codec.batch(gathered[:, None].view(np.uint8), np.arange(len(gathered)))
