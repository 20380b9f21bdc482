"""The team without processes: the lanes run in the calling thread, when an item is asked for."""

from __future__ import annotations

from typing import Any

from splitpipe.workers.job import Job
from splitpipe.workers.lanes import LaneRun

__all__ = ["InlineTeam"]


class InlineTeam:
    """Gives the same items in the same order as a `Team`, with no process, no copy, and plain tracebacks."""

    copies = 0
    received_bytes = 0

    def __init__(self, job: Job) -> None:
        self._job = job
        self._runs: dict[int, LaneRun] = {}

    def start(self, epoch: int) -> None:
        """Begin an epoch."""
        self._runs = {lane: LaneRun(self._job, lane, epoch) for lane in range(self._job.lanes)}

    def receive(self, lane: int, timeout: float | None) -> Any:
        """Return the next item of `lane`, or NOTHING_LEFT; a timeout cannot be kept here."""
        return self._runs[lane].step()

    def receive_any(self, lanes: list[int], timeout: float | None) -> tuple[int, Any]:
        """Return one of `lanes` and its next item, or NOTHING_LEFT."""
        return lanes[0], self.receive(lanes[0], timeout)

    def stop(self) -> None:
        """Give up the epoch under way."""
        for run in self._runs.values():
            run.close()
        self._runs = {}

    def close(self) -> None:
        """End for good."""
        self.stop()
