"""Building: arrays that already lie in the shared memory that they will be sent in (`splitpipe.empty`)."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.transport.arena import Arena, Block

__all__ = ["Builder"]

# Smaller buffers are never built here; see `splitpipe.memory`.
_LEAST = 1 << 16


class Builder:
    """The arrays of this worker that lie in its arena and were not sent yet.

    Args:
        arena: where they lie.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._unsent: dict[int, tuple[Block, weakref.ref[NDArray[Any]]]] = {}  # by address
        self._dead: deque[Block] = deque()  # of arrays that died, in any thread, at any instant

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> NDArray[Any] | None:
        """Return an array in the arena; None if there is no room, so that nobody need wait inside a generator."""
        self.collect()
        if not self._arena.could_take(size):
            return None
        block = self._arena.take(size)
        # Right on the map: an array on top of a plain one would have that for its base, and skip this.
        memory = _Memory((block.capacity,), np.uint8, block.memory)
        memory.dies = self._dead.append
        memory.block = block
        array: NDArray[Any] = np.ndarray(shape, dtype, memory)
        self._unsent[block.address] = block, weakref.ref(array)
        return array

    def collect(self) -> None:
        """Take back the blocks of arrays that died."""
        while self._dead:
            try:
                block = self._dead.popleft()
            except IndexError:  # another thread was here
                return
            self._unsent.pop(block.address, None)
            self._arena.give(block)

    def find(self, buffers: list[memoryview]) -> tuple[list[tuple[int, int] | None], list[Block], int]:
        """Return which of some buffers were built here.

        Returns:
            for each buffer the name of its block and the place in it, or None; empty if nothing was built. The blocks.
            How many bytes lie in them.
        """
        if not self._unsent:
            return [], [], 0
        places: list[tuple[int, int] | None] = []
        blocks: list[Block] = []
        there = 0
        for raw in buffers:
            place = self._place(raw) if raw.nbytes >= _LEAST else None
            if place is None:
                places.append(None)
                continue
            block, start = place
            places.append((block.offset, start))
            there += raw.nbytes
            if block not in blocks:
                blocks.append(block)
        return places, blocks, there

    def _place(self, raw: memoryview) -> tuple[Block, int] | None:
        unsent = list(self._unsent.values())
        for block, array in unsent:
            of: Any = array()
            if of is raw.obj:  # nearly always; it takes longer to ask where a part of it lies
                return block, 0
        address = np.frombuffer(raw, np.uint8).ctypes.data
        for block, _ in unsent:
            if block.address <= address and address + raw.nbytes <= block.address + block.capacity:
                return block, address - block.address
        return None

    def sent(self, blocks: list[Block]) -> None:
        """Take note that these went to the main process: what is written to them here would change its items."""
        for block in blocks:
            _, array = self._unsent.pop(block.address)
            built = array()
            if built is not None:
                built.flags.writeable = False


class _Memory(np.ndarray[Any, Any]):
    """The memory of one built array; says when the last array that lies in it dies."""

    dies: Any = None
    block: Any = None

    def __del__(self) -> None:
        if self.dies is not None:
            self.dies(self.block)
