"""Slots: anonymous shared memory that one frame at a time travels in, and the leases that keep a slot from reuse.

A slot is a memfd: it has no name in /dev/shm to be left behind, and the kernel frees it with its last user. It grows
when an item needs it and never shrinks, so after the first items no page is faulted in any more.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["SlotReader", "SlotWriter", "create_slot"]

# Room beyond what an item needs, so that items that vary a little do not make the slot grow each time.
_HEADROOM = 1.25
_PAGE = mmap.PAGESIZE
# Map with all pages present: a fault for each 4 KiB would cost more than the copy.
_FLAGS = getattr(mmap, "MAP_SHARED", 0) | getattr(mmap, "MAP_POPULATE", 0)


def create_slot(label: str) -> int:
    """Return the descriptor of a new slot without memory; `label` is what /proc shows."""
    return os.memfd_create(f"splitpipe-{label}", os.MFD_CLOEXEC)


class SlotWriter:
    """The worker's side of a slot."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._view = memoryview(b"")
        self.capacity = 0

    def reserve(self, size: int) -> memoryview:
        """Return at least `size` bytes of the slot's memory.

        Raises:
            MemoryError: there is no memory for it. Without `posix_fallocate` that would be a bus error later on.
        """
        if size > self.capacity:
            capacity = -(-int(size * _HEADROOM) // _PAGE) * _PAGE
            try:
                os.posix_fallocate(self._fd, 0, capacity)
            except OSError as exc:
                raise MemoryError(
                    f"no shared memory for an item of {size} bytes: {exc}. Make smaller batches, or lower prefetch "
                    "or workers"
                ) from exc
            self._view = memoryview(mmap.mmap(self._fd, capacity, flags=_FLAGS))
            self.capacity = capacity
        return self._view


class SlotReader:
    """The main process's side of a slot."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: mmap.mmap | None = None
        self._capacity = 0

    def view(self, size: int, capacity: int, release: Callable[[], None]) -> memoryview:
        """Return `size` bytes of the slot; `release` is called when the last view of them dies.

        Args:
            size: how many bytes.
            capacity: how large the worker has made the slot.
            release: may be called in any thread, at any instant, so it must take no lock.
        """
        if capacity != self._capacity or self._map is None:
            # The old map goes when its last view does: closing it under a view would crash the process.
            self._map = mmap.mmap(self._fd, capacity, flags=_FLAGS)
            self._capacity = capacity
        lease = np.frombuffer(self._map, np.uint8, size).view(_Lease)
        lease.release = release
        return memoryview(lease)  # type: ignore[arg-type]  # an array is a buffer


class _Lease(np.ndarray[Any, Any]):
    """The memory under the views of one item; frees the slot when it goes."""

    release: Callable[[], None] | None = None

    def __del__(self) -> None:
        if self.release is not None:
            self.release()
