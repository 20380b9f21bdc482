"""The team of threads: for work that lets go of the interpreter's lock, with nothing copied and no process started."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any

from splitpipe.errors import PipelineClosedError, WorkerTimeoutError
from splitpipe.workers.failures import capture, rebuild
from splitpipe.workers.job import Job
from splitpipe.workers.lanes import NOTHING_LEFT, LaneRun, Skipped
from splitpipe.workers.member import Member
from splitpipe.workers.places import Place, Places

__all__ = ["ThreadTeam"]

logger = logging.getLogger(__name__)

# What a thread hands over: lane, what it is, whether the lane was asked for, the state after it.
_Item = tuple[int, Any, bool, str]

# How long `close` waits for generators that are busy; they cannot be stopped, and end with the process.
_GRACE_S = 2.0


class ThreadTeam:
    """Gives the same items in the same order as a `Team`, by threads of this process.

    The global random generators are the process's own here: draw from `current_lane().rng`.
    """

    copies = 0
    received_bytes = 0
    restarted = 0
    start_s = 0.0
    settled = True

    def __init__(self, job: Job, workers: int, prefetch: int) -> None:
        self._job, self._workers, self._prefetch = job, workers, prefetch
        self._owner = os.getpid()
        self._places = Places()
        self._changed = threading.Condition()
        self._made: list[deque[_Item]] = []
        self._threads: list[threading.Thread] = []
        self._earlier: list[threading.Thread] = []  # of epochs given up, busy with one item more
        self._inited = set[int]()
        self._init_locks = [threading.Lock() for _ in range(workers)]
        self.wait_s = 0.0
        self.delivered = 0
        self._stop = threading.Event()
        self.members: list[Member] = []

    def start(self, places: Places) -> None:
        """Begin an epoch."""
        self._check_owner()
        self._places = places
        self._stop = threading.Event()
        self._earlier = [thread for thread in (*self._earlier, *self._threads) if thread.is_alive()]
        self._made = [deque() for _ in range(self._workers)]
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(worker, places.of_worker(worker, self._workers), places.epoch, self._made[worker], self._stop),
                name=f"splitpipe-worker-{worker}",
                daemon=True,
            )
            for worker in range(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, worker: int, places: list[Place], epoch: int, made: deque[_Item], stop: threading.Event) -> None:
        lanes: deque[LaneRun] = deque()
        every: list[LaneRun] = []
        try:
            with self._init_locks[worker]:  # the thread of an epoch given up may be in it still
                if self._job.init is not None and worker not in self._inited:
                    self._job.init(worker)
                    self._inited.add(worker)
            every = [LaneRun(self._job, place, epoch) for place in places]
            lanes.extend(every)
            while lanes and not stop.is_set():
                self._step(worker, lanes, made, stop)
        except BaseException as exc:  # noqa: BLE001  whatever the user's code raises goes to the consumer
            lane = places[0].lane if places else worker
            self._hand_over((lane, _Raised(exc, f"thread {worker}, while it started"), False, ""), made, stop)
        finally:
            for run in every:
                _close(run, worker)

    def _step(self, worker: int, lanes: deque[LaneRun], made: deque[_Item], stop: threading.Event) -> None:
        run = lanes[0]
        try:
            item = run.step()
            state = run.state().decode()
        except BaseException as exc:  # noqa: BLE001  whatever the user's generator raises goes to the consumer
            error = _Raised(exc, f"thread {worker}, {run}")
            goes_on = isinstance(exc, Exception) and run.goes_on()
            item, state = Skipped(error.rebuilt()) if goes_on else error, ""
            if not goes_on:
                lanes.clear()
        if item is NOTHING_LEFT:
            lanes.popleft()
        else:
            lanes.rotate(-1)
        self._hand_over((run.lane.index, item, run.inside.asked, state), made, stop)

    def _hand_over(self, item: _Item, made: deque[_Item], stop: threading.Event) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(made) < self._prefetch or stop.is_set())
            made.append(item)
            self._changed.notify_all()

    def receive(self, lane: int, timeout: float | None) -> Any:
        """Return the next item of `lane`, or NOTHING_LEFT, or Skipped; raises as `Team.receive`."""
        return self._take([lane % self._workers], lane, timeout)[1]

    def receive_any(self, lanes: list[int], timeout: float | None) -> tuple[int, Any]:
        """Return one of `lanes` and its next item, or NOTHING_LEFT, or Skipped, whichever is there first."""
        return self._take(list(dict.fromkeys(lane % self._workers for lane in lanes)), lanes[0], timeout)

    def _take(self, workers: list[int], lane: int, timeout: float | None) -> tuple[int, Any]:
        self._check_owner()
        began = time.monotonic()
        with self._changed:
            while not any(self._made[worker] for worker in workers):
                left = None if timeout is None else began + timeout - time.monotonic()
                if left is not None and left <= 0:
                    raise self._late(lane, timeout)
                self._changed.wait(left)
            made = next(self._made[worker] for worker in workers if self._made[worker])
            lane, item, asked, state = made.popleft()
            self._changed.notify_all()
        self.wait_s += time.monotonic() - began
        self._places.asked |= asked
        if isinstance(item, _Raised):
            raise item.rebuilt()
        if item is NOTHING_LEFT:
            self._places.ended(lane)
        else:
            self._places.passed(lane, state)
            self.delivered += not isinstance(item, Skipped)
        return lane, item

    def _late(self, lane: int, timeout: float | None) -> WorkerTimeoutError:
        thread = self._threads[lane % self._workers]
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else "(it has ended)"
        return WorkerTimeoutError(
            f"nothing came from lane {lane} (thread {thread.name}) for {timeout} s: the generator is slower than that, "
            f"or stuck. Raise timeout=, or see why. This is what it does:\n{stack}"
        )

    def _check_owner(self) -> None:
        """Raise in a forked copy of this process: it has no threads, and maybe a lock that nobody will open."""
        if os.getpid() != self._owner:
            raise PipelineClosedError("this pipeline belongs to the process that made it: make one after the fork")

    def stop(self) -> None:
        """Give up the epoch under way; threads end at their next item."""
        if os.getpid() != self._owner:
            return
        with self._changed:
            self._stop.set()
            self._changed.notify_all()

    def close(self) -> None:
        """End all threads, or leave behind in two seconds those that are busy."""
        if os.getpid() != self._owner:
            return
        self.stop()
        deadline = time.monotonic() + _GRACE_S
        for thread in (*self._earlier, *self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        self._made = [deque() for _ in range(self._workers)]


def _close(run: LaneRun, worker: int) -> None:
    try:
        run.close()
    except Exception:
        # Nobody waits for this epoch any more, so there is nobody to raise it to.
        logger.exception("the generator raised while it was closed, in thread %d, %s", worker, run)


class _Raised:
    """An exception on its way to the consumer."""

    def __init__(self, exc: BaseException, where: str) -> None:
        self._exc, self._where = exc, where

    def rebuilt(self) -> BaseException:
        """Return it as it would come from a process, but the same object where it can be raised here."""
        if isinstance(self._exc, SystemExit):
            return rebuild(capture(self._exc, self._where))
        if hasattr(self._exc, "add_note"):
            self._exc.add_note(f"raised in {self._where}")
        return self._exc
