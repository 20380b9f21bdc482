"""Packs: small messages one behind the other in shared memory, where the reader finds them without being told.

A pack is a block: a cell, and then messages as they would lie in the pipe. The cell says how many of its bytes are
written; to raise it, by one store, is the commit, so a writer that dies leaves whole messages. No system call is needed
for a message, unless the reader waits (`Page.waiting`): then the writer rings.
"""

from __future__ import annotations

import time

from splitpipe.transport.arena import Block

__all__ = ["PACK_BYTES", "PackReader", "PackWriter"]

PACK_BYTES = 1 << 16
# A pack counts as one item ahead of the consumer, so it is not to hold more than a moment's work.
_MOMENT_NS = 1_000_000
_CLOSED = 1 << 63  # in the cell: no more will come
_CELL = 8


class PackWriter:
    """The worker's side. What was written at `at` is committed by setting the cell to where it ends.

    Args:
        block: holds no earlier pack that is still read.

    Attributes:
        memory: the block's.
        cells: the cell is the first.
        at: where the next message begins.
        until: when the moment is over, by `time.monotonic_ns`.
    """

    def __init__(self, block: Block) -> None:
        self.memory = block.memory
        self.cells = block.memory[:_CELL].cast("Q")
        self.at = self.cells[0] = _CELL
        self.until = time.monotonic_ns() + _MOMENT_NS

    def close(self) -> None:
        """Say that nothing more will come."""
        self.cells[0] = self.at | _CLOSED


class PackReader:
    """The main process's side."""

    def __init__(self, memory: memoryview, ticket: int) -> None:
        self.memory = memory
        self.ticket = ticket
        self._cells = memory[:_CELL].cast("Q")
        self.at = _CELL

    def look(self) -> tuple[int, bool]:
        """Return how many bytes are written by now, and whether that is all."""
        cell = self._cells[0]
        return cell & ~_CLOSED, bool(cell & _CLOSED)

    def has_news(self) -> bool:
        """Return whether there is something that was not read: messages, or the end."""
        return self._cells[0] != self.at
