"""Arena: the anonymous shared memory of one worker, in blocks that are used again and again.

An arena is one memfd: it has no name in /dev/shm to be left behind, and the kernel frees it with its last user. Its
first page is the channel's own (`page.py`); behind it lie the blocks. A block is faulted in when it is made, on both
sides, and then reused, so that after the first items no page is faulted in any more.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
from typing import Any

import numpy as np

__all__ = ["PAGE", "Arena", "ArenaView", "Block", "create_arena"]

PAGE = mmap.PAGESIZE
# Room beyond what an item needs, so that items that vary a little do not need another block each time.
_HEADROOM = 1.25
# A free block is taken for an item of a quarter of its size, or any size below this, rather than a new one made.
_SMALL = 1 << 20
_WASTE = 4
# Map with all pages present: a fault for each 4 KiB would cost more than the copy.
_FLAGS = getattr(mmap, "MAP_SHARED", 0) | getattr(mmap, "MAP_POPULATE", 0)
# Before 3.13 each map of Python holds a descriptor of its own.
_MAP_OPTIONS: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


def create_arena(label: str) -> int:
    """Return the descriptor of a new arena of one page; `label` is what /proc shows."""
    fd = os.memfd_create(f"splitpipe-{label}", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(fd, 0, PAGE)
    except OSError:
        os.close(fd)
        raise
    return fd


def map_arena(fd: int, offset: int, capacity: int) -> mmap.mmap:
    """Return a part of an arena, mapped, writable, and faulted in."""
    return mmap.mmap(fd, capacity, flags=_FLAGS, offset=offset, **_MAP_OPTIONS)


class Block:
    """A part of the arena that holds the memory of one item, or of one array that is being built.

    Attributes:
        offset: where it begins in the arena; its name on both sides.
        capacity: how many bytes it has.
        memory: those bytes.
        address: of the first of them in this process.
        users: how many use it: the item that was sent in it, until the main process gives it back, and the arrays
            of this process that lie in it.
    """

    __slots__ = ("address", "capacity", "memory", "offset", "users")

    def __init__(self, offset: int, capacity: int, memory: memoryview) -> None:
        self.offset, self.capacity, self.memory = offset, capacity, memory
        self.address: int = np.frombuffer(memory, np.uint8).ctypes.data
        self.users = 0


class Arena:
    """The worker's side: makes blocks, and keeps those that are free.

    Args:
        fd: descriptor of the arena.
        limit: how many bytes of blocks it makes, unless a single one needs more.

    Attributes:
        has_news: whether blocks were made or removed since `news` was asked for.
    """

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        self._limit = limit
        self._end = PAGE
        self._free: list[Block] = []
        self._bytes = self._free_bytes = 0
        self._lock = threading.Lock()  # the generator may build arrays in several threads
        self._made: list[tuple[int, int]] = []
        self._removed: list[int] = []
        self.has_news = False

    def take(self, size: int) -> Block:
        """Return a block of at least `size` bytes, with one user.

        Raises:
            MemoryError: there is no memory for it. Without `posix_fallocate` that would be a bus error later on.
        """
        most = max(size * _WASTE, _SMALL)
        with self._lock:
            for at in range(len(self._free) - 1, -1, -1):  # what was used last is still in the cache
                block = self._free[at]
                if size <= block.capacity <= most:
                    del self._free[at]
                    self._free_bytes -= block.capacity
                    block.users = 1
                    return block
            return self._make(size)

    def could_take(self, size: int) -> bool:
        """Return whether `take` would stay within the limit."""
        return self._bytes - self._free_bytes + size <= self._limit

    def _make(self, size: int) -> Block:
        capacity = -(-int(size * _HEADROOM) // PAGE) * PAGE
        while self._free and self._bytes + capacity > self._limit:
            self._remove(self._free.pop(0))
        try:
            os.posix_fallocate(self._fd, self._end, capacity)
            memory = memoryview(map_arena(self._fd, self._end, capacity))
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                raise  # says all there is to say
            raise MemoryError(
                f"no shared memory for an item of {size} bytes: {exc}. Make smaller batches, or lower prefetch, "
                "workers or max_bytes"
            ) from exc
        block = Block(self._end, capacity, memory)
        block.users = 1
        self._end += capacity
        self._bytes += capacity
        self._made.append((block.offset, capacity))
        self.has_news = True
        return block

    def news(self) -> tuple[list[tuple[int, int]], list[int]]:
        """Return the blocks made, as (offset, capacity), and the offsets of those removed, since this was asked for."""
        with self._lock:
            news = self._made, self._removed
            self._made, self._removed, self.has_news = [], [], False
        return news

    def _remove(self, block: Block) -> None:
        """Give the memory of a block back to the system."""
        self._bytes -= block.capacity
        self._free_bytes -= block.capacity
        self._removed.append(block.offset)
        self.has_news = True
        memory: Any = block.memory.obj
        memory.madvise(mmap.MADV_REMOVE)

    def give(self, block: Block) -> None:
        """Take note that a block has one user less; without any it is free."""
        with self._lock:
            block.users -= 1
            if not block.users:
                self._free.append(block)
                self._free_bytes += block.capacity


class ArenaView:
    """The main process's side: the blocks that it was told of, mapped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._capacities: dict[int, int] = {}
        self._maps: dict[int, mmap.mmap] = {}

    def add(self, offset: int, capacity: int) -> None:
        """Take note of a block; it is mapped when it is first looked at."""
        self._capacities[offset] = capacity

    def remove(self, offset: int) -> None:
        """Forget a block. Its map goes with its last view: closing it under a view would crash the process."""
        del self._capacities[offset]
        self._maps.pop(offset, None)

    def __getitem__(self, offset: int) -> mmap.mmap:
        memory = self._maps.get(offset)
        if memory is None:
            memory = self._maps[offset] = map_arena(self._fd, offset, self._capacities[offset])
        return memory

    def close(self) -> None:
        """Give the descriptor back, and all maps that nobody looks at."""
        self._maps.clear()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
