"""Generators for the tests of pipelines: in a module that imports little, so that workers start fast."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe import current_lane, empty

_numpy: Any = np.random


def plain(total: int) -> Iterator[tuple[int, int, int]]:
    """Yield this lane's share of the numbers below `total`, with the lane and the epoch."""
    lane = current_lane()
    for number in range(lane.index, total, lane.count):
        yield number, lane.index, lane.epoch


def drawn(total: int) -> Iterator[tuple[Any, ...]]:
    """Yield the same, with random numbers of every kind; a normal one is half of a pair."""
    lane = current_lane()
    for number in range(lane.index, total, lane.count):
        yield (
            number,
            lane.epoch,
            random.random(),
            random.gauss(0, 1),
            float(_numpy.random()),
            float(_numpy.normal()),
            int(lane.rng.integers(1 << 40)),
        )


def keeping(total: int) -> Iterator[tuple[int, int, int]]:
    """Yield what `plain` does, and keep the place."""
    lane = current_lane()
    for number in range(lane.state.get("next", lane.index), total, lane.count):
        lane.state["next"] = number + lane.count
        yield number, lane.index, lane.epoch


def unequal(total: int) -> Iterator[tuple[int, int, int]]:
    """Yield from lanes of very different length: lane 0 none, lane 1 `total`, lane 2 twice as many, and so on."""
    lane = current_lane()
    for number in range(lane.index * total):
        yield number, lane.index, lane.epoch


def arrays(total: int, size: int) -> Iterator[Any]:
    """Yield arrays of `size` float64, each filled with its number."""
    lane = current_lane()
    for number in range(lane.index, total, lane.count):
        yield np.full(size, number, np.float64)


def place(array: Any) -> int | None:
    """Return where in the memory that a worker shares an array lies, or None; the same in both processes."""
    address = array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, offset, _, _, *name = line.split()
        begin, end = (int(part, 16) for part in span.split("-"))
        if begin <= address < end and name and name[0].startswith("/memfd:splitpipe-worker"):
            return int(offset, 16) + address - begin
    return None


def shared_bytes() -> int:
    """Return how much memory all workers share with this process now."""
    # A descriptor may be gone by now, such as that of this very listing.
    links = [link for link in Path("/proc/self/fd").iterdir() if "memfd:splitpipe-worker" in os.path.realpath(link)]
    stats = [link.stat() for link in links]
    return sum({stat.st_ino: stat.st_blocks * 512 for stat in stats}.values())


def built(total: int, size: int) -> Iterator[Any]:
    """Yield arrays as `arrays` does, built in place, with where they lie."""
    lane = current_lane()
    for number in range(lane.index, total, lane.count):
        array = empty(size)
        array[:] = number
        yield array, place(array)


def sized(sizes: list[int], *, in_place: bool) -> Iterator[Any]:
    """Yield arrays of so many bytes, filled with their number modulo 256."""
    lane = current_lane()
    for number in range(lane.index, len(sizes), lane.count):
        array = (empty if in_place else np.empty)(sizes[number], np.uint8)
        array[:] = number % 256
        yield array
