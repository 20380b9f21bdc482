"""Places: how far each lane of the epoch under way has come, as seen by the consumer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Place", "Places"]


class Place(NamedTuple):
    """How far a lane is.

    Attributes:
        lane: which lane.
        items: how many of its items were delivered.
        state: what its generator kept of its place with the last of them, as JSON; empty if nothing.
    """

    lane: int
    items: int = 0
    state: str = ""


@dataclass
class Places:
    """How far all lanes of an epoch are; whoever delivers an item takes note of it here.

    Attributes:
        epoch: the epoch; -1 before the first.
        items: how many items of each lane were delivered.
        states: what each generator kept of its place with the last of them, as JSON.
        left: the lanes that have not ended, in the order in which their next items come.
        asked: whether any generator has asked which lane it is.
    """

    epoch: int = -1
    items: list[int] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    left: deque[int] = field(default_factory=deque)
    asked: bool = False

    @classmethod
    def beginning(cls, epoch: int, lanes: int) -> Places:
        """Return the places at the beginning of an epoch."""
        return cls(epoch, [0] * lanes, [""] * lanes, deque(range(lanes)))

    def of_worker(self, worker: int, workers: int) -> list[Place]:
        """Return the places of the lanes of one worker, in the order in which it is to run them."""
        return [Place(lane, self.items[lane], self.states[lane]) for lane in self.left if lane % workers == worker]

    def passed(self, lane: int, state: str = "") -> None:
        """Take note of an item, delivered or skipped."""
        self.items[lane] += 1
        if state or self.states[lane]:
            self.states[lane] = state
        if len(self.left) > 1:
            self.left.remove(lane)  # it is the first one, but for pipelines without an order
            self.left.append(lane)

    def ended(self, lane: int) -> None:
        """Take note that a lane has no more items."""
        self.left.remove(lane)
