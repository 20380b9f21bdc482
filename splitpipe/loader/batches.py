"""Batches: the generator behind `data.batches(...)`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs import Codec
from splitpipe.errors import CollateError
from splitpipe.lane import Lane, current_lane, enter
from splitpipe.loader.opened import OpenBin, records_of
from splitpipe.memory import empty
from splitpipe.order import Run, cut, plan_epoch, rank_count

if TYPE_CHECKING:
    from splitpipe.loader.records import Records

__all__ = ["Batches"]

Collate = Callable[[list[Any]], Any]  # makes one batch of a list of records


class Batches:
    """Called in each lane of a pipeline, gives that lane's batches: every L-th of its rank's, in turn."""

    starts_anywhere = True

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
        # Of splitpipe's own, nothing draws from the global random generators.
        self.draws = transform is not None or collate is not None

    def total(self) -> int:
        """Return how many batches an epoch has, for all ranks together."""
        whole, rest = divmod(len(self._records), self._batch_size)
        return whole + (rest > 0 and not self._drop_last)

    def fingerprint(self) -> str:
        """Return what tells these batches from others."""
        options = f"batch_size={self._batch_size}, shuffle={self._shuffle}, drop_last={self._drop_last}"
        return f"{self._records.fingerprint()}, {options}, window={self._window}"

    def __call__(self, first: int = 0) -> Iterator[Any]:
        """Return the batches of the current lane and epoch, from number `first` of them on."""
        return _LaneOfBatches(self, current_lane(), first)

    def lane_of_item(self, lane: Lane, item: int) -> Lane:
        """Return the lane that stands for one batch, whose random numbers depend on (seed, epoch, k) alone."""
        number = self._number(lane, item)
        return Lane(number, max(1, self.total()), lane.epoch, lane.seed)

    def _number(self, lane: Lane, item: int) -> int:
        """Return which batch of the epoch an item of a lane is."""
        # The rank's batches are dealt out in turn; padded, they begin anew behind the last.
        return (lane.rank + lane.world_size * (lane.index + item * lane.count)) % max(1, self.total())

    def _cuts(self, lane: Lane, first: int) -> Iterator[list[Run]]:
        """Yield the records of each batch of a lane."""
        total, size = self.total(), self._batch_size
        mine = rank_count(total, lane.rank, lane.world_size, lane.tail)
        step = lane.world_size * lane.count
        at = lane.index + first * lane.count  # among the batches of this rank
        while at < mine:
            number = self._number(lane, at // lane.count)
            runs = plan_epoch(
                self._records._bin_counts(),
                shuffle=self._shuffle,
                seed=lane.seed,
                epoch=lane.epoch,
                window=self._window,
                start=number * size,
                stop=min(total * size, len(self._records)),
            )
            for batch in itertools.islice(cut(runs, size, 0, step), -(-(mine - at) // lane.count)):
                yield batch
                at += lane.count

    def _made(self, bins: _Bins, runs: list[Run]) -> Any:
        made = bins.stacked(runs) if self._collate is None else None
        if made is None:
            codecs, records = bins.records(runs)
            made = _only(codecs).collate(records) if self._collate is None else self._collate(records)
        return made if self._transform is None else self._transform(made)


class _LaneOfBatches(Iterator[Any]):
    """The batches of a lane; an iterator and no generator, so that after one that fails the next can be made."""

    def __init__(self, batches: Batches, lane: Lane, first: int) -> None:
        self._batches, self._lane, self._item = batches, lane, first
        self._cuts = batches._cuts(lane, first)
        self._bins = _Bins(batches._records, batches._window)

    def __next__(self) -> Any:
        runs = next(self._cuts)
        if self._batches.draws:
            enter(self._batches.lane_of_item(self._lane, self._item))  # for the transform's current_lane().rng
        self._item += 1
        return self._batches._made(self._bins, runs)


class _Bins:
    """The bins that a batch and the next one read from, each opened once."""

    def __init__(self, records: Records, window: int) -> None:
        self._records = records
        self._most = 2 * window  # bins of a view are copies of parts: too many would fill the memory
        self._fixed: dict[int, tuple[Codec, NDArray[np.void]] | None] = {}
        self._open: dict[int, OpenBin] = {}

    def stacked(self, runs: list[Run]) -> Any:
        """Return the records of some runs as the one value that their codec makes of them; None if it makes none."""
        first = self._rows(runs[0].bins[0])
        if first is None:
            return None
        codec, rows = first
        payloads = empty(sum(map(len, runs)), rows.dtype)
        begin = 0
        for run in runs:
            end = begin + len(run)
            if not self._take(run, codec, payloads[begin:end]):
                return None
            begin = end
        return codec.batch(payloads)

    def _take(self, run: Run, codec: Codec, out: NDArray[np.void]) -> bool:
        """Copy the payloads of a run to `out`; False if they are not all of its size."""
        found = [self._rows(number) for number in run.bins]
        for at, rows in enumerate(found):
            if rows is None or rows[1].dtype != out.dtype:
                return False
            _only([codec, rows[0]])
            if run.which is None:
                # All positions are from a permutation of the bin's; "clip" spares numpy a second copy.
                rows[1].take(run.positions, out=out, mode="clip")
            else:
                mine = np.flatnonzero(run.which == at)
                out[mine] = rows[1].take(run.positions[mine])
        return True

    def _rows(self, number: int) -> tuple[Codec, NDArray[np.void]] | None:
        if number not in self._fixed:
            if len(self._fixed) > self._most:
                self._fixed.clear()
            self._fixed[number] = self._records._fixed_rows(number)
        return self._fixed[number]

    def records(self, runs: list[Run]) -> tuple[list[Codec], list[Any]]:
        """Return the records of some runs, and the codecs of their bins."""
        self._open = {number: self._open.get(number) or self._opened(number) for run in runs for number in run.bins}
        found: list[Any] = []
        for run in runs:
            found.extend(records_of([self._open[number] for number in run.bins], run))  # `+=` would add an array
        return [reader.codec for reader, _ in self._open.values()], found

    def _opened(self, number: int) -> OpenBin:
        return self._records._open_bin(number, mapped=True)


def _only(codecs: list[Codec]) -> Codec:
    """Return the one codec that all of these are; raises CollateError if they are several."""
    first, *others = codecs
    for other in others:
        if other is not first and (other.name, other.spec()) != (first.name, first.spec()):
            kinds = [f"{each.name} {each.spec() or ''}".strip() for each in (first, other)]
            raise CollateError(
                f"a batch would hold records of {kinds[0]} and of {kinds[1]}: pass collate=list to get them as they "
                "are, or a function of your own that makes one batch of a list of records"
            )
    return first
