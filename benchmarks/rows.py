"""How fast do rows of one size come in shuffled batches, beside numpy in memory, numpy.memmap and h5py?

Method: rows of 784 random bytes (28 x 28 pixels), in batches of 256, every row once in random order. Whoever
reads by number draws the permutation while the clock runs. All is read from the page cache. The first pass of
every reader is not timed and compares count, sum and CRC of all rows. In the timed passes, the clock runs while
a batch is made, and stands still while the sum over the last bytes of its rows is formed, which must be right in
the end; nothing works in the background meanwhile.

    first epoch    open, then all rows; splitpipe checks every CRC on the way
    later epoch    all rows, on a handle that has read them before

`splitpipe tree` holds each row as an image in a dict with an int label. numpy.take has nothing to open: it does
the same in both. h5py has its numbers sorted within each batch, because it takes them in no other order.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.harness import Report, Sample, Task, measure, options, present
from benchmarks.peers.rowsources import BATCH, SOURCES, Rows, RowSource

__all__ = ["main"]

_WIDTH = 784


class WrongRowsError(Exception):
    """A contender returned other rows than were written."""


@dataclass(frozen=True)
class Sum:
    """What rows add up to, in whatever order they come."""

    rows: int = 0
    values: int = 0
    crcs: int = 0

    @classmethod
    def of(cls, batches: Iterable[Rows]) -> Sum:
        """Add up rows completely, every byte of them."""
        count = values = crcs = 0
        for rows in batches:
            count += len(rows)
            values += int(rows.sum())
            crcs += sum(map(zlib.crc32, np.ascontiguousarray(rows)))
        return cls(count, values, crcs)


def make_rows(count: int) -> Rows:
    """Return rows of random bytes, shape (count, 784)."""
    return np.random.default_rng(0).integers(0, 256, (count, _WIDTH), dtype=np.uint8)


class Epochs:
    """The workloads over one array of rows; each takes a source and returns one timed run."""

    def __init__(self, rows: Rows) -> None:
        self._all = Sum.of([rows])
        self._size = rows.nbytes
        self._last_bytes = int(rows[:, -1].sum())
        self.by_name: dict[str, Callable[[RowSource], Sample]] = {
            "first epoch": self.first_epoch,
            "later epoch": lambda source: self._read(source, source.epoch),
        }

    def check(self, source: RowSource) -> None:
        """Read everything, and raise unless it is what was written, in batches of the right size."""
        batches = [_rows_of(source, batch) for batch in source.epoch()]
        if any(len(rows) != BATCH for rows in batches[:-1]):
            raise WrongRowsError(f"{source.name}: not all batches are of {BATCH} rows")
        if (got := Sum.of(batches)) != self._all:
            raise WrongRowsError(f"{source.name}: read {got}, expected {self._all}")

    def first_epoch(self, source: RowSource) -> Sample:
        """Time a pass that starts with opening the data."""
        source.close()

        def read() -> Iterator[Any]:
            source.open()
            return source.epoch()

        return self._read(source, read)

    def _read(self, source: RowSource, read: Callable[[], Iterator[Any]]) -> Sample:
        count = last_bytes = 0
        start = perf_counter()
        batches = read()
        seconds = perf_counter() - start
        while True:
            start = perf_counter()
            batch = next(batches, None)
            seconds += perf_counter() - start
            if batch is None:
                break
            rows = _rows_of(source, batch)
            count += len(rows)
            last_bytes += int(rows[:, -1].sum())
        if (count, last_bytes) != (self._all.rows, self._last_bytes):
            raise WrongRowsError(f"{source.name}: the rows read are not those that were written")
        return Sample(seconds, count, self._size)


def _rows_of(source: RowSource, batch: Any) -> Rows:
    try:
        return source.rows_of(batch)
    except ValueError as error:
        raise WrongRowsError(f"{source.name}: {error}") from error


WORKLOADS = ("first epoch", "later epoch")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark as the command line asks."""
    parser = options(str(__doc__), [source.name for source in SOURCES], WORKLOADS)
    parser.add_argument("--rows", type=int, default=60_000, metavar="N", help="default 60,000")
    args = parser.parse_args(argv)
    able, absent = present(SOURCES, args.only)
    report = Report(f"rows: {args.rows:,} rows of {_WIDTH} bytes, shuffled, in batches of {BATCH}", able, absent)
    with tempfile.TemporaryDirectory(prefix="splitpipe-bench-") as scratch:
        rows = make_rows(args.rows)
        epochs = Epochs(rows)
        sources = [source(Path(scratch) / source.name) for source in able]
        for source in sources:
            source.write(rows)
            source.open()
            epochs.check(source)
        for name in args.workload or WORKLOADS:
            run = epochs.by_name[name]
            tasks = [Task(source.name, partial(run, source), source.note) for source in sources]
            report.add(measure(name, tasks, args.repeats))
        for source in sources:
            source.close()
    report.show()
    if args.json:
        report.save(args.json)


if __name__ == "__main__":
    main()
