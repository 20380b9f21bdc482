"""The generators of one or more lanes of an epoch, run in turn. The same code in a worker and in the calling thread."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

from splitpipe.errors import JobError
from splitpipe.lane import Lane, enter
from splitpipe.workers.job import Job

__all__ = ["NOTHING_LEFT", "LaneRun"]

NOTHING_LEFT: Any = object()


class LaneRun:
    """One lane of one epoch: the user's generator, in a context of its own, so that `current_lane()` is this lane.

    Attributes:
        lane: the lane.
        items: how many items it has given.
    """

    def __init__(self, job: Job, index: int, epoch: int) -> None:
        self.lane = Lane(index, job.lanes, epoch, job.seed)
        self.items = 0
        self._job = job
        self._context = contextvars.copy_context()
        self._context.run(enter, self.lane)
        self._iterator: Iterator[Any] | None = None

    def step(self) -> Any:
        """Return the generator's next item, or NOTHING_LEFT; what it raises comes through."""
        if self._iterator is None:
            self._iterator = self._context.run(self._begin)
        item = self._context.run(next, self._iterator, NOTHING_LEFT)
        self.items += item is not NOTHING_LEFT
        return item

    def _begin(self) -> Iterator[Any]:
        items = self._job.gen(*self._job.args, **self._job.kwargs)
        try:
            return iter(items)
        except TypeError:
            kind = type(items).__qualname__
            raise JobError(f"{self._job.name} returned a {kind}; a generator function yields items") from None

    def close(self) -> None:
        """Close the generator, so that its `finally` runs."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            self._context.run(close)

    def __str__(self) -> str:
        return f"lane {self.lane.index} of {self.lane.count}, item {self.items} of epoch {self.lane.epoch}"
