"""One measurement of splitpipe in a process of its own, which has done nothing before; prints it as JSON.

`python -m benchmarks.fresh first START` prints the seconds from the construction of a pipeline to its first item;
START is `default` or a start method. Nothing but numpy and splitpipe is imported here before the clock starts, so
that whatever a pipeline needs besides is on it. As the generator lives in `__main__`, it is sent as code, and its
worker imports numpy alone.

`python -m benchmarks.fresh epochs COUNT` runs so many epochs of 10 items from two workers that are kept, and prints
the seconds they took and, after every hundredth epoch and the last, the open file descriptors and the resident bytes
of this process and of each worker.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

import splitpipe

if TYPE_CHECKING:
    import psutil

__all__ = ["main"]

_PER_EPOCH = 10  # items
_WORKERS = 2
_LOOK = 100  # epochs from one reading to the next
_ELEMENTS = 25_000  # of float32: 100 KB


def _numbered() -> Iterator[dict[str, Any]]:
    """Yield this lane's share of the items of an epoch; item i is full of i."""
    lane = splitpipe.current_lane()
    for number in range(lane.index, _PER_EPOCH, lane.count):
        yield {"array": np.full(_ELEMENTS, number, np.float32)}


def _check(item: dict[str, Any], number: int) -> None:
    if item["array"].item(0) != number or item["array"].item(-1) != number:
        raise SystemExit(f"expected item {number}, got one from {item['array'][0]} to {item['array'][-1]}")


def first(start: str) -> float:
    """Return the seconds from construction to the first item."""
    chosen: dict[str, Any] = {} if start == "default" else {"start": start}
    began = perf_counter()
    with splitpipe.MpQItr(_numbered, **chosen) as pipe:
        item = next(iter(pipe))
        seconds = perf_counter() - began
        _check(item, 0)
    return seconds


def epochs(count: int) -> dict[str, Any]:
    """Run the epochs; return the seconds, and the readings as lists of the main process and each worker."""
    import psutil

    this = psutil.Process()
    readings = []
    with splitpipe.MpQItr(_numbered, workers=_WORKERS) as pipe:
        began = perf_counter()
        for epoch in range(1, count + 1):
            got = 0
            for number, item in enumerate(pipe):
                _check(item, number)
                got += 1
            if got != _PER_EPOCH:
                raise SystemExit(f"epoch {epoch} had {got} items, not {_PER_EPOCH}")
            if epoch % _LOOK == 0 or epoch == count:
                readings.append({"epoch": epoch, **_held_by(this, *this.children(recursive=True))})
        seconds = perf_counter() - began
    if any(reading["pids"] != readings[0]["pids"] for reading in readings):
        raise SystemExit(f"the workers were not kept: {readings}")
    return {"seconds": seconds, "bytes": count * _PER_EPOCH * _ELEMENTS * 4, "readings": readings}


def _held_by(*processes: psutil.Process) -> dict[str, list[int]]:
    return {
        "pids": [each.pid for each in processes],
        "fds": [each.num_fds() for each in processes],
        "rss": [each.memory_info().rss for each in processes],
    }


def main() -> None:
    """Do what the command line asks."""
    what, argument = sys.argv[1:]
    measured = epochs(int(argument)) if what == "epochs" else first(argument)
    import json  # not before the clock has stopped

    print(json.dumps(measured))


if __name__ == "__main__":
    main()
