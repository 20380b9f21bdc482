"""Generators for the tests of pipelines: in a module that imports little, so that workers start fast."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from splitpipe import current_lane

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
