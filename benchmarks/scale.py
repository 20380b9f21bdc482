"""What does a large data set cost: to open, to read from at random, in each process that has it open?

Method: each record holds its own number, so that whatever is read can be compared. Timed runs of the smaller and
the larger set take turns; the table shows the ratio to the smaller one. What is read lies in the page cache.

    open      open, ask for the length, read one record
    get       single records at random positions, other positions in each run, on a handle that has read every
              record before and touched every page of its maps
    memory    the private memory (USS) of processes that have the large set of `open` open and each have read
              `--reads` random records by number and as many by gather, all of them alive while it is taken;
              beside it, that of as many processes that have imported numpy and nothing else

Data lies in a temporary directory (set TMPDIR to choose the disk) that is removed at the end:
up to 3 GB at a time.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil

import splitpipe
from benchmarks.harness import Report, Row, Sample, Task, measure, options, spread
from benchmarks.peers.stores import SplitpipeStore

__all__ = ["main"]

WORKLOADS = ("open", "get", "memory")
_NAMES = _SMALL, _LARGE = "smaller", "larger"
_OPEN, _OPEN_BYTES = (10_000, 10_000_000), 100
_GET, _GET_BYTES = (1_000_000, 50_000_000), 32
_OPENS = 20  # `open` is short: time this many together
_WARM = 10  # one record in so many is read before `get` is timed: every page of the maps is touched
_ROOT = Path(__file__).parents[1]  # where a reader finds `benchmarks`
_last_byte = itemgetter(-1)


class WrongNumberError(Exception):
    """A record was read that is not the one of its number."""


class Numbered:
    """A data set whose records are their own numbers, in so many bytes each.

    Args:
        directory: where it is written to.
        count: how many records.
        size: bytes of each.
    """

    def __init__(self, directory: Path, count: int, size: int) -> None:
        self.directory = directory
        self.count = count
        self.size = size
        self._rng = np.random.default_rng(0)

    def write(self) -> None:
        """Write the records."""
        splitpipe.write_split_data(self.directory, (number.to_bytes(self.size, "big") for number in range(self.count)))

    def data(self) -> Sequence[bytes]:
        """Open the records."""
        return splitpipe.SplitDataLoader(self.directory)

    def warmed(self) -> Sequence[bytes]:
        """Open the records, read them all, compare, and touch every page of the maps."""
        data = splitpipe.SplitDataLoader(self.directory)
        expected = sum(range(256)) * (self.count // 256) + sum(range(self.count % 256))
        if (got := sum(map(_last_byte, data.iterate_binwise()))) != expected:
            raise WrongNumberError(f"{self.directory}: the last bytes add up to {got}, not {expected}")
        for _ in range(0, self.count, 1000 * _WARM):
            data.gather(self._rng.integers(self.count, size=1000))
        return data

    def open(self) -> Sample:
        """Time opening up to the first record, some times in a row."""
        middle = self.count // 2
        start = perf_counter()
        for _ in range(_OPENS):
            data = self.data()
            length, record = len(data), data[middle]
        seconds = perf_counter() - start
        if (length, int.from_bytes(record, "big")) != (self.count, middle):
            raise WrongNumberError(f"{self.directory}: {length} records, not {self.count}, or another at {middle}")
        return Sample(seconds, _OPENS, _OPENS * self.size)

    def get(self, data: Sequence[bytes], reads: int) -> Sample:
        """Time reading single records at random."""
        numbers = self._rng.integers(self.count, size=reads)
        expected, ids = int((numbers & 255).sum()), numbers.tolist()
        start = perf_counter()
        last_bytes = sum(map(_last_byte, map(data.__getitem__, ids)))
        seconds = perf_counter() - start
        if last_bytes != expected:
            raise WrongNumberError(f"{self.directory}: the records read are not those that were asked for")
        return Sample(seconds, reads, reads * self.size)


@contextlib.contextmanager
def written(counts: Sequence[int], size: int) -> Iterator[list[Numbered]]:
    """Write a smaller and a larger set into a temporary directory, and remove them in the end."""
    with tempfile.TemporaryDirectory(prefix="splitpipe-bench-") as scratch:
        sets = [Numbered(Path(scratch) / name, count, size) for name, count in zip(_NAMES, counts, strict=True)]
        for each in sets:
            each.write()
        yield sets


def compared(workload: str, runs: Mapping[Numbered, Callable[[], Sample]], repeats: int) -> list[Row]:
    """Time the smaller and the larger set in turns."""
    tasks = [Task(each.directory.name, run, f"{each.count:,} records") for each, run in runs.items()]
    return measure(workload, tasks, repeats, _SMALL)


@contextlib.contextmanager
def standing(count: int, *arguments: str) -> Iterator[list[int]]:
    """Start so many readers, wait until all have read, give their process ids, and end them."""
    with contextlib.ExitStack() as stack:
        readers = []
        for seed in range(count):
            command = [sys.executable, "-m", "benchmarks.peers.reader", *arguments]
            if arguments:
                command.append(str(seed))
            reader = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            readers.append(stack.enter_context(reader))
        for reader in readers:
            if reader.stdout is None or reader.stdout.readline() != "ready\n":
                raise WrongNumberError("a reader ended early; what it said is above")
        yield [reader.pid for reader in readers]


def private(pids: Sequence[int]) -> list[float]:
    """Return the private memory of each process in MB of 1,000,000 bytes."""
    return [psutil.Process(pid).memory_full_info().uss / 1e6 for pid in pids]


def memory(directory: Path, readers: int, reads: int, repeats: int) -> dict[str, list[list[float]]]:
    """Return the private memory of processes with the records open and of those with numpy alone, per repeat."""
    taken: dict[str, list[list[float]]] = {"readers": [], "numpy alone": []}
    for _ in range(repeats):
        with standing(readers) as pids:
            taken["numpy alone"].append(private(pids))
        with standing(readers, str(directory), str(reads)) as pids:
            taken["readers"].append(private(pids))
    return taken


def _described(taken: dict[str, list[list[float]]], records: int) -> str:
    alone = [statistics.median(each) for each in taken["numpy alone"]]
    above = [value - base for each, base in zip(taken["readers"], alone, strict=True) for value in each]
    return (
        f"memory: {len(taken['readers'][0])} readers of {records:,} records: {spread(above, '.1f')} MB private in "
        f"each, above the {spread(alone, '.1f')} MB of a process with numpy alone"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark as the command line asks."""
    parser = options(str(__doc__), [], WORKLOADS)
    for name, size, counts in (("--open", _OPEN_BYTES, _OPEN), ("--get", _GET_BYTES, _GET)):
        text = f"how many records of {size} bytes (default {counts[0]:,} and {counts[1]:,})"
        parser.add_argument(name, nargs=2, type=int, metavar=_NAMES, default=counts, help=text)
    parser.add_argument("--reads", type=int, default=100_000, help="random reads of each kind (default 100,000)")
    parser.add_argument("--readers", type=int, default=8, help="processes of `memory` (default 8)")
    args = parser.parse_args(argv)
    wanted = args.workload or WORKLOADS
    report = Report("scale: the same with fewer and with more records", [SplitpipeStore], {}, baseline=_SMALL)
    if "open" in wanted or "memory" in wanted:
        with written(args.open, _OPEN_BYTES) as (small, large):
            if "open" in wanted:
                report.add(compared("open", {small: small.open, large: large.open}, args.repeats))
            if "memory" in wanted:
                taken = memory(large.directory, args.readers, args.reads, args.repeats)
                report.remark(_described(taken, large.count), taken)
    if "get" in wanted:
        with written(args.get, _GET_BYTES) as (small, large):
            runs = {each: partial(each.get, each.warmed(), args.reads) for each in (small, large)}
            report.add(compared("get", runs, args.repeats))
    report.show()
    if args.json:
        report.save(args.json)


if __name__ == "__main__":
    main()
