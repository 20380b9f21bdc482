"""How fast do records go to disk and come back, beside LMDB, bagz, array_record and splitdataloader?

Method: records of 100 to 1000 random bytes, the same for all. Every writer has its bytes on the disk before
the clock stops: splitpipe and LMDB (one transaction, `sync=True`) do that on commit; for bagz, array_record
and splitdataloader `fsync` of every file follows, on the clock. Reading is from the page cache, through one
open handle. The first pass of every reader over the records is not timed and compares every byte (count,
lengths and CRCs; that is also when splitpipe verifies its bins); the timed passes touch each record and
compare the sum of the last bytes, so that a reader that returns something else cannot win.

    write          all records into a new directory
    open           open, ask for the length, read one record
    get            single records at random positions
    gather         256 records at random positions with each call
    scan           all records, in whichever order is cheapest
    first epoch    open, then all records shuffled; splitpipe checks every CRC on the way
    later epoch    all records shuffled, on a handle that has read them before

LMDB, bagz and array_record have no shuffled epoch: LMDB is shown with its sequential scan, bagz with reads
along a permutation, array_record with batched reads along one. Data lies in a temporary directory (set TMPDIR
to choose the disk) that is removed at the end.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.harness import Report, Row, Sample, Task, measure, options, present
from benchmarks.peers.stores import STORES, Store

__all__ = ["main"]

_READS = 10_000  # records read by `get` and by `gather`
_BATCH = 256
_OPENS = 20  # `open` is short: time this many together
_last_byte = itemgetter(-1)


class WrongRecordsError(Exception):
    """A contender returned other records than were written."""


@dataclass(frozen=True)
class Sum:
    """What records add up to, in whatever order they come: cheap enough to be formed while the clock runs."""

    items: int
    size: int
    last_bytes: int
    crcs: int

    @classmethod
    def of(cls, records: Iterable[bytes]) -> Sum:
        """Add up records completely, every byte of them."""
        items = size = last_bytes = crcs = 0
        for record in records:
            items += 1
            size += len(record)
            last_bytes += record[-1]
            crcs += zlib.crc32(record)
        return cls(items, size, last_bytes, crcs)


def make_records(count: int) -> list[bytes]:
    """Return `count` records of 100 to 1000 random bytes."""
    rng = np.random.default_rng(0)
    ends = np.cumsum(rng.integers(100, 1001, count)).tolist()
    noise = rng.bytes(ends[-1])
    return [noise[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class Workloads:
    """The workloads over one list of records; each takes a store and returns one timed run."""

    def __init__(self, records: Sequence[bytes], scratch: Path) -> None:
        self._records = records
        self._scratch = scratch
        self._all = Sum.of(records)
        self._ids: list[int] = np.random.default_rng(1).integers(len(records), size=_READS).tolist()
        self._batches = [self._ids[start : start + _BATCH] for start in range(0, _READS, _BATCH)]
        self._some = Sum.of(records[i] for i in self._ids)
        self.by_name: dict[str, Callable[[Store], Sample]] = {
            "write": self.write,
            "open": self.open,
            "get": lambda store: self._read(store, lambda: store.get(self._ids), self._some),
            "gather": lambda store: self._read(store, lambda: store.gather(self._batches), self._some),
            "scan": lambda store: self._read(store, store.scan, self._all),
            "first epoch": self.first_epoch,
            "later epoch": lambda store: self._read(store, store.shuffled, self._all),
        }

    def check(self, store: Store) -> None:
        """Read everything in every way, and raise unless all of it is what was written."""
        readings = {
            "get": (store.get(self._ids), self._some),
            "gather": (store.gather(self._batches), self._some),
            "scan": (store.scan(), self._all),
            "shuffled": (store.shuffled(), self._all),
        }
        for way, (records, expected) in readings.items():
            if (got := Sum.of(records)) != expected:
                raise WrongRecordsError(f"{store.name}, {way}: read {got}, expected {expected}")

    def write(self, store: Store) -> Sample:
        """Time a write into a new directory, and remove it."""
        target = self._scratch / "write"
        start = perf_counter()
        store.write(target, self._records)
        seconds = perf_counter() - start
        shutil.rmtree(target)
        return Sample(seconds, self._all.items, self._all.size)

    def open(self, store: Store) -> Sample:
        """Time opening up to the first record, some times in a row."""
        middle = len(self._records) // 2
        store.close()  # unmapping all that was read before is not what is timed
        store.open()
        start = perf_counter()
        for _ in range(_OPENS):
            store.close()
            store.open()
            if store.length() != self._all.items:
                raise WrongRecordsError(f"{store.name}: {store.length()} records, not {self._all.items}")
            (record,) = store.get([middle])
        seconds = perf_counter() - start
        if record != self._records[middle]:
            raise WrongRecordsError(f"{store.name}: another record than was written at {middle}")
        deque(store.scan(), maxlen=0)  # the new handle is to know what the old one knew: all records verified
        return Sample(seconds, _OPENS, _OPENS * len(record))

    def first_epoch(self, store: Store) -> Sample:
        """Time a shuffled pass that starts with opening the data."""
        store.close()

        def read() -> Iterator[bytes]:
            store.open()
            return store.shuffled()

        return self._read(store, read, self._all)

    def _read(self, store: Store, read: Callable[[], Iterator[bytes]], expected: Sum) -> Sample:
        start = perf_counter()
        last_bytes = sum(map(_last_byte, read()))
        seconds = perf_counter() - start
        if last_bytes != expected.last_bytes:
            raise WrongRecordsError(f"{store.name}: the records read are not those that were written")
        return Sample(seconds, expected.items, expected.size)


WORKLOADS = ("write", "open", "get", "gather", "scan", "first epoch", "later epoch")


def _rows(name: str, workloads: Workloads, stores: Sequence[Store], repeats: int) -> list[Row]:
    run = workloads.by_name[name]
    notes = {store: store.shuffle_note if name.endswith("epoch") else "" for store in stores}
    return measure(name, [Task(store.name, partial(run, store), notes[store]) for store in stores], repeats)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark as the command line asks."""
    parser = options(str(__doc__), [store.name for store in STORES], WORKLOADS)
    parser.add_argument("--records", type=int, default=100_000, metavar="N", help="default 100,000")
    args = parser.parse_args(argv)
    able, absent = present(STORES, args.only)
    report = Report(f"storage: {args.records:,} records of 100 to 1000 bytes", able, absent)
    with tempfile.TemporaryDirectory(prefix="splitpipe-bench-") as scratch:
        records = make_records(args.records)
        workloads = Workloads(records, Path(scratch))
        stores = [store(Path(scratch) / store.name) for store in able]
        for store in stores:
            store.write(store.directory, records)
            store.open()
            workloads.check(store)
        for name in args.workload or WORKLOADS:
            report.add(_rows(name, workloads, stores, args.repeats))
        for store in stores:
            store.close()
    report.show()
    if args.json:
        report.save(args.json)


if __name__ == "__main__":
    main()
