"""What the workers of the benchmarks make: generators, and how to check that each item is the one that was due.

A module of its own, and not part of a benchmark, so that a worker imports it by name, whatever starts the worker.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import splitpipe

__all__ = [
    "ASK",
    "AT_MOST_HELD",
    "STOP",
    "Item",
    "Load",
    "WrongItemError",
    "arrays",
    "batches",
    "filled",
    "heavy",
    "on_demand",
    "scalars",
    "spin",
    "take_arrays",
    "take_scalars",
]

Item = dict[str, Any]

AT_MOST_HELD = 16  # items that a queue may hold
ASK, STOP = b"?", b"."  # what the consumer of `on_demand` writes into the pipe

_ARRAYS = AT_MOST_HELD + 4  # more than are ever under way: a queue may pickle an item long after it was put
_BLOCK = 4096  # elements that `spin` works on: they stay in the first-level cache


class WrongItemError(Exception):
    """A contender delivered another item than was due."""


@dataclass(frozen=True)
class Load:
    """What one worker makes.

    Attributes:
        generate: yields items without end; it is sent to the worker, and called there.
        size: bytes of one item, roughly.
        take: consumes so many items of which the first should bear a number, and raises `WrongItemError` if one is
            not as it should be. Called as `take(items, first, count)`.
    """

    generate: Callable[[], Iterator[Item]]
    size: int
    take: Callable[[Iterator[Item], int, int], None]


def arrays(size: int) -> Iterator[Item]:
    """Yield dicts of one array of `size` bytes for ever; item i has i as its first and last element."""
    rng = np.random.default_rng(0)
    prepared = [rng.random(size // 4, dtype=np.float32) for _ in range(_ARRAYS)]
    for number in itertools.count():
        array = prepared[number % _ARRAYS]
        array[0] = array[-1] = number
        yield {"array": array}


def take_arrays(items: Iterator[Item], first: int, count: int) -> None:
    """Consume `count` items of which the first should bear the number `first`."""
    for number, item in zip(range(first, first + count), items, strict=False):
        array = item["array"]
        if array.item(0) != number or array.item(-1) != number:
            raise WrongItemError(f"expected item {number}, got one from {array[0]} to {array[-1]}")


def scalars() -> Iterator[Item]:
    """Yield dicts of scalars and a short string for ever, each about 100 bytes when pickled."""
    for number in itertools.count():
        yield {
            "id": number,
            "label": number % 10,
            "weight": 0.5,
            "valid": True,
            "name": f"train/images/sample-{number}",
        }


def take_scalars(items: Iterator[Item], first: int, count: int) -> None:
    """Consume `count` items of which the first should bear the number `first`."""
    for number, item in zip(range(first, first + count), items, strict=False):
        if item["id"] != number or item["name"] != f"train/images/sample-{number}":
            raise WrongItemError(f"expected item {number}, got {item}")


def filled(size: int, *, in_place: bool) -> Iterator[Item]:
    """Yield what `arrays` does, each array new and written once: in memory of the pipeline, or in its own."""
    empty: Callable[..., NDArray[Any]] = splitpipe.empty if in_place else np.empty
    source = np.random.default_rng(0).random(size // 4, dtype=np.float32)
    for number in itertools.count():
        array = empty(source.shape, source.dtype)
        array[:] = source
        array[0] = array[-1] = number
        yield {"array": array}


def on_demand(pipe: Path) -> Iterator[Item]:
    """Yield a small item, with the time it was made at, for each `ASK` read from the named pipe; end at `STOP`."""
    with pipe.open("rb", buffering=0) as requests:
        for number in itertools.count():
            if requests.read(1) != ASK:
                return
            yield {"number": number, "made_ns": time.monotonic_ns()}


def spin(turns: int) -> None:
    """Keep the CPU busy, within its first-level cache, for a time that is proportional to `turns`."""
    block = np.linspace(0, 1, _BLOCK, dtype=np.float32)
    for _ in range(turns):
        np.sin(block, out=block)


def batches(turns: int, size: int, first: int, step: int) -> Iterator[Item]:
    """Yield every `step`-th item of `arrays` from `first` on, each new and after so many turns of `spin`."""
    for number in itertools.count(first, step):
        spin(turns)
        yield {"array": np.full(size // 4, number, np.float32)}


def heavy(turns: int, size: int) -> Iterator[Item]:
    """Yield this lane's share of `batches`."""
    lane = splitpipe.current_lane()
    return batches(turns, size, lane.index, lane.count)
