"""Lane: which share of an epoch's work this piece of code does, and the randomness that goes with it.

A pipeline splits an epoch into lanes and runs the user's generator once per lane. A reader asks
`current_lane()` for its share, so user code need not pass it along. Nothing here starts or knows processes.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Inside", "Lane", "current_lane", "enter", "in_lane", "outer_lane"]

_LANE_PURPOSE = 1  # first word of the spawn key: keeps lane.rng apart from the order's own random streams


@dataclass(frozen=True)
class Lane:
    """One of `count` equal shares of an epoch, or of a rank's part of it.

    Attributes:
        index: which share this is, from 0 to `count - 1`.
        count: how many shares the epoch is split into. The order of items depends on it, never on the number
            of worker processes.
        epoch: which pass over the data this is, from 0.
        seed: the seed given to the pipeline.
        rank: which of `world_size` main processes this is for, each of which has `count` lanes.
        world_size: how many main processes share the epoch.
        tail: what the ranks do with what cannot be shared equally: "drop" it, "pad" it with items from the beginning,
            or be "uneven".
        state: where the generator may keep its place, as plain JSON: what is in it when an item is yielded is saved
            with that item, and is here again when the epoch is resumed after it; keep it small. `rng` is not part of
            it, and begins anew then.
    """

    index: int = 0
    count: int = 1
    epoch: int = 0
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    tail: str = "drop"
    state: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def number(self) -> int:
        """Which this is of all lanes of all ranks."""
        return self.rank * self.count + self.index

    @functools.cached_property
    def rng(self) -> np.random.Generator:
        """A random generator of this lane and epoch alone; the same for the same (seed, epoch, number)."""
        key = (_LANE_PURPOSE, self.epoch, self.number)
        # spawn_key, not `seed + epoch` or [seed, epoch]: those collide (SeedSequence([7]) equals [7, 0]).
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))


class Inside:
    """A lane that code runs in.

    Attributes:
        lane: the lane.
        asked: whether anybody asked for it: if not, every lane does the same.
    """

    __slots__ = ("asked", "lane")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.asked = False


_current: ContextVar[Inside | None] = ContextVar("splitpipe_lane", default=None)


def current_lane() -> Lane:
    """Return the lane that the calling code runs in; outside a pipeline, the only lane of one."""
    inside = _current.get()
    if inside is None:
        return _OUTSIDE
    inside.asked = True
    return inside.lane


def in_lane() -> bool:
    """Return whether the calling code runs inside a pipeline's lane."""
    return _current.get() is not None


def outer_lane() -> Lane | None:
    """Return the lane that the calling code runs in, if there is one, without counting as having asked for it."""
    inside = _current.get()
    return None if inside is None else inside.lane


def enter(lane: Lane) -> Inside:
    """Make `lane` the current one in the running `contextvars` context, which is to be the lane's own."""
    inside = Inside(lane)
    _current.set(inside)
    return inside


_OUTSIDE = Lane()
