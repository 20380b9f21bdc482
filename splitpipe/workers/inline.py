"""The team without processes: the lanes run in the calling thread, when an item is asked for."""

from __future__ import annotations

import time
from typing import Any

from splitpipe.workers.job import Job
from splitpipe.workers.lanes import NOTHING_LEFT, LaneRun, Skipped
from splitpipe.workers.member import Member
from splitpipe.workers.places import Place, Places
from splitpipe.workers.randomness import Borrowed, GlobalRandomness

__all__ = ["InlineTeam"]


class InlineTeam:
    """Gives the same items in the same order as a `Team`, with no process, no copy, and plain tracebacks."""

    copies = 0
    received_bytes = 0
    restarted = 0
    start_s = 0.0
    settled = True

    def __init__(self, job: Job) -> None:
        self._job = job
        self._runs: dict[int, LaneRun] = {}
        self._randomness: dict[int, GlobalRandomness] = {}
        self._places = Places()
        self.wait_s = 0.0
        self.delivered = 0
        self.members: list[Member] = []

    def start(self, places: Places) -> None:
        """Begin an epoch."""
        self._places = places
        for lane in places.left:
            run = LaneRun(self._job, Place(lane, places.items[lane], places.states[lane]), places.epoch)
            self._runs[lane] = run
            self._randomness[lane] = GlobalRandomness(run.lane)
            if self._job.draws:
                run.before_each = self._randomness[lane].stay

    def receive(self, lane: int, timeout: float | None) -> Any:
        """Return the next item of `lane`, or NOTHING_LEFT, or Skipped; a timeout cannot be kept here."""
        run, places = self._runs[lane], self._places
        began = time.monotonic()
        try:
            item = run.step() if not self._job.draws else self._drawing_step(run)
        except Exception as exc:
            if not run.goes_on():
                raise
            item = Skipped(exc)
        finally:
            self.wait_s += time.monotonic() - began
        if run.inside.asked:
            places.asked = True
        if item is NOTHING_LEFT:
            places.ended(lane)
        else:
            places.passed(lane, run.state().decode() if run.lane.state else "")
            self.delivered += not isinstance(item, Skipped)
        return item

    def _drawing_step(self, run: LaneRun) -> Any:
        """Return the next item, made with the global random generators of its lane."""
        of_item = self._job.lane_of_item
        randomness = self._randomness[run.lane.index]
        if of_item is not None:
            randomness = GlobalRandomness(of_item(run.lane, run.items))
        with Borrowed(randomness):
            return run.step()

    def receive_any(self, lanes: list[int], timeout: float | None) -> tuple[int, Any]:
        """Return one of `lanes` and its next item, or NOTHING_LEFT."""
        return lanes[0], self.receive(lanes[0], timeout)

    def stop(self) -> None:
        """Give up the epoch under way."""
        runs, self._runs = self._runs, {}
        for run in runs.values():
            run.close()

    def close(self) -> None:
        """End for good."""
        self.stop()
