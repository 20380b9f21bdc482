"""The crew: who runs the generator, be it processes, threads, or the calling thread; from here all look the same."""

from __future__ import annotations

from typing import Any, Protocol

from splitpipe.pipeline.options import Options
from splitpipe.workers import InlineTeam, Job, Places, Team, ThreadTeam
from splitpipe.workers.member import Member

__all__ = ["Crew", "Tally", "make_crew"]


class Crew(Protocol):
    """What a pipeline asks of those who run its generator."""

    delivered: int
    settled: bool
    start_s: float
    wait_s: float
    restarted: int

    @property
    def received_bytes(self) -> int:
        """How many bytes of items arrived."""

    @property
    def copies(self) -> int:
        """How many items were copied out of shared memory."""

    @property
    def members(self) -> list[Member]:
        """The worker processes, if there are any."""

    def start(self, places: Places) -> None:
        """Begin an epoch, whose lanes are at `places`, and keep those."""

    def stop(self) -> None:
        """Give up the epoch under way."""

    def receive(self, lane: int, timeout: float | None) -> Any:
        """Return the next item of a lane."""

    def receive_any(self, lanes: list[int], timeout: float | None) -> tuple[int, Any]:
        """Return one of some lanes, and its next item."""

    def close(self) -> None:
        """End for good."""


def make_crew(job: Job, options: Options, workers: int, places: Places) -> Crew:
    """Return who is to run `job`."""
    if not workers:
        return InlineTeam(job)
    if options.start == "thread":
        return ThreadTeam(job, workers, options.prefetch)
    return Team(job, options.team(workers), places)


class Tally:
    """What crews that are gone did, and what was never theirs to count."""

    def __init__(self) -> None:
        self.items = self.skipped = self.bytes = self.copies = self.restarted = 0
        self.start_s = self.wait_s = 0.0

    def with_crew(self, crew: Crew | None) -> Tally:
        """Return this tally with what a crew has done so far."""
        tally = Tally()
        tally.__dict__.update(self.__dict__)
        if crew is not None:
            tally.add(crew)
        return tally

    def add(self, crew: Crew) -> None:
        """Take in what a crew has done."""
        self.items += crew.delivered
        self.bytes += crew.received_bytes
        self.copies += crew.copies
        self.restarted += crew.restarted
        self.start_s += crew.start_s
        self.wait_s += crew.wait_s
