"""How fast do items come from a worker, beside multiprocessing.Queue, faster-fifo, torch, SPDL and Grain?

Method: one worker runs a generator that does next to nothing. The main process takes its items in a loop and
compares a number in two places of each, so that an item that is lost, repeated, late or torn ends the benchmark.

    scalars          dicts of four scalars and a short string, made anew: about 100 bytes when pickled
    100 B to 16 MB   dicts of one float32 array: one of 20 prepared ones, with a counter in its first and last element

Every timed run starts a new worker, lets it warm up for a quarter of `--seconds`, and from the rate it saw chooses
how many items to time. The process is forked for all peers but Grain, which can only spawn; splitpipe starts its
worker as it does by default. Starting and stopping are not on the clock.

All contenders hold what they hold by default or, where that must be chosen or the default is slower, 16 items
(faster-fifo: a ring of 8). faster-fifo takes part twice: emptied by `get_many`, and item by item. Below the table
stands, for each workload, the peer that came closest to splitpipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from time import perf_counter

from benchmarks.harness import Report, Sample, Task, best_peer, measure, options, present, spread
from benchmarks.loads import AT_MOST_HELD, Item, Load, WrongItemError, arrays, scalars, take_scalars
from benchmarks.loads import take_arrays as take
from benchmarks.peers.channels import CHANNELS, Channel

__all__ = ["WrongItemError", "main", "take", "timed"]

_SIZES = {"100 B": 100, "10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000, "16 MB": 16_000_000}
LOADS = {
    "scalars": Load(scalars, 100, take_scalars),
    **{name: Load(partial(arrays, size), size, take) for name, size in _SIZES.items()},
}
_AT_LEAST = AT_MOST_HELD + 4  # items, in the warm-up and in the timed window: more than a queue may hold


def timed(load: Load, items: Iterator[Item], seconds: float) -> Sample:
    """Warm up, and time as many items as come in about `seconds`."""
    load.take(items, 0, 1)  # the start of the worker is not what is measured
    start, warm = perf_counter(), 1
    while perf_counter() - start < seconds / 4 or warm < _AT_LEAST:
        load.take(items, warm, 1)
        warm += 1
    rate = warm / (perf_counter() - start)
    count = max(int(rate * seconds), _AT_LEAST)
    start = perf_counter()
    load.take(items, warm, count)
    return Sample(perf_counter() - start, count, count * load.size)


def run(channel: Channel, load: Load, seconds: float) -> Sample:
    """Start a worker and time its items."""
    with channel.stream(load) as items:
        return timed(load, items, seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark as the command line asks."""
    parser = options(str(__doc__), [channel.name for channel in CHANNELS], list(LOADS))
    parser.add_argument("--seconds", type=float, default=1.0, help="of each timed run, roughly (default 1)")
    args = parser.parse_args(argv)
    able, absent = present(CHANNELS, args.only)
    report = Report("transport: small dicts, and dicts of one array, from one worker", able, absent)
    for name in args.workload or LOADS:
        tasks = [Task(channel.name, partial(run, channel(), LOADS[name], args.seconds)) for channel in able]
        rows = measure(name, tasks, args.repeats)
        report.add(rows)
        if best := best_peer(rows):
            ratios = spread(best.ratios, ".2f")
            text = f"{name}: the best of the peers is {best.contender}, at {ratios} times splitpipe's cost"
            report.remark(text, {"contender": best.contender, "ratios": best.ratios})
    report.show()
    if args.json:
        report.save(args.json)


if __name__ == "__main__":
    main()
