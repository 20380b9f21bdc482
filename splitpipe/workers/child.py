"""What a worker process does from its first line to its last."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from splitpipe.errors import ItemError
from splitpipe.lane import Lane
from splitpipe.memory import provide
from splitpipe.transport import Sender
from splitpipe.transport.frames import Frame, Serializer, unpicklable_part
from splitpipe.transport.messages import LANE_ASKED, Kind
from splitpipe.transport.sender import ChannelClosed
from splitpipe.workers.failures import capture
from splitpipe.workers.job import Job, load_job
from splitpipe.workers.lanes import NOTHING_LEFT, LaneRun
from splitpipe.workers.places import Place
from splitpipe.workers.randomness import GlobalRandomness
from splitpipe.workers.trace import Trace, TracedRun, TracedSender, TracedSerializer

__all__ = ["DUMP_SIGNAL", "run"]

logger = logging.getLogger(__name__)

_ITEM = int(Kind.ITEM)  # an int is compared and packed in a third of the time

# Asks a worker for the stacks of its threads; a real-time signal, for nobody else to use it.
DUMP_SIGNAL = getattr(signal, "SIGRTMIN", 34) + 7


def run(config: dict[str, Any], job: Job | None = None) -> None:
    """Serve epochs until the main process closes the control pipe, or is gone.

    Args:
        config: worker, workers, parent (pid), is_child, tickets, limit, places, epoch, last_epoch, trace; data,
            control, arena, job, words (descriptors).
        job: what to run, where it need not be read from the descriptor.
    """
    # Ctrl-C is the main process's to answer; it closes the control pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    faulthandler.enable(file=config["words"])
    faulthandler.register(DUMP_SIGNAL, file=config["words"], all_threads=True)
    _die_with(config["parent"], is_child=config["is_child"])
    worker = _Worker(config, job)
    # The main process is gone or wants no more: the end, without a word.
    with contextlib.suppress(ChannelClosed):
        worker.serve()


class _Worker:
    def __init__(self, config: dict[str, Any], job: Job | None) -> None:
        self._number: int = config["worker"]
        self._workers: int = config["workers"]
        self._resumed = config["epoch"], [Place(*place) for place in config["places"]]
        self._last_epoch: int | None = config["last_epoch"]
        ends = config["data"], config["control"], config["arena"], config["tickets"], config["limit"]
        self._trace = Trace(config["trace"], f"worker {self._number}") if config["trace"] else None
        self._sender = Sender(*ends) if self._trace is None else TracedSender(*ends, trace=self._trace)
        self._serializer = Serializer() if self._trace is None else TracedSerializer(self._trace)
        self._job_fd: int = config["job"]
        self._job = job
        self._began = False
        self._draws = True
        self._lane_of_item: Callable[[Lane, int], Lane] | None = None
        self._wholly: _Lane | None = None  # the lane whose state the global random generators are in
        provide(self._sender.builder)
        self._sender.page.get_ready()

    def serve(self) -> None:
        completed = False
        while True:
            epoch = self._sender.next_start(completed=completed, last=self._last_epoch)
            try:
                job = self._ready_job()
                lanes = deque(self._lane(job, place, epoch) for place in self._places(job, epoch))
            except BaseException as exc:  # noqa: BLE001  what the user's modules and init raise goes to the main process
                self._fail(exc, f"worker {self._number} (pid {os.getpid()}), while it started", self._number, epoch)
                completed = False
            else:
                completed = self._run_epoch(lanes)
            self._sender.flush()
            if self._trace is not None:
                self._trace.flush()

    def _ready_job(self) -> Job:
        if self._job is None:
            self._job = load_job(self._job_fd)
        if not self._began:
            if self._job.init is not None:
                self._job.init(self._number)
            self._began = True
            self._draws, self._lane_of_item = self._job.draws, self._job.lane_of_item
        return self._job

    def _lane(self, job: Job, place: Place, epoch: int) -> _Lane:
        trace = self._trace
        run = LaneRun(job, place, epoch) if trace is None else TracedRun(job, place, epoch, trace=trace)
        return _Lane(run, draws=job.draws)

    def _places(self, job: Job, epoch: int) -> list[Place]:
        if epoch == self._resumed[0]:
            return self._resumed[1]
        return [Place(lane) for lane in range(self._number, job.lanes, self._workers)]

    def _run_epoch(self, lanes: deque[_Lane]) -> bool:
        """Send all items of an epoch; return whether it came to its end."""
        every = list(lanes)
        try:
            while lanes:
                if not self._send_items(lanes):
                    return False
            return True
        finally:
            for lane in every:
                self._close(lane.run)

    def _send_items(self, lanes: deque[_Lane]) -> bool:
        """Send items of the lanes in turn until one of them ends or fails; return whether the epoch goes on."""
        sender, draws, several = self._sender, self._draws, len(lanes) > 1
        while not sender.stopped():
            lane = lanes[0]
            run = lane.run
            if draws:
                self._take_over(lane)
            try:
                item = run.step()
            except BaseException as exc:  # noqa: BLE001  whatever the user's generator raises goes to the main process
                return self._source_failed(exc, lanes)
            if item is NOTHING_LEFT:
                lanes.popleft()
                sender.tell(Kind.END, lane.index, lane.epoch, LANE_ASKED if run.inside.asked else 0)
                return True
            if several:
                lanes.rotate(-1)
            try:
                flags = LANE_ASKED if run.inside.asked else 0
                state = run.state() if run.lane.state else b""
                if not sender.send(_ITEM, self._frame(item, run), lane.index, lane.epoch, flags, state):
                    return False
            except ChannelClosed:
                raise
            except BaseException as exc:  # noqa: BLE001  what cannot be sent is told of instead
                return self._fail(exc, self._where(run), lane.index, lane.epoch)
        return False

    def _source_failed(self, exc: BaseException, lanes: deque[_Lane]) -> bool:
        """Tell of an exception of the user's generator; return whether the epoch goes on."""
        if isinstance(exc, ChannelClosed):
            raise exc
        lane = lanes[0]
        if isinstance(exc, Exception) and lane.run.goes_on():
            lanes.rotate(-1)
            return self._fail(exc, self._where(lane.run), lane.index, lane.epoch, Kind.SKIP)
        return self._fail(exc, self._where(lane.run), lane.index, lane.epoch)

    def _take_over(self, lane: _Lane) -> None:
        """Set the global random generators to what `lane` left them at, or to what its next item begins with."""
        if self._lane_of_item is not None:
            GlobalRandomness(self._lane_of_item(lane.run.lane, lane.run.items)).enter()
            return
        if self._wholly is lane:
            lane.randomness.stay()
            return
        if self._wholly is not None:
            self._wholly.randomness.leave()
        lane.randomness.enter()
        self._wholly = lane

    def _frame(self, item: Any, run: LaneRun) -> Frame:
        try:
            return self._serializer.frame(item)
        except Exception as exc:
            part = unpicklable_part(item) or f"item, a {type(item).__qualname__}"
            raise ItemError(
                f"{self._where(run)} cannot be sent to the main process: {part}, does not pickle ({exc}). "
                "Yield plain values and arrays"
            ) from exc

    def _where(self, run: LaneRun) -> str:
        return f"worker {self._number} (pid {os.getpid()}), {run}"

    def _fail(self, exc: BaseException, where: str, lane: int, epoch: int, kind: Kind = Kind.ERROR) -> bool:
        """Send an exception; return whether the epoch goes on."""
        frame = self._serializer.frame(capture(exc, where))
        return self._sender.send(kind, frame, lane, epoch) and kind is Kind.SKIP

    def _close(self, run: LaneRun) -> None:
        try:
            run.close()
        except Exception:
            # Nobody waits for this epoch any more, so there is nobody to raise it to.
            logger.exception("the generator raised while it was closed, in %s", self._where(run))


class _Lane:
    """A lane, and the random numbers that go with it."""

    def __init__(self, run: LaneRun, *, draws: bool) -> None:
        self.run = run
        self.index, self.epoch = run.lane.index, run.lane.epoch
        self.randomness = GlobalRandomness(run.lane)
        if draws:
            run.before_each = self.randomness.stay


def _die_with(parent: int, *, is_child: bool) -> None:
    """End this process when the main process does, even while the generator computes."""
    try:
        pidfd = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(0)
    if is_child and os.getppid() != parent:
        os._exit(0)  # it died before, and its number may be another's by now

    def watch() -> None:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.poll()
        os._exit(0)

    threading.Thread(target=watch, name="splitpipe-parent-watch", daemon=True).start()
