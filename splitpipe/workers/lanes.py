"""The generators of one or more lanes of an epoch, run in turn. The same code in a worker and in the calling thread."""

from __future__ import annotations

import contextvars
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

from splitpipe.errors import ItemError, JobError
from splitpipe.lane import Lane, enter
from splitpipe.workers.job import Job
from splitpipe.workers.places import Place

__all__ = ["NOTHING_LEFT", "LaneRun", "Skipped"]

NOTHING_LEFT: Any = object()

# A source that fails so often without an item between is not going to give one.
_MOST_FAILURES = 100


class Skipped:
    """What stands for an item that could not be made, where the source can go on.

    Attributes:
        error: why.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error


class LaneRun:
    """One lane of one epoch: the user's generator, in a context of its own, so that `current_lane()` is this lane.

    Attributes:
        lane: the lane.
        items: how many items it has given, those before it was resumed included.
        inside: whether the generator has asked which lane it is.
        before_each: called before each item that is only made again, as whoever calls `step` does before that.
    """

    before_each: Callable[[], None] | None = None

    def __init__(self, job: Job, place: Place, epoch: int) -> None:
        state = json.loads(place.state) if place.state else {}
        self.lane = Lane(place.lane, job.lanes, epoch, job.seed, job.rank, job.world_size, job.tail, state)
        self.items = place.items
        self._resumed = place
        self._job = job
        self._context = contextvars.copy_context()
        self.inside = self._context.run(enter, self.lane)
        self._iterator: Iterator[Any] | None = None
        self._failures = 0
        self._at = self.items  # which item is being made, or was last

    def step(self) -> Any:
        """Return the generator's next item, or NOTHING_LEFT; what it raises comes through."""
        if self._iterator is None:
            self._iterator = self._context.run(self._begin)
        self._at = self.items
        item = self._context.run(next, self._iterator, NOTHING_LEFT)
        self.items += item is not NOTHING_LEFT
        self._failures = 0
        return item

    def goes_on(self) -> bool:
        """After `step` raised: return whether the next one may be tried; the failure takes an item's place."""
        self._failures += 1
        generator = self._iterator is None or inspect.isgenerator(self._iterator)
        if not self._job.skips or generator or self._failures > _MOST_FAILURES:
            return False
        self.items += 1
        return True

    def state(self) -> bytes:
        """Return what the generator keeps in `current_lane().state`, as JSON; empty if that is nothing.

        Raises:
            ItemError: it is no plain JSON.
        """
        if not self.lane.state:
            return b""
        try:
            return json.dumps(self.lane.state, allow_nan=False).encode()
        except (TypeError, ValueError) as exc:
            raise ItemError(f"current_lane().state is saved as plain JSON, and in {self} it is not: {exc}") from exc

    def _begin(self) -> Iterator[Any]:
        """Call the generator function, and bring what it returns to the place where it was."""
        job, done = self._job, self._resumed.items
        at_once = bool(self._resumed.state) or job.starts_anywhere
        items = job.gen(*job.args, **job.kwargs, **({"first": done} if job.starts_anywhere else {}))
        try:
            iterator = iter(items)
        except TypeError:
            kind = type(items).__qualname__
            raise JobError(f"{job.name} returned a {kind}; a generator function yields items") from None
        for _ in range(0 if at_once else done):
            self._repeat(iterator)
        if done and not at_once and self.before_each is not None:
            self.before_each()
        return iterator

    def _repeat(self, iterator: Iterator[Any]) -> None:
        """Take an item that was delivered before, or fail as before."""
        if self.before_each is not None:
            self.before_each()
        try:
            missing = next(iterator, NOTHING_LEFT) is NOTHING_LEFT
        except Exception:
            if not self._job.skips or inspect.isgenerator(iterator):
                raise
            missing = False
        if missing:
            raise JobError(
                f"lane {self.lane.index} of epoch {self.lane.epoch} had given {self._resumed.items} items, and "
                f"{self._job.name} gives fewer now: an epoch is resumed with the arguments and data it began with"
            )

    def close(self) -> None:
        """Close the generator, so that its `finally` runs."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            self._context.run(close)

    def __str__(self) -> str:
        return f"lane {self.lane.index} of {self.lane.count}, item {self._at} of epoch {self.lane.epoch}"
