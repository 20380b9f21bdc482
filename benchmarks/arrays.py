"""How fast are named arrays, beside numpy in memory, numpy.memmap, h5py and bigarray?

The array is of the shape of bigarray's own benchmark, (rows, 25, 128) of float64, and so are the workloads; all is
read from the page cache. What is written is synced to disk before the clock stops. An item of `iterate` is a slice of
256 rows, three passes, as there: nothing but the slice is made, and of h5py it is read. `iterate, summed` adds up one
number of each row too, which must be right in the end; the first and last slice of every pass are compared always.

    create          make the file
    write           write the array, sync, close
    load            open it again; numpy reads all of it
    iterate         slices, for the first time after opening
    iterate again   once more
    iterate, summed with a look at each row

`MmapDict` is measured alone, as nobody else does what it does: a dictionary of `--keys` small values is opened, read
by key at random, and added to; one of a thousand keys is added to for comparison; and an array of `--gigabytes` that is
not in memory is opened, and one of its elements read.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Report, Sample, Task, measure, options, present, spread
from benchmarks.peers.arraystores import ARRAYS, SLICE, ArrayStore
from splitpipe import EmptyNDArray, MmapDict

__all__ = ["main"]

_ROW = (25, 128)
_PASSES = 3
_OPERATIONS = 2000  # of the dictionary, timed together


class WrongArrayError(Exception):
    """A contender returned another array than was written."""


class Runs:
    """The workloads over one array; each takes a store and returns one timed run."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self._sum = float(array[:, 0, 0].sum())
        self.by_name: dict[str, Callable[[ArrayStore], Sample]] = {
            "create": self.create,
            "write": self.write,
            "load": self.load,
            "iterate": lambda store: self.iterate(store, again=False),
            "iterate again": lambda store: self.iterate(store, again=True),
            "iterate, summed": self.summed,
        }

    def check(self, store: ArrayStore) -> None:
        """Raise unless every slice is what was written."""
        loaded = store.load()
        for number, rows in enumerate(store.slices(loaded)):
            self._compare(store, rows, number * SLICE)
        store.release()

    def _compare(self, store: ArrayStore, rows: Any, start: int) -> None:
        if not np.array_equal(rows, self._array[start : start + SLICE]):
            raise WrongArrayError(f"{store.name}: rows from {start} on are not those that were written")

    def create(self, store: ArrayStore) -> Sample:
        """Time making the file, and write it afterwards."""
        store.path.unlink(missing_ok=True)
        start = perf_counter()
        store.create(self._array.shape, self._array.dtype)
        seconds = perf_counter() - start
        store.write(self._array)
        return Sample(seconds, 1, self._array.nbytes)

    def write(self, store: ArrayStore) -> Sample:
        """Time writing to a new file."""
        store.path.unlink(missing_ok=True)
        store.create(self._array.shape, self._array.dtype)
        start = perf_counter()
        store.write(self._array)
        return Sample(perf_counter() - start, 1, self._array.nbytes)

    def load(self, store: ArrayStore) -> Sample:
        """Time opening."""
        start = perf_counter()
        loaded = store.load()
        seconds = perf_counter() - start
        self._compare(store, loaded[:SLICE], 0)
        store.release()
        return Sample(seconds, 1, self._array.nbytes)

    def iterate(self, store: ArrayStore, *, again: bool) -> Sample:
        """Time slices alone."""
        loaded = store.load()
        seconds = self._passes(store, loaded)
        if again:
            seconds = self._passes(store, loaded)
        store.release()
        return Sample(seconds, _PASSES * -(-len(self._array) // SLICE), _PASSES * self._array.nbytes)

    def _passes(self, store: ArrayStore, loaded: Any) -> float:
        starts = range(0, len(self._array), SLICE)
        rows = None
        start = perf_counter()
        for _ in range(_PASSES):
            for at in starts:
                rows = loaded[at : at + SLICE]
        seconds = perf_counter() - start
        self._compare(store, loaded[:SLICE], 0)
        self._compare(store, rows, starts[-1])
        return seconds

    def summed(self, store: ArrayStore) -> Sample:
        """Time slices with a sum over one number of each row."""
        loaded = store.load()
        total = 0.0
        start = perf_counter()
        for at in range(0, len(self._array), SLICE):
            total += float(loaded[at : at + SLICE][:, 0, 0].sum())
        seconds = perf_counter() - start
        store.release()
        if abs(total - self._sum) > 1e-6 * abs(self._sum):
            raise WrongArrayError(f"{store.name}: the sum is {total}, and should be {self._sum}")
        return Sample(seconds, -(-len(self._array) // SLICE), self._array.nbytes)


WORKLOADS = ("create", "write", "load", "iterate", "iterate again", "iterate, summed", "dict")


def dictionary(scratch: Path, keys: int, gigabytes: float, repeats: int) -> dict[str, list[float]]:
    """Measure `MmapDict`; return microseconds for each operation, one for each repeat."""
    path = scratch / "dict.pickle"
    large, small = MmapDict(path), MmapDict(scratch / "small.pickle")
    large.update({f"key {i}": i for i in range(keys)})
    large["array"] = EmptyNDArray((int(gigabytes * (1 << 27)),), "f8")
    large["array"][-1] = 1.0
    small.update({f"key {i}": i for i in range(1000)})
    found: dict[str, list[float]] = {}

    def timed(name: str, count: int, run: Callable[[], Any]) -> Any:
        start = perf_counter()
        result = run()
        found.setdefault(name, []).append((perf_counter() - start) / count * 1e6)
        return result

    for repeat in range(repeats):
        opened = timed("open", 1, lambda: MmapDict(path))
        names = [f"key {number}" for number in random.Random(repeat).choices(range(keys), k=_OPERATIONS)]
        values = timed("get", _OPERATIONS, partial(_get, opened, names))
        if values != [int(name[4:]) for name in names]:
            raise WrongArrayError("splitpipe: the values are not those that were stored")
        if timed(f"open an array of {gigabytes:g} GiB", 1, partial(_last, opened)) != 1.0:
            raise WrongArrayError("splitpipe: the array is not the one that was stored")
        for label, target in ((f"insert, {keys:,} keys", opened), ("insert, 1,000 keys", small)):
            timed(label, _OPERATIONS, partial(_insert, target, repeat))
        for target in (opened, small):
            for number in range(_OPERATIONS):
                del target[f"new {repeat} {number}"]
        opened.close()
    return found


def _get(target: MmapDict, names: list[str]) -> list[Any]:
    return [target[name] for name in names]


def _last(target: MmapDict) -> float:
    return float(target["array"][-1])


def _insert(target: MmapDict, repeat: int) -> None:
    for number in range(_OPERATIONS):
        target[f"new {repeat} {number}"] = number


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark as the command line asks."""
    parser = options(str(__doc__), [store.name for store in ARRAYS], WORKLOADS)
    parser.add_argument("--rows", type=int, default=20_000, metavar="N", help="default 20,000, which are 512 MB")
    parser.add_argument("--keys", type=int, default=100_000, metavar="N", help="of the dictionary; default 100,000")
    parser.add_argument("--gigabytes", type=float, default=1.0, metavar="N", help="of its array; default 1")
    args = parser.parse_args(argv)
    able, absent = present(ARRAYS, args.only)
    chosen = args.workload or WORKLOADS
    report = Report(f"arrays: {args.rows:,} rows of 25 x 128 float64, in slices of {SLICE}", able, absent)
    with tempfile.TemporaryDirectory(prefix="splitpipe-bench-") as scratch:
        if set(chosen) - {"dict"}:
            runs = Runs(np.random.default_rng(0).random((args.rows, *_ROW)))
            stores = [store(Path(scratch) / store.name) for store in able]
            for store in stores:
                runs.create(store)
                runs.check(store)
            for name in chosen:
                if name in runs.by_name:
                    tasks = [Task(store.name, partial(runs.by_name[name], store), store.note) for store in stores]
                    report.add(measure(name, tasks, args.repeats))
        if "dict" in chosen and (not args.only or "splitpipe" in args.only):
            for name, costs in dictionary(Path(scratch), args.keys, args.gigabytes, args.repeats).items():
                report.remark(f"MmapDict, {args.keys:,} keys: {name}: {spread(costs, ',.1f')} µs", costs)
    report.show()
    if args.json:
        report.save(args.json)


if __name__ == "__main__":
    main()
