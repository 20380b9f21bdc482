"""What does a pipeline cost around its transport, and what does it save? Five workloads.

    built in place   dicts of one array of 1 MB, written once from a source: into memory from `splitpipe.empty`, or into
                     a new numpy array, which the pipeline then copies
    on demand        latency of one small item that is asked for while the queue is empty. The generator waits at a
                     named pipe and makes an item for each byte that the consumer writes; the next byte follows the
                     receipt. Shown are the time from the making of an item to its receipt, by the clock that all
                     processes share, median and 99th percentile, and the median from the asking to the receipt. The
                     contenders of `benchmarks.transport` take part, all in this way
    CPU-heavy        2 ms of CPU work (within its cache, calibrated at the start) and a new array of 600 KB for each
                     item; the consumer does nothing. Two workers, one, and two plain processes and one that do the
                     same work and send nothing anywhere
    first item       from the construction of a pipeline to its first item, one of numpy, in a fresh process that has
                     imported splitpipe before: by the default way to start a worker, and by fork
    epochs           epochs of 10 items of 100 KB from two workers that are kept, in a fresh process; below the table,
                     the open file descriptors and the resident memory after 100 of them and at the end

Method: everything in one run and in turn, the order rotating with each repeat; the items are compared. The row
`splitpipe` of a workload is what its other rows are compared with, and its note says which way it goes.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic_ns, perf_counter, thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import splitpipe
from benchmarks import loads
from benchmarks.harness import BASELINE, Report, Sample, Task, measure, options, present, spread
from benchmarks.loads import Load, WrongItemError, take_arrays
from benchmarks.peers.channels import CHANNELS, Channel
from benchmarks.transport import timed

__all__ = ["main"]

WORKLOADS = ("built in place", "on demand", "CPU-heavy", "first item", "epochs")
_VARIANTS = ("copied", "one worker", "two processes", "one process", "fork")  # beside the row `splitpipe`
_BUILT, _HEAVY, _ASKED = 1_000_000, 600_000, 100  # bytes of an item
_CPU_S = 0.002
_UNCOUNTED = 100  # requests, or batches of a plain process, before those that are timed
_PATIENCE_S = 60
_ROOT = Path(__file__).parents[1]  # where a fresh process finds `benchmarks`
_fork = multiprocessing.get_context("fork")


def streamed(load: Load, workers: int, seconds: float) -> Sample:
    """Time the items of a pipeline."""
    with splitpipe.MpQItr(load.generate, workers=workers) as pipe:
        return timed(load, iter(pipe), seconds)


def ask(channel: Channel, count: int) -> NDArray[np.int64]:
    """Ask for one item after the other; return rows of ns: from its making to its receipt, from the asking to it."""
    times = np.empty((_UNCOUNTED + count, 2), np.int64)
    with tempfile.TemporaryDirectory(prefix="splitpipe-bench-") as scratch, _impatience():
        pipe = Path(scratch) / "requests"
        os.mkfifo(pipe)
        load = Load(partial(loads.on_demand, pipe), _ASKED, take_arrays)
        # "+": to open a pipe for writing alone is to wait for its reader
        with pipe.open("r+b", buffering=0) as requests, channel.stream(load) as items:
            for number in range(len(times)):
                before = monotonic_ns()
                requests.write(loads.ASK)
                item = next(items)
                received = monotonic_ns()
                if item["number"] != number or not before <= item["made_ns"] <= received:
                    raise WrongItemError(f"expected item {number}, made when it was asked for, and got {item}")
                times[number] = received - item["made_ns"], received - before
            requests.write(loads.STOP)
    return times[_UNCOUNTED:]


@contextmanager
def _impatience() -> Iterator[None]:
    """End this process, with its traceback, after a minute: a library that holds an item back waits for ever."""
    faulthandler.dump_traceback_later(_PATIENCE_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def calibrate() -> int:
    """Return how many turns of `loads.spin` take 2 ms of CPU, by the fastest of some attempts."""
    turns = 200

    def cost() -> float:
        start = thread_time()
        loads.spin(turns)
        return (thread_time() - start) / turns

    return round(_CPU_S / min(cost() for _ in range(100)))


def untransported(turns: int, processes: int, seconds: float) -> Sample:
    """Time processes that make their shares of the batches and keep none."""
    share = max(int(seconds / _CPU_S), 1)
    barrier = _fork.Barrier(processes + 1, timeout=_PATIENCE_S)

    def make(index: int) -> None:
        batches = loads.batches(turns, _HEAVY, index, processes)
        for count in (_UNCOUNTED, share):
            for _ in itertools.islice(batches, count):
                pass
            barrier.wait()

    makers = [_fork.Process(target=make, args=(index,), daemon=True) for index in range(processes)]
    for maker in makers:
        maker.start()
    barrier.wait()
    start = perf_counter()
    barrier.wait()
    seconds = perf_counter() - start
    for maker in makers:
        maker.join()
    return Sample(seconds, processes * share, processes * share * _HEAVY)


def in_fresh_process(*arguments: str) -> Any:
    """Return what `benchmarks.fresh` measures."""
    command = [sys.executable, "-m", "benchmarks.fresh", *arguments]
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


class Workloads:
    """The workloads, each a method that adds its rows to the report.

    Args:
        report: where the rows go.
        channels: who takes part in `on demand`.
        only: the contenders that are wanted; empty for all.
        repeats: timed runs of everything.
        seconds: of each timed run of a stream, roughly.
        requests: items that are asked for in one run of `on demand`.
        epochs: how many of them.
    """

    def __init__(
        self,
        report: Report,
        channels: Sequence[type[Channel]],
        only: Sequence[str],
        repeats: int,
        seconds: float,
        requests: int,
        epochs: int,
    ) -> None:
        self._report = report
        self._channels = channels
        self._only = only
        self._repeats = repeats
        self._seconds = seconds
        self._requests = requests
        self._epochs = epochs
        methods = (self.built_in_place, self.on_demand, self.cpu_heavy, self.first_item, self.epochs)
        self.by_name: dict[str, Callable[[], None]] = dict(zip(WORKLOADS, methods, strict=True))

    def _compare(self, workload: str, *tasks: Task) -> None:
        wanted = [task for task in tasks if not self._only or task.contender in self._only]
        if wanted:
            self._report.add(measure(workload, wanted, self._repeats))

    def built_in_place(self) -> None:
        """Compare batches that are built in the pipeline's memory with batches that it copies there."""
        in_place = Load(partial(loads.filled, _BUILT, in_place=True), _BUILT, take_arrays)
        copied = Load(partial(loads.filled, _BUILT, in_place=False), _BUILT, take_arrays)
        self._compare(
            "built in place",
            Task(BASELINE, partial(streamed, in_place, 1, self._seconds), "splitpipe.empty"),
            Task("copied", partial(streamed, copied, 1, self._seconds), "numpy.empty"),
        )

    def on_demand(self) -> None:
        """Compare latencies: one measurement, in which the columns and percentiles are looked at in turn."""
        taken: dict[str, list[NDArray[np.int64]]] = {channel.name: [] for channel in self._channels}

        def run(channel: Channel) -> Sample:
            taken[channel.name].append(ask(channel, self._requests))
            return at(taken[channel.name][-1], 0, 50)

        def at(times: NDArray[np.int64], column: int, percent: float) -> Sample:
            return Sample(float(np.percentile(times[:, column], percent)) / 1e9, 1, _ASKED)

        self._compare("made to received", *(Task(channel.name, partial(run, channel())) for channel in self._channels))
        for text, column, percent in (("the same, 99 %", 0, 99), ("asked to received", 1, 50)):
            seen = {name: iter([at(times, column, percent) for times in each]) for name, each in taken.items()}
            self._compare(text, *(Task(name, samples.__next__) for name, samples in seen.items()))

    def cpu_heavy(self) -> None:
        """Compare two workers with one, and with processes that send nothing."""
        turns = calibrate()
        load = Load(partial(loads.heavy, turns, _HEAVY), _HEAVY, take_arrays)
        self._compare(
            "CPU-heavy",
            Task(BASELINE, partial(streamed, load, 2, self._seconds), "two workers"),
            Task("one worker", partial(streamed, load, 1, self._seconds)),
            Task("two processes", partial(untransported, turns, 2, self._seconds), "no transport"),
            Task("one process", partial(untransported, turns, 1, self._seconds), "no transport"),
        )

    def first_item(self) -> None:
        """Compare the ways to start a worker."""

        def run(start: str) -> Sample:
            return Sample(in_fresh_process("first", start), 1, 0)

        self._compare(
            "first item",
            Task(BASELINE, partial(run, "default"), "default start"),
            Task("fork", partial(run, "fork")),
        )

    def epochs(self) -> None:
        """Time epochs, and look at what the processes hold after the first hundred and in the end."""
        taken: list[list[dict[str, Any]]] = []

        def run() -> Sample:
            measured = in_fresh_process("epochs", str(self._epochs))
            taken.append(measured["readings"])
            return Sample(measured["seconds"], self._epochs, measured["bytes"])

        self._compare("epochs", Task(BASELINE, run, "two workers"))
        for process in range(len(taken[0][0]["pids"]) if taken else 0):
            held = {what: [[each[what][process] for each in run] for run in taken] for what in ("fds", "rss")}
            self._report.remark(_growth(process, taken), held)


def _growth(process: int, taken: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Write what a process held at the first and at the last reading of each repeat."""
    first, last = ([readings[at] for readings in taken] for at in (0, -1))

    def change(what: str, unit: float, form: str) -> str:
        return " to ".join(spread([each[what][process] / unit for each in when], form) for when in (first, last))

    more = [
        100 * (after["rss"][process] / before["rss"][process] - 1) for before, after in zip(first, last, strict=True)
    ]
    return (
        f"epochs: {f'worker {process - 1}' if process else 'main process'}, after {first[0]['epoch']:,} and after "
        f"{last[0]['epoch']:,}: {change('fds', 1, '.0f')} file descriptors, {change('rss', 1e6, '.1f')} MB resident, "
        f"{spread(more, '+.2f')} %"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark as the command line asks."""
    parser = options(str(__doc__), [*(channel.name for channel in CHANNELS), *_VARIANTS], WORKLOADS)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each timed stream, roughly (default 1)")
    parser.add_argument("--requests", type=int, default=2000, help="in a run of `on demand` (default 2,000)")
    parser.add_argument("--epochs", type=int, default=1000, help="of each run of `epochs` (default 1,000)")
    args = parser.parse_args(argv)
    wanted = args.workload or WORKLOADS
    peers = CHANNELS if "on demand" in wanted else CHANNELS[:1]  # nobody else has to be imported
    channels, absent = present(peers, args.only)
    report = Report("pipeline: what it costs around its transport, and what it saves", channels, absent)
    workloads = Workloads(report, channels, args.only, args.repeats, args.seconds, args.requests, args.epochs)
    for name in wanted:
        workloads.by_name[name]()
    report.show()
    if args.json:
        report.save(args.json)


if __name__ == "__main__":
    main()
