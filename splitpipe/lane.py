"""Lane: which share of an epoch's work this piece of code does, and the randomness that goes with it.

A pipeline splits an epoch into lanes and runs the user's generator once per lane. A reader asks
`current_lane()` for its share, so user code need not pass it along. Nothing here starts or knows processes.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

__all__ = ["Lane", "current_lane", "enter", "in_lane"]

_LANE_PURPOSE = 1  # first word of the spawn key: keeps lane.rng apart from the order's own random streams


@dataclass(frozen=True)
class Lane:
    """One of `count` equal shares of an epoch.

    Attributes:
        index: which share this is, from 0 to `count - 1`.
        count: how many shares the epoch is split into. The order of items depends on it, never on the number
            of worker processes.
        epoch: which pass over the data this is, from 0.
        seed: the seed given to the pipeline.
    """

    index: int = 0
    count: int = 1
    epoch: int = 0
    seed: int = 0

    @functools.cached_property
    def rng(self) -> np.random.Generator:
        """A random generator of this lane and epoch alone; the same for the same (seed, epoch, index)."""
        key = (_LANE_PURPOSE, self.epoch, self.index)
        # spawn_key, not `seed + epoch` or [seed, epoch]: those collide (SeedSequence([7]) equals [7, 0]).
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))


_current: ContextVar[Lane | None] = ContextVar("splitpipe_lane", default=None)


def current_lane() -> Lane:
    """Return the lane that the calling code runs in; outside a pipeline, the only lane of one."""
    return _current.get() or _OUTSIDE


def in_lane() -> bool:
    """Return whether the calling code runs inside a pipeline's lane."""
    return _current.get() is not None


def enter(lane: Lane) -> None:
    """Make `lane` the current one in the running `contextvars` context, which is to be the lane's own."""
    _current.set(lane)


_OUTSIDE = Lane()
