"""The first page of an arena: cells of 8 bytes that one side writes and the other reads, without asking.

Each cell is written by one side, whole, by one store: `struct.pack_into` would zero it first. What a side writes, and
then reads of the other, is kept in that order by a fence; without it, a processor may read first.
"""

from __future__ import annotations

import platform
import threading
import time
from contextlib import AbstractContextManager

from splitpipe.transport.arena import PAGE, map_arena

__all__ = ["SENT", "WAITING", "Page", "make_fence", "memory_is_ordered"]

# Cells on cache lines of their own: first what the main process writes, then what the worker does.
WAITING, _GIVEN_UP, _BLOCKED, _IDLE, _SINCE, _DOING, _READY, SENT = 0, 1, 8, 9, 10, 11, 12, 13
_NOTHING, _BLOCKED_NOW, _IDLE_NOW = 0, 1, 2


def make_fence() -> AbstractContextManager[object]:
    """Return a fence: entering and leaving it makes what this thread wrote visible before anything that it reads next.

    To take a lock is an atomic read-modify-write, which x86 orders with everything before and after it.
    """
    return threading.Lock()


def memory_is_ordered() -> bool:
    """Return whether one process sees the writes of another in the order in which they were made, as x86 has it."""
    return platform.machine() in ("x86_64", "AMD64")


class Page:
    """The page of one channel."""

    def __init__(self, fd: int) -> None:
        self._map = map_arena(fd, 0, PAGE)
        self.cells = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Let go of the page; it cannot be used afterwards."""
        self.cells.release()
        self._map.close()

    @property
    def waiting(self) -> bool:
        """Whether the main process waits for this worker; it says so, and the worker that rings the bell unsays it."""
        return bool(self.cells[WAITING])

    @waiting.setter
    def waiting(self, value: bool) -> None:
        self.cells[WAITING] = value

    @property
    def given_up(self) -> int:
        """The first epoch that the main process has not given up."""
        return self.cells[_GIVEN_UP]

    @given_up.setter
    def given_up(self, epoch: int) -> None:
        self.cells[_GIVEN_UP] = epoch

    @property
    def ready_ns(self) -> int:
        """Since when the worker can be spoken to, by `time.monotonic_ns`; 0 while it starts."""
        return self.cells[_READY]

    def get_ready(self) -> None:
        """The worker can be spoken to from now on."""
        self.cells[_READY] = time.monotonic_ns()

    @property
    def sent(self) -> int:
        """How many messages the worker has written to the pipe."""
        return self.cells[SENT]

    def count_sent(self) -> None:
        """The worker has written one more message to the pipe."""
        self.cells[SENT] += 1

    def begin_wait(self, *, idle: bool) -> None:
        """The worker begins to wait: for an epoch (idle), or for room (blocked)."""
        self.cells[_SINCE] = time.monotonic_ns()
        self.cells[_DOING] = _IDLE_NOW if idle else _BLOCKED_NOW

    def end_wait(self) -> None:
        """The worker waits no more."""
        doing = self.cells[_DOING]
        self.cells[_DOING] = _NOTHING
        self.cells[_IDLE if doing == _IDLE_NOW else _BLOCKED] += time.monotonic_ns() - self.cells[_SINCE]

    def waits(self) -> tuple[float, float]:
        """Return for how many seconds the worker was blocked, and idle, the wait under way included."""
        blocked, idle = self.cells[_BLOCKED], self.cells[_IDLE]
        doing, running = self.cells[_DOING], max(0, time.monotonic_ns() - self.cells[_SINCE])
        if doing == _IDLE_NOW:
            idle += running
        elif doing == _BLOCKED_NOW:
            blocked += running
        return blocked / 1e9, idle / 1e9
