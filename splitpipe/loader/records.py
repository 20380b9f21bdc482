"""Records: what every sequence of stored records can do, be it a whole data set, some of it, or several together."""

from __future__ import annotations

import abc
import functools
import itertools
import operator
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitpipe.codecs import Codec
from splitpipe.lane import current_lane, in_lane
from splitpipe.loader.batches import Batches, Collate
from splitpipe.loader.opened import OpenBin, records_of
from splitpipe.order import Run, lane_share, plan_epoch, rank_count, sample, wrapped
from splitpipe.pipeline import MpQItr, find_rank
from splitpipe.storage import ColumnsView

__all__ = ["Records", "View"]

# Records read at a time in bulk: enough that the work per chunk vanishes, few enough to stay in the CPU's cache.
_CHUNK_RECORDS = 1024


class Records(Sequence[Any]):
    """A sequence of stored records, and the orders to read them in."""

    _next_epoch = 0  # of passes outside a pipeline, where nobody else counts them

    @abc.abstractmethod
    def _read(self, number: int) -> Any:
        """Return the record `number`, from 0 to len - 1."""

    @abc.abstractmethod
    def _read_many(self, numbers: NDArray[np.int64], threads: int) -> Any:
        """Return the records with these numbers, each from 0 to len - 1: a list, or, of codec `struct`, an array."""

    @abc.abstractmethod
    def _bin_counts(self) -> Sequence[int]:
        """Return how many of these records each bin holds."""

    @abc.abstractmethod
    def _open_bin(self, number: int, *, mapped: bool = False) -> OpenBin:
        """Return a bin, numbered as in `_bin_counts`."""

    @abc.abstractmethod
    def _fixed_rows(self, number: int) -> tuple[Codec, NDArray[np.void]] | None:
        """Return a bin's codec and payloads, if all payloads have one size, as an array of items of that size."""

    @abc.abstractmethod
    def _locate(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for each record, its bin, numbered as in `_bin_counts`, and what `BinReader.positions` takes."""

    @abc.abstractmethod
    def _columns(self) -> ColumnsView:
        """Return the columns that every record has; what is returned must not refer to this object."""

    @overload
    def __getitem__(self, key: int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> View: ...
    @overload
    def __getitem__(self, key: Sequence[int] | NDArray[Any]) -> Any: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a record for a number, a view for a slice, many records for a list or array of numbers.

        Raises:
            IndexError: there is no such record.
            CorruptDataError: the bytes on disk are not those committed.
        """
        if type(key) is int and 0 <= key < len(self):  # first, for it is by far the most frequent
            return self._read(key)
        if isinstance(key, slice):
            return self._view(range(len(self))[key])
        if isinstance(key, list | np.ndarray) or (isinstance(key, Sequence) and not isinstance(key, str | bytes)):
            return self.gather(key)
        return self._read(_position(key, len(self)))

    def gather(self, ids: ArrayLike, *, threads: int = 0) -> Any:
        """Return the records numbered `ids`, a sequence or array of integers, in the order asked for.

        They come as a list; of codec "struct", as one array.

        Negative numbers count from the end, and a number may come more than once.

        Args:
            ids: the numbers.
            threads: read with so many threads, sorted, each place once and neighbours together, for storage that is
                slow to answer (disks that seek, networks); what lies in memory already is faster without.

        Raises:
            IndexError: there is no record of one of the numbers, or `ids` are not integers.
            CorruptDataError: the bytes on disk are not those committed.
        """
        return self._read_many(_positions(ids, len(self)), threads)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _CHUNK_RECORDS):
            yield from self._read_many(np.arange(start, min(start + _CHUNK_RECORDS, len(self))), 0)

    def select(self, which: ArrayLike) -> View:
        """Return a view of some records: by a boolean mask with one element per record, or by their numbers.

        No record is read: `data.select(data.columns["label"] == 3)`.

        Raises:
            IndexError: there is no record of one of the numbers, or the mask is of another length.
        """
        mask = np.ma.filled(which, False) if isinstance(which, np.ma.MaskedArray) else np.asarray(which)
        if mask.dtype.kind != "b":
            return self._view(_positions(mask, len(self)))
        if mask.shape != (len(self),):
            raise IndexError(f"a mask has one element per record, {len(self)}, and got shape {mask.shape}")
        return self._view(np.flatnonzero(mask))

    def sample(self, n: int, replace: bool = False, seed: int = 0) -> View:
        """Return a view of `n` records drawn at random, the same ones for the same seed.

        Args:
            n: how many.
            replace: whether a record may be drawn more than once.
            seed: what the draw starts from.

        Raises:
            ValueError: there are not so many records.
        """
        if n < 0 or (n > len(self) and not replace) or (n and not len(self)):
            raise ValueError(f"cannot draw {n} of {len(self)} records" + ("" if replace else " without replace=True"))
        return self._view(sample(len(self), n, replace=replace, seed=seed))

    def _view(self, ids: range | NDArray[np.int64]) -> View:
        return View(self, ids)

    def fingerprint(self) -> str:
        """Return what tells this sequence of records from another, for a saved state to be refused elsewhere."""
        return f"{len(self)} records ({zlib.crc32(self._identity()):08x})"

    def _identity(self) -> bytes:
        return np.asarray(self._bin_counts(), "<i8").tobytes()

    @functools.cached_property
    def columns(self) -> ColumnsView:
        """The columns: name to an array with one element per record, loaded when first asked for."""
        return self._columns()

    def iterate_binwise(
        self, shuffle: bool = False, seed: int | None = None, epoch: int | None = None, *, window: int = 1
    ) -> Iterator[Any]:
        """Return an iterator over the records, bin by bin: the fast way through a data set larger than memory.

        Inside a pipeline's generator it yields that lane's share, so the lanes together yield every record once.

        Args:
            shuffle: permute the bins, and the records within each, as a function of `seed` and `epoch` alone.
            seed: what the shuffle starts from; by default the pipeline's seed, and 0 outside one.
            epoch: which pass this is; by default the pipeline's epoch, and outside one the number of passes that
                this object has begun before, so that each pass has another order.
            window: mix the records of so many bins with each other; more mixes better and holds more in memory.

        Raises:
            CorruptDataError: the bytes on disk are not those committed.
            ValueError: `seed` or `epoch` is negative, or `window` is less than 1.
        """
        lane = current_lane()
        seed, epoch = self._seed_and_epoch(seed, epoch)
        if window < 1:
            raise ValueError(f"window is a number of bins, at least 1, and got {window}")
        pieces = wrapped(*lane_share(len(self), lane), len(self))
        return itertools.chain.from_iterable(
            self._sequence(start, stop, shuffle=shuffle, seed=seed, epoch=epoch, window=window)
            for start, stop in pieces
        )

    def _seed_and_epoch(self, seed: int | None, epoch: int | None) -> tuple[int, int]:
        lane = current_lane()
        if epoch is None:
            epoch = lane.epoch if in_lane() else self._next_epoch
            if not in_lane():
                self._next_epoch += 1
        seed = lane.seed if seed is None else seed
        if seed < 0 or epoch < 0:
            raise ValueError(f"seed and epoch count from 0, and got seed={seed}, epoch={epoch}")
        return seed, epoch

    def _sequence(
        self, start: int, stop: int, *, shuffle: bool, seed: int, epoch: int, window: int = 1
    ) -> Iterator[Any]:
        """Return an iterator over the records from place `start` to `stop - 1` of an epoch's sequence."""
        plan = plan_epoch(
            self._bin_counts(), shuffle=shuffle, seed=seed, epoch=epoch, window=window, start=start, stop=stop
        )
        # Chained in C: a generator that yields each record would cost a tenth of the whole.
        return itertools.chain.from_iterable(self._chunks(plan))

    def _chunks(self, plan: Iterator[Run]) -> Iterator[Any]:
        for run in plan:
            bins = [self._open_bin(number) for number in run.bins]
            for first in range(0, len(run), _CHUNK_RECORDS):
                yield records_of(bins, run.part(first, first + _CHUNK_RECORDS))

    def batches(
        self,
        batch_size: int,
        shuffle: bool = True,
        transform: Any = None,
        drop_last: bool = False,
        workers: int | str = 0,
        *,
        collate: Collate | None = None,
        window: int = 1,
        **options: Any,
    ) -> MpQItr[Any]:
        """Return a pipeline of batches; each pass over it is the next epoch.

        A batch of `struct` records is one array; one of `tree` records is one tree whose arrays and numbers are
        stacked along a new first axis, its str and bytes in lists; of other records, a list. Rows of one size are
        taken straight from the mapped files, without any Python per record. Which records batch *k* holds depends on
        (seed, epoch, *k*) alone, not on workers or lanes, and so does what `transform` draws at random.

        Args:
            batch_size: records in a batch.
            shuffle: permute as `iterate_binwise` does.
            transform: called with each batch, in the worker; what it returns is yielded.
            drop_last: leave out the last batch of an epoch if it is not full.
            workers: how many processes; 0 does it in the calling thread.
            collate: makes one batch of a list of records, instead of the above; `list` leaves them as they are.
            window: mix the records of so many bins with each other.
            options: of `MpQItr`.

        Raises:
            ValueError: `batch_size` or `window` is less than 1.
            CollateError: when read: records of a batch differ in structure or shape.
            CorruptDataError: when read: the bytes on disk are not those committed.
        """
        batch_size, window = operator.index(batch_size), operator.index(window)
        if batch_size < 1 or window < 1:
            raise ValueError(f"batch_size and window are at least 1, and got {batch_size} and {window}")
        make = Batches(self, batch_size, shuffle, transform, drop_last, collate, window)
        current_lane()  # in a pipeline's generator these are the batches of its lane, which so is asked for
        rank, world_size = find_rank(options.get("rank"), options.get("world_size"))
        tail = options.get("tail") or ("uneven" if in_lane() else "drop")
        length = rank_count(make.total(), rank, world_size, tail)
        return MpQItr(make, workers=workers, **{"length": length, **options})


class View(Records):
    """Some records of another sequence, as a sequence; holds no record, and pickles small."""

    def __init__(self, parent: Records, ids: range | NDArray[np.int64]) -> None:
        self._parent = parent
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def _numbers(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what the parent calls these records."""
        if isinstance(self._ids, range):
            return self._ids.start + self._ids.step * numbers
        return self._ids[numbers]

    def _view(self, ids: range | NDArray[np.int64]) -> View:
        # A view of a view is a view of the whole, so that reading does not get slower with each.
        if isinstance(self._ids, range) and isinstance(ids, range):
            start, step = self._ids.start + self._ids.step * ids.start, self._ids.step * ids.step
            return View(self._parent, range(start, start + step * len(ids), step))
        return View(self._parent, self._numbers(np.asarray(ids, np.int64)))

    def _read(self, number: int) -> Any:
        return self._parent._read(int(self._ids[number]))

    def _read_many(self, numbers: NDArray[np.int64], threads: int) -> Any:
        return self._parent._read_many(self._numbers(numbers), threads)

    def _bins(self) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
        """Return the parent's bins that hold these records, and for each what its reader calls them; made once."""
        if "_grouped" not in self.__dict__:
            bins, keys = self._parent._locate(self._numbers(np.arange(len(self))))
            order = np.lexsort((keys, bins))
            used, firsts = np.unique(bins[order], return_index=True)
            self._grouped = used, np.split(keys[order], firsts[1:])
        return self._grouped

    def _bin_counts(self) -> Sequence[int]:
        return [len(keys) for keys in self._bins()[1]] if len(self) else []

    def _open_bin(self, number: int, *, mapped: bool = False) -> OpenBin:
        used, keys = self._bins()
        reader, _ = self._parent._open_bin(int(used[number]), mapped=mapped)
        return reader, reader.positions(keys[number])

    def _fixed_rows(self, number: int) -> tuple[Codec, NDArray[np.void]] | None:
        used, keys = self._bins()
        found = self._parent._fixed_rows(int(used[number]))
        if found is None:
            return None
        codec, rows = found
        reader, _ = self._parent._open_bin(int(used[number]), mapped=True)
        return codec, rows.take(reader.positions(keys[number]))

    def _locate(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        bins, keys = self._parent._locate(self._numbers(numbers))
        return np.searchsorted(self._bins()[0], bins), keys

    def _identity(self) -> bytes:
        ids = repr(self._ids).encode() if isinstance(self._ids, range) else self._ids.tobytes()
        return self._parent._identity() + ids

    def _columns(self) -> ColumnsView:
        ids = slice(*_bounds(self._ids)) if isinstance(self._ids, range) else self._ids
        return ColumnsView(self._parent.columns, functools.partial(_some_of, self._parent.columns, ids))

    def __getstate__(self) -> Mapping[str, Any]:
        ids: Any = self._ids
        if not isinstance(ids, range):
            ids = _packed(ids, len(self._parent))
        return {"parent": self._parent, "ids": ids}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._parent = state["parent"]
        self._ids = state["ids"] if isinstance(state["ids"], range) else _unpacked(*state["ids"])

    def __repr__(self) -> str:
        return f"<View of {len(self)} records of {self._parent!r}>"


def _some_of(columns: Mapping[str, NDArray[Any]], ids: Any, name: str) -> NDArray[Any]:
    values: NDArray[Any] = columns[name][ids]
    return values


def _bounds(ids: range) -> tuple[int | None, int | None, int]:
    """Return `ids` as the parts of a slice."""
    if not len(ids):
        return 0, 0, 1
    return ids.start, (None if ids.stop < 0 else ids.stop), ids.step


def _packed(ids: NDArray[np.int64], total: int) -> tuple[str, bytes]:
    """Return `ids` as few bytes: one bit per record of the whole, if that is less than the numbers themselves."""
    numbers = ids.astype("<u4" if total <= 1 << 32 else "<u8")
    if len(ids) and (np.diff(ids) > 0).all() and total // 8 < numbers.nbytes:
        mask = np.zeros(total, np.bool_)
        mask[ids] = True
        return "mask", np.packbits(mask).tobytes()
    return numbers.dtype.str, numbers.tobytes()


def _unpacked(kind: str, data: bytes) -> NDArray[np.int64]:
    if kind == "mask":
        return np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8)))
    return np.frombuffer(data, kind).astype(np.int64)


def _position(key: Any, length: int) -> int:
    """Return `key` as a number from 0 to `length - 1`."""
    try:
        number = operator.index(key)
    except TypeError:
        raise TypeError(
            f"records are numbered: the index is an int, a slice, or a list of ints, and got {type(key).__qualname__}"
        ) from None
    if not -length <= number < length:
        raise IndexError(f"no record {number}: there are {length}, numbered 0 to {length - 1}")
    return number + length if number < 0 else number


def _positions(ids: ArrayLike, length: int) -> NDArray[np.int64]:
    """Return `ids` as numbers from 0 to `length - 1`, int64, one-dimensional."""
    array = np.ascontiguousarray(ids)
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise IndexError(
            f"record numbers are a one-dimensional sequence of integers, and got shape {array.shape} of {array.dtype}"
        )
    numbers: NDArray[np.int64] = array.astype(np.int64, copy=False)
    if numbers.view(np.uint64).max() < length:  # nearly always: a negative number would look huge
        return numbers
    if numbers.min() < -length or numbers.max() >= length:
        wrong = int(numbers[(numbers < -length) | (numbers >= length)][0])
        raise IndexError(f"no record {wrong}: there are {length}, numbered 0 to {length - 1}")
    return np.where(numbers < 0, numbers + length, numbers)
