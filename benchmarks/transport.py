"""How fast do items come from a worker, beside multiprocessing.Queue, faster-fifo and torch's DataLoader?

Method: one worker runs a generator that yields dicts of one float32 array and does next to nothing else: it
takes one of 20 prepared arrays and writes a counter into the first and the last element. The main process
takes the dicts in a loop and compares both elements, so that an item that is lost, repeated, late or torn
ends the benchmark. Every timed run starts a new worker, lets it warm up for a quarter of `--seconds`, and
from the rate it saw chooses how many items to time. The process is forked for all peers; splitpipe starts
its worker as it does by default. Starting and stopping are not on the clock.

All contenders hold what they hold by default or, where that must be chosen, 16 items (faster-fifo: a ring
of 8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from time import perf_counter

from benchmarks.harness import Report, Sample, Task, measure, options, present
from benchmarks.peers.channels import CHANNELS, Channel, Item

__all__ = ["main"]

SIZES = {"100 B": 100, "10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000, "16 MB": 16_000_000}
_AT_LEAST = 20  # items, in the warm-up and in the timed window: more than a queue may hold


class WrongItemError(Exception):
    """A contender delivered another item than was due."""


def take(items: Iterator[Item], first: int, count: int) -> None:
    """Consume `count` items of which the first should bear the number `first`."""
    for number, item in zip(range(first, first + count), items, strict=False):
        array = item["array"]
        if array.item(0) != number or array.item(-1) != number:
            raise WrongItemError(f"expected item {number}, got one from {array[0]} to {array[-1]}")


def run(channel: Channel, size: int, seconds: float) -> Sample:
    """Start a worker, warm up, and time as many items as come in about `seconds`."""
    with channel.stream(size) as items:
        take(items, 0, 1)  # the start of the worker is not what is measured
        start, warm = perf_counter(), 1
        while perf_counter() - start < seconds / 4 or warm < _AT_LEAST:
            take(items, warm, 1)
            warm += 1
        rate = warm / (perf_counter() - start)
        count = max(int(rate * seconds), _AT_LEAST)
        start = perf_counter()
        take(items, warm, count)
        return Sample(perf_counter() - start, count, count * size)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark as the command line asks."""
    parser = options(str(__doc__), [channel.name for channel in CHANNELS], list(SIZES))
    parser.add_argument("--seconds", type=float, default=1.0, help="of each timed run, roughly (default 1)")
    args = parser.parse_args(argv)
    able, absent = present(CHANNELS, args.only)
    report = Report("transport: dicts of one array, from one worker", able, absent)
    for name in args.workload or SIZES:
        tasks = [Task(channel.name, partial(run, channel(), SIZES[name], args.seconds)) for channel in able]
        report.add(measure(name, tasks, args.repeats))
    report.show()
    if args.json:
        report.save(args.json)


if __name__ == "__main__":
    main()
