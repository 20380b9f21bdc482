"""Reading many records from storage that is slow to answer: sorted, joined where they are near, several at a time.

A map waits for the disk one page after the other, and holds Python's lock while it does; `pread` in threads waits
for many at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.storage.layout import bin_name
from splitpipe.storage.segment import Segment

__all__ = ["read_cold"]

_GAP_BYTES = 16 << 10  # reading this much for nothing costs less than asking the disk once more
_EXTENT_BYTES = 4 << 20  # one request is not joined beyond this
_TASKS_PER_THREAD = 4  # so that one slow request does not leave the other threads without work


@dataclass
class _Extent:
    """Some bytes of a bin, read at once, and the records in them: (place in the result, start, size)."""

    bin: int
    start: int
    end: int
    members: list[tuple[int, int, int]] = field(default_factory=list)


def read_cold(segment: Segment, ordinals: NDArray[np.int64], threads: int) -> list[Any]:
    """Return the stored bytes of many records, in the order asked for, read by `threads` threads.

    A record asked for twice is read once.
    """
    found: list[Any] = [b""] * len(ordinals)
    extents = list(_extents(segment, ordinals))
    tasks: list[list[_Extent]] = []
    share = -(-len(extents) // (threads * _TASKS_PER_THREAD)) or 1
    for _, of_bin in groupby(extents, key=lambda extent: extent.bin):
        mine = list(of_bin)
        tasks += [mine[first : first + share] for first in range(0, len(mine), share)]
    with ThreadPoolExecutor(threads, thread_name_prefix="splitpipe-read") as pool:
        for _ in pool.map(lambda task: _read(segment, task, found), tasks):
            pass
    _, _, sizes = segment.locate(ordinals)
    segment.check(found, ordinals, sizes, segment.crcs(ordinals))
    return found


def _extents(segment: Segment, ordinals: NDArray[np.int64]) -> Iterator[_Extent]:
    """Yield what to read, in the order in which it lies on the disk."""
    bins, offsets, sizes = segment.locate(ordinals)
    order = np.lexsort((offsets, bins))
    extent: _Extent | None = None
    lies = zip(bins[order].tolist(), offsets[order].tolist(), sizes[order].tolist(), order.tolist(), strict=True)
    for number, start, size, place in lies:
        if start + size > segment.bin_lengths[number]:
            raise segment.corrupt(int(ordinals[place]), f"its {size} bytes reach beyond the end of the bin")
        if extent is None or extent.bin != number or start > extent.end + _GAP_BYTES or _is_full(extent):
            if extent is not None:
                yield extent
            extent = _Extent(number, start, start + size)
        extent.end = max(extent.end, start + size)
        extent.members.append((place, start, size))
    if extent is not None:
        yield extent


def _is_full(extent: _Extent) -> bool:
    return extent.end - extent.start >= _EXTENT_BYTES


def _read(segment: Segment, extents: list[_Extent], found: list[Any]) -> None:
    with (segment.path / bin_name(extents[0].bin)).open("rb", buffering=0) as file:
        for extent in extents:
            file.seek(extent.start)
            data = file.read(extent.end - extent.start)
            for place, start, size in extent.members:
                found[place] = data[start - extent.start : start - extent.start + size]
