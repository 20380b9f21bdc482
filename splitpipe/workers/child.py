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
from typing import Any

from splitpipe.errors import ItemError
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

# Asks a worker for the stacks of its threads; a real-time signal, for nobody else to use it.
DUMP_SIGNAL = getattr(signal, "SIGRTMIN", 34) + 7


def run(config: dict[str, Any], job: Job | None = None) -> None:
    """Serve epochs until the main process closes the control pipe, or is gone.

    Args:
        config: worker, workers, parent (pid), is_child, tickets, limit, places, epoch, early, trace; data, control,
            arena, job, words (descriptors).
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
        self._wholly: _Lane | None = None  # the lane whose state the global random generators are in
        provide(self._sender.builder)
        self._sender.page.ready = True

    def serve(self) -> None:
        completed, epoch = False, -1
        while True:
            # Not after the first epoch, if nobody said that there will be more: to run the generator again unasked
            # would surprise those who iterate once.
            more = epoch < self._last_epoch if self._last_epoch is not None else self._sender.goes_on
            epoch = self._sender.next_start(early=completed and more)
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
                if self._sender.stopped() or not self._step(lanes):
                    return False
            return True
        finally:
            for lane in every:
                self._close(lane.run)

    def _step(self, lanes: deque[_Lane]) -> bool:
        """Send the next item of the lane whose turn it is; return whether the epoch goes on."""
        lane = lanes[0]
        run = lane.run
        self._take_over(lane)
        try:
            item = run.step()
            if item is not NOTHING_LEFT:
                if len(lanes) > 1:
                    lanes.rotate(-1)
                return self._send(run, self._frame(item, run))
            lanes.popleft()
            self._sender.tell(Kind.END, lane=run.lane.index, epoch=run.lane.epoch, flags=run.asked and LANE_ASKED)
            return True
        except ChannelClosed:
            raise
        except Exception as exc:  # noqa: BLE001  whatever the user's generator raises goes to the main process
            if not isinstance(exc, ItemError) and run.goes_on():
                lanes.rotate(-1)
                return self._fail(exc, self._where(run), run.lane.index, run.lane.epoch, Kind.SKIP)
            return self._fail(exc, self._where(run), run.lane.index, run.lane.epoch)
        except BaseException as exc:  # noqa: BLE001  and what ends a process ends the lane
            return self._fail(exc, self._where(run), run.lane.index, run.lane.epoch)

    def _take_over(self, lane: _Lane) -> None:
        """Set the global random generators to the states that `lane` left them in."""
        if self._job is None or not self._job.draws:
            return
        if self._wholly is lane:
            lane.randomness.stay()
            return
        if self._wholly is not None:
            self._wholly.randomness.leave()
        lane.randomness.enter()
        self._wholly = lane

    def _send(self, run: LaneRun, frame: Frame, kind: Kind = Kind.ITEM) -> bool:
        lane = run.lane
        flags = LANE_ASKED if run.asked else 0
        state = run.state() if lane.state else b""
        return self._sender.send(kind, frame, lane=lane.index, epoch=lane.epoch, flags=flags, state=state)

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
        return self._sender.send(kind, frame, lane=lane, epoch=epoch) and kind is Kind.SKIP

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
